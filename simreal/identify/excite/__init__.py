"""Motion that shows parameters: `excitation` draws and chooses it, `rehearsal` plays it on a simulated robot."""
