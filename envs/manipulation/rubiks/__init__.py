"""A Rubik's Cube in a hand: its states and notation (`state`, `notation`), a planner (`planner`), the model and what
makes it turn (`model`, `mechanism`), goals (`goals`) and the task (`task`). The first three need no MuJoCo."""
