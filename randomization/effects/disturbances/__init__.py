"""What disturbs the world: random forces, pushes and a moving base (`forces`), and a random network adversary."""
