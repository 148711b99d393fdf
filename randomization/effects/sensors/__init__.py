"""What happens to a measurement: gain, offset, noise, resolution (`errors`); delay, drop-out, freezing (`timing`)."""
