"""From logs of a robot to the worlds it is trained in: parameters with their uncertainty.

`recording` holds what a log says in physical time, `simulation` plays pieces of it in many worlds at once, `fit`
finds the worlds that explain it, `knowledge` says what the log can tell and what it cannot, `answer` writes the
randomization block.
"""
