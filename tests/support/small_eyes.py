"""A small estimator of FetchReach's gripper, trained on pictures of a few pixels, for tests that look at one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from shortcuts import made_once, with_small_chunks
from simreal.cli.main import main

SMALL: dict[str, Any] = {
    "task": "FetchReach-v4",
    "mounts": {"front": {"pos": [1.9, 0.75, 1.2], "lookat": [1.32, 0.75, 0.45], "fovy": 42}},
    "cameras": ["front"],
    "size": 16,
    "targets": {"grip_pos": {"within": 0.1}},
    "pictures": {"workers": 0},
    "network": {"channels": [8, 8], "features": 8, "hidden": [16]},
    "randomization": {
        "sampler": "adr",
        "adr": {"boundary_probability": 0.5, "buffer_size": 3, "thresholds": [0.0, 0.0]},
        "parameters": {"material_hue": {"range": [0.0, 0.4]}, "image_brightness": {"range": [-0.1, 0.1]}},
    },
    "train": {"frames": 96, "batch_size": 4, "round_chunks": 1, "log_interval": 32},
    "evaluate": {"frames": 16, "boundary_frames": 8, "looks": ["nominal", "trained", "held_out", "blur", "occluder"]},
}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    with_small_chunks(monkeypatch)


def write(folder: Path, **changed: Any) -> Path:
    path = folder / "eyes.yaml"
    path.write_text(yaml.safe_dump(SMALL | changed, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained estimator, made once. Look at it, or copy it."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            with_small_chunks(patch)
            main(["estimate", str(write(folder)), "--run-dir", str(folder / "eyes")])

    return made_once(tmp_path_factory, "eyes", make) / "eyes"
