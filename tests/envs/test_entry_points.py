"""What packages announce is found once it is there, and read once."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from envs.platform.entry_points import entry_points


def announce(folder: Path, package: str) -> None:
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[of.mine]\n{package} = module_of_{package}\n")


def test_packages_are_found_when_they_are_installed_and_their_files_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> list[str]:
        return sorted(entry.name for entry in entry_points("of.mine"))

    read: list[str] = []
    of_all = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", lambda group: (read.append(group), of_all(group=group))[1])
    assert names() == names() == []
    announce(tmp_path / "a", "first")
    monkeypatch.syspath_prepend(str(tmp_path / "a"))
    assert names() == names() == ["first"]
    announce(tmp_path / "a", "second")  # into a folder that was looked into before
    assert names() == names() == ["first", "second"]
    assert len(read) == 3
