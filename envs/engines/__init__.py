"""Physics engines: N simulations of one model behind torch tensors."""
