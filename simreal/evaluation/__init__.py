"""How well a policy does, and where: `evaluate`, `compare`, `envelope`, in the `worlds` that training never saw."""
