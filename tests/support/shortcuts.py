"""What tests need not wait for: a thing that another process has made, bundles and figures that nobody looks at."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from simreal.cli import commands
from simreal.learners.off_policy import hindsight
from simreal.report import figures
from simreal.vision.datasets.plan import Chunking


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of the processes fills, and that all of them look at: who changes it copies it first."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder)
                raise
    return folder


def without_bundles(patch: pytest.MonkeyPatch, but: str = "") -> None:
    """Trainings end with an empty folder in place of a bundle, but for runs of these names: one takes a second."""
    export = commands._export

    def made(run: Path, policy: Any, output: Path, figures: Any, **code: Any) -> Path:
        if run.name in but.split():
            return export(run, policy, output, figures, **code)
        output.mkdir(exist_ok=True)
        return output

    patch.setattr(commands, "_export", made)


def without_drawings(patch: pytest.MonkeyPatch) -> None:
    """Figures of reports are made, and are empty on the page: to draw one takes a tenth of a second."""
    patch.setattr(figures, "svg", lambda figure, alt: f'<svg role="img" aria-label="{html.escape(alt)}"></svg>')


def with_small_chunks(patch: pytest.MonkeyPatch) -> None:
    """Pictures are dealt with in chunks of 16: one usually has about 256."""
    patch.setattr(Chunking, "of", classmethod(lambda cls, steps, most=None: Chunking(8, 2, 1)))


def with_short_rehearsals(patch: pytest.MonkeyPatch) -> None:
    """What follows from a task's goal is looked for in a few steps: enough for the tasks that come along."""
    patch.setattr(hindsight, "_STEPS", 6)
