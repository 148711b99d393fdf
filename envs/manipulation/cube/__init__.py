"""A hand turns a cube in its palm: the task in `reorientation`, robots in `hands`, goal orientations in `goals`."""
