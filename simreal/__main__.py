"""`python -m simreal`: the `simreal` command."""

from simreal.cli import main

main()
