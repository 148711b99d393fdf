"""Any Gymnasium environment that holds an mjModel and an mjData, unmodified, as a task and an engine.

`task.AdaptedTask` is the task; `engine.GymnasiumEngine` steps the environments; `make`, `probe` and `spaces` find out
what an environment is, `model_fields` and `python_state` reach into it.
"""
