"""The API reference is built without a warning, and shows every public name with a docstring."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pdoc")
reference = pytest.importorskip("reference")


def test_every_public_name_has_a_docstring() -> None:
    assert [name for module in reference.public_modules() for name in reference.undocumented(module)] == []


def test_the_reference_shows_every_public_name(tmp_path: Path) -> None:
    assert len(reference.names_of(reference.public_modules()[0])) > 15
    assert reference.build(tmp_path) == []
    assert "Arguments" in (tmp_path / "simreal.html").read_text()
