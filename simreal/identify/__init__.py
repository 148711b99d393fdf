"""From logs of a robot to the worlds it is trained in: parameters with their uncertainty.

`recording` holds what a log says in physical time, `pieces` cuts it, `simulation` plays the pieces in many worlds at
once, `fit` finds the worlds that explain it, `knowledge` says what the log can tell and what it cannot; `answer` writes
it down, `excite` draws the motion for the next log.
"""
