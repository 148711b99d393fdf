"""The `simreal` command: `main` has the arguments, `commands` what they do."""
