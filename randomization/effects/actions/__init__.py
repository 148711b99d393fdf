"""What happens to an action and to the command made of it: noise, loss, delay, backlash, motors that fade."""
