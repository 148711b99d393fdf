"""What pictures may show differently: cameras, lights, materials, background, and what the camera does to a picture."""
