"""What depends on the machine and on others' packages: OpenGL, processors, robots of MuJoCo Menagerie, a patch."""
