"""The `simreal` command within the process of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simreal.cli.main import main

Said = tuple[int, str, str]
"""Exit status, and what was written to stdout and stderr."""
Run = Callable[..., Said]


def simreal_command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Said:
    """Run the command with arguments."""
    try:
        main([str(a) for a in arguments])
        status = 0
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(said: Said, *expected: str) -> None:
    """Exit status 2 and one line on stderr that holds every expected part."""
    status, _, err = said
    assert status == 2, err
    assert err.count("\n") == 1, err
    for part in expected:
        assert part in err
