"""Manipulation tasks.

`fetch.FetchTask` (arm), `shadow_reach.HandReachTask` and `shadow_manipulate.HandManipulateTask` (Shadow hand),
`adroit_tasks` (Adroit hand) equal gymnasium-robotics; `cube_reorientation.CubeReorientation` turns a cube in a hand.
"""
