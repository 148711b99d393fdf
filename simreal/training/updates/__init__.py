"""How updates run: on how many threads, and beside what."""
