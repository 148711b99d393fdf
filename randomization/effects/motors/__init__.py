"""Motors as they are: what they can exert at their speed, voltage and temperature, and what gears and friction take."""
