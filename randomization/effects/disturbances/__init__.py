"""What disturbs the world: random forces, pushes and a moving base (`forces`), a random network adversary, hard ground
(`terrain`)."""
