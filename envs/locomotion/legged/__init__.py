"""Robots on legs, however many: `robot` describes one, `model` compiles it on its `ground`, `velocity` is the task,
`rewards` what it pays for, `gait` how feet should move and what they do."""
