"""Pictures: `rendering` draws them, `datasets` keeps many with what they show; `cli` has the command."""
