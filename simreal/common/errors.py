"""The one kind of error that a user is told about without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """The user's input is wrong: one line that names the key or file, what was expected and what is nearest.

    Commands print it on stderr and exit with status 2; nothing is overwritten.
    """


class ElsewhereError(UserError):
    """Another rank of the run met an error of the user and tells it: this one ends without a word."""
