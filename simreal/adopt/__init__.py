"""A robot's file becomes a task: `new` writes one to start from, `adopt` looks at the robot first, writes a package
that trains, evaluates and exports (`package`), and tries whether it learns (`smoke`)."""
