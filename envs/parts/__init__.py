"""Ready-made parts of tasks: what actions do, what is observed, and a task that is composed of them."""
