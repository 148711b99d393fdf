"""Tasks for robots that move: `legged` (any number of legs), `go1` (Unitree Go1, its first user), and `gymnasium_v5`,
Gymnasium's eleven MuJoCo tasks."""
