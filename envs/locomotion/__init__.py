"""Tasks for robots that move: `go1` (Unitree Go1), and `gymnasium_v5`, Gymnasium's eleven MuJoCo tasks."""
