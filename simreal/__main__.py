"""`python -m simreal`: the `simreal` command."""

from simreal.cli.main import main

main()
