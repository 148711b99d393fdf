"""Robots behind messages: ROS 2 and Unitree's SDK over DDS, and a robot that is another process (`process`)."""
