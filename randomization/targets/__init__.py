"""Which objects of a model a quantity may name, and whether it does something to them."""
