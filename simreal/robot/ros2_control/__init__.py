"""The source of a ros2_control controller in C++, around a policy in C."""
