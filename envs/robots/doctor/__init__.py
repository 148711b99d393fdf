"""What is wrong with a robot's file, found from its numbers: `examine` asks what a URDF says, masses, joints, contacts,
keyframes, and how it moves."""
