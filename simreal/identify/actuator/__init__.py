"""From logs of what actuators were told, what joints did and what torque there was to a network: `simreal actuator`."""
