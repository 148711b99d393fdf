"""Whether training and export still compute the same bits: fingerprints of four short runs, to compare across changes.

    python benchmarks/same_bits.py before.json              # on the one commit
    python benchmarks/same_bits.py after.json before.json   # on the other: says what differs, exit status 1

The runs go through the command line. Of each: the tensors of the last checkpoint (as a set, whatever they are called
and however they are stored), `adr.csv`, `metrics.csv` without times, and what ONNX Runtime makes of the golden
observations.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RUNS = {  # configuration and overrides
    "FetchReach, SAC, ADR": ("fetch_reach", ["train.env_steps=3000", "learner.warmup_steps=400"]),
    "Go1, PPO": ("go1_velocity", ["train.env_steps=20000", "num_envs=64"]),
    "cart-pole without velocities, PPO with LSTM": ("hidden_velocity", ["train.env_steps=8192"]),
    "FetchPush, DDPG, ADR": ("fetch_push", ["train.env_steps=6400", "learner.warmup_steps=1600"]),
}
_ALWAYS = ["evaluate.episodes=2", "evaluate.worlds=[nominal]", "train.log_interval=1000", "train.torch_threads=1"]
_TIMES = ("seconds", "steps_per_second")


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested plain data."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def digest(*parts: bytes) -> str:
    """A short fingerprint."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def of_tensors(content: Any) -> str:
    """Fingerprint of the set of tensors in a checkpoint."""
    each = sorted(
        digest(str((t.dtype, tuple(t.shape))).encode(), t.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for t in tensors(content)
        if t.numel()
    )
    return digest(*(one.encode() for one in each))


def of_table(path: Path) -> str:
    """Fingerprint of a CSV file without its columns of times; "none" where there is no such file."""
    if not path.is_file():
        return "none"
    with path.open(newline="") as file:
        rows = [{key: text for key, text in row.items() if key not in _TIMES} for row in csv.DictReader(file)]
    return digest(json.dumps(rows, sort_keys=True).encode())


def fingerprint(config: str, overrides: list[str], folder: Path) -> dict[str, str]:
    """Train, export, and look at what was left."""
    from simreal.cli.main import main as simreal
    from simreal.deploy import Policy
    from simreal.training.checkpoint import newest_checkpoint

    simreal(["train", config, *overrides, *_ALWAYS, "--run-dir", str(folder)])
    golden = np.load(folder / "bundle" / "golden.npz")
    policy = Policy.load(folder / "bundle")
    actions = np.stack([policy(observation) for observation in golden["observations"]])
    return {
        "checkpoint": of_tensors(newest_checkpoint(folder)),
        "adr.csv": of_table(folder / "adr.csv"),
        "metrics.csv": of_table(folder / "metrics.csv"),
        "golden observations": digest(golden["observations"].tobytes()),
        "exported actions": digest(actions.astype(np.float32).tobytes()),
    }


def main() -> None:
    """Write fingerprints; with a second file compare them with those."""
    parser = argparse.ArgumentParser(description="Fingerprints of short runs.")
    parser.add_argument("output", type=Path)
    parser.add_argument("before", type=Path, nargs="?")
    options = parser.parse_args()
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (config, overrides)) in enumerate(RUNS.items()):
            found[name] = fingerprint(config, overrides, Path(folder) / str(number))
            options.output.write_text(json.dumps(found, indent=1) + "\n")
    if options.before is None:
        return
    before = json.loads(options.before.read_text())
    differing = [f"{run}: {what}" for run in found for what in found[run] if before[run][what] != found[run][what]]
    print("\n".join(differing) if differing else "the same bits")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
