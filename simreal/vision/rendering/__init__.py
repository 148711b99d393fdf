"""Pictures and videos of environments: `offscreen`, `scene`, `viewer` for policies, `contact_sheet` for worlds."""
