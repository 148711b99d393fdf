"""What happens during an episode: to actions and commands, to sensors, to the world; `pipeline` calls the effects."""
