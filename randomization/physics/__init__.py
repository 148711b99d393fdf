"""Physical quantities: which values of which MuJoCo model fields each writes, and the writer."""
