"""Spoils configurations, bundles and checkpoints, and looks whether simreal stands it.

    python tests/resilience/fuzz.py [--configs 2000] [--bundles 500] [--checkpoints 500] [--seed 0]

Every case goes through the command line in a process of its own making: it works, or it ends with status 2 and one
line on stderr, within 20 s and 1 GB. Anything else (a traceback, a crash, more lines, time or memory) is reported
with its number, so that `--only KIND NUMBER` repeats it. Exit status 0 if there was none.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from safetensors.torch import load

from envs.common.checkpoint_files import _checksum
from simreal.cli import commands
from simreal.cli.main import main as simreal
from simreal.deploy.policy import UNSIGNED
from simreal.training.run_config import shipped_configs
from simreal.training.trainer import Interrupted, Trainer
from tiny import LEARNERS, SAMPLERS, configuration, fork, train

WEIRD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 10**12, 2**63, -(10**30), 0.5, -0.0, 1e-320, 1e300, float("nan"), float("inf"),
    "", "x", "null", "1e3", "../../etc/passwd", "/dev/zero", "os:system", "gymnasium:x", "*", "\u0000", "\ud7ff" * 50,
    [], [1], [0.0, float("nan")], [2, 1], [[[]]], ["x"] * 300, {}, {"x": 1}, {"": {}}, {"a": {"b": {"c": []}}},
]  # fmt: skip
_LONGEST_S, _MOST_BYTES = 20, 1 << 30
_FILES = ("policy.json", "policy.onnx", "golden.npz")


@dataclass
class Tally:
    """What happened to the cases of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    largest_bytes: int = 0


def spots(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a document."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    for key, value in items:
        yield node, key
        yield from spots(value)


def spoil_document(document: Any, draw: random.Random) -> Any:
    """The document with one to three of its values changed, removed, renamed or added."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        found = list(spots(document))
        if not found:
            return draw.choice(WEIRD)
        node, key = draw.choice(found)
        action = draw.choice(("replace", "replace", "remove", "rename", "add", "scale", "move"))
        if action == "scale" and isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
            node[key] *= draw.choice((-1, 0, 0.1, 3, 1e-9))
        elif action == "remove":
            del node[key]
        elif action == "rename" and isinstance(node, dict):
            name = str(key)
            at = draw.randrange(len(name) + 1)
            node[name[:at] + draw.choice("xA_.0é") + name[at:]] = node.pop(key)
        elif action == "add" and isinstance(node, dict):
            node[draw.choice(("x", "seed", "range", "task", "mode"))] = copy.deepcopy(draw.choice(WEIRD))
        elif action == "move":
            other, place = draw.choice(found)
            with contextlib.suppress(IndexError, KeyError):
                node[key] = copy.deepcopy(other[place])
        else:
            node[key] = copy.deepcopy(draw.choice(WEIRD))
    return document


def spoil_bytes(raw: bytes, draw: random.Random) -> bytes:
    """The bytes with some flipped, cut out, repeated or put in."""
    spoilt = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(spoilt) + 1)
        length = draw.choice((1, 2, 8, 100))
        action = draw.choice(("flip", "flip", "cut", "repeat", "insert"))
        if action == "flip" and at < len(spoilt):
            spoilt[at] = draw.randrange(256)
        elif action == "cut":
            del spoilt[at : at + length]
        elif action == "repeat":
            spoilt[at:at] = spoilt[at : at + length] * draw.choice((1, 50))
        else:
            spoilt[at:at] = draw.choice((b"\x00", b"\xff", b"&a [*a]", b"!!python/name:os.system ", b": - {", b"\x80"))
    return bytes(spoilt)


class Material:
    """Good files to spoil, made once."""

    def __init__(self, folder: Path) -> None:
        self.run = folder / "run"
        train(configuration("sac", "adr", 180), self.run)
        with contextlib.redirect_stdout(io.StringIO()):
            simreal(["export", str(self.run)])
        self.bundle = self.run / "bundle"
        self.checkpoint = sorted((self.run / "checkpoints").glob("*.safetensors"))[-1]
        self.configs = [configuration(a, b).to_yaml() for a in LEARNERS for b in SAMPLERS]
        names = ("fetch_reach", "hopper", "hidden_velocity", "go1_velocity_adr")
        self.configs += [shipped_configs()[name].read_text() for name in names]


def spoilt_config(material: Material, folder: Path, draw: random.Random) -> list[str]:
    """Put a spoilt configuration into a folder; returns the command."""
    text = draw.choice(material.configs)
    if draw.random() < 0.8:
        text = yaml.safe_dump(spoil_document(yaml.safe_load(text), draw), sort_keys=False)
        (folder / "c.yaml").write_text(text)
    else:
        (folder / "c.yaml").write_bytes(spoil_bytes(text.encode(), draw))
    return ["train", str(folder / "c.yaml"), "--run-dir", str(folder / "new")]


def spoilt_bundle(material: Material, folder: Path, draw: random.Random) -> list[str]:
    """Put a spoilt bundle into a folder, in most cases with digests that are right; returns the command."""
    bundle = Path(shutil.copytree(material.bundle, folder / "bundle"))
    name, signed = draw.choice(_FILES), draw.random() < 0.8
    contract = json.loads((bundle / "policy.json").read_text())
    if name != "policy.json" or not signed:
        (bundle / name).write_bytes(spoil_bytes((bundle / name).read_bytes(), draw))
    else:
        contract = spoil_document(contract, draw)
    if signed:
        sign(bundle, contract)
    return ["evaluate", str(bundle), "--episodes", "1", "--world", draw.choice(("nominal", "trained"))]


def sign(bundle: Path, contract: Any) -> None:
    """Write a contract with the digests that the files and itself have now."""
    if isinstance(contract, dict) and isinstance(contract.get("files"), dict):
        for name in _FILES[1:]:
            raw = (bundle / name).read_bytes()
            contract["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        contract["contract_sha256"] = UNSIGNED
    text = json.dumps(contract)
    (bundle / "policy.json").write_text(text.replace(UNSIGNED, hashlib.sha256(text.encode()).hexdigest(), 1))


def spoilt_checkpoint(material: Material, folder: Path, draw: random.Random) -> list[str]:
    """Put a run with a spoilt checkpoint, whose checksums are right in most cases, into a folder."""
    run = Path(shutil.copytree(material.run, folder / "run"))
    for path in (run / "checkpoints").glob("*.safetensors"):
        path.unlink()
    target = run / "checkpoints" / material.checkpoint.name
    if draw.random() < 0.2:
        target.write_bytes(spoil_bytes(material.checkpoint.read_bytes(), draw))
    else:
        rewrite(material.checkpoint, target, draw)
    if draw.random() < 0.5:
        return ["evaluate", str(run), "--episodes", "1", "--world", "nominal"]
    return ["train", str(run / "config.yaml"), "--run-dir", str(run), "--resume"]


def rewrite(source: Path, target: Path, draw: random.Random) -> None:
    """A checkpoint of which the plain content, or a byte of a tensor, is spoilt, and the checksum right."""
    raw = source.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8:begin]), bytearray(raw[begin:])
    metadata, kind = header["__metadata__"], draw.random()
    if kind < 0.5:
        metadata["content"] = json.dumps(spoil_document(json.loads(metadata["content"]), draw))
    elif kind < 0.8:
        metadata["content"] = spoil_bytes(metadata["content"].encode(), draw).decode(errors="replace")
    else:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    tensors = load(bytes(raw[:begin] + data))
    metadata["crc32"] = _checksum(metadata["content"], tensors)
    text = json.dumps(header).encode()
    target.write_bytes(len(text).to_bytes(8, "little") + text + data)


KINDS: dict[str, Callable[[Material, Path, random.Random], list[str]]] = {
    "configs": spoilt_config,
    "bundles": spoilt_bundle,
    "checkpoints": spoilt_checkpoint,
}


def _begin(trainer: Trainer, *_: Any) -> None:
    """Stands where training is: one step."""
    trainer._collect()
    raise Interrupted


def run_case(kind: str, number: int, material: Material, seed: int, report: int) -> None:
    """In a process of its own: run the case; `report` is a pipe for what happened."""
    draw = random.Random(f"{seed} {kind} {number}")
    with tempfile.TemporaryDirectory() as name:
        folder, said = Path(name), io.StringIO()
        command = KINDS[kind](material, folder, draw)
        os.chdir(folder)
        status, began = 0, time.monotonic()
        Trainer.train = _begin  # pyright: ignore[reportAttributeAccessIssue]
        commands.finish = lambda run, out: None
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                simreal(command)
            except SystemExit as ended:
                status = int(ended.code or 0)
            except BaseException:
                status = 1
                traceback.print_exc()
        lines = said.getvalue().splitlines()
        good = status in (0, 130) or (status == 2 and len(lines) == 1)
        if status == 2 and kind == "configs" and (folder / "new").exists():
            good, lines = False, [*lines, "left a folder behind"]
        outcome = {"status": status, "good": good, "said": "\n".join(lines[-12:]), "s": time.monotonic() - began}
        os.write(report, json.dumps(outcome).encode()[:60_000])


def fuzz(kind: str, numbers: range, material: Material, seed: int) -> Tally:
    """Run cases of one kind and count."""
    tally = Tally()
    for number in numbers:
        read, write = os.pipe()
        child = fork()
        if not child:
            signal.alarm(_LONGEST_S)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with contextlib.suppress(BaseException):
                run_case(kind, number, material, seed, write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            raw = pipe.read()
        _, ended, usage = os.wait4(child, 0)
        tally.largest_bytes = max(tally.largest_bytes, usage.ru_maxrss * 1024)
        case = f"{kind} {number}"
        if not raw:
            tally.problems.append(f"{case}: {'took too long' if ended == signal.SIGALRM else f'crashed ({ended})'}")
            continue
        outcome = json.loads(raw)
        tally.slowest_s = max(tally.slowest_s, outcome["s"])
        tally.outcomes["refused" if outcome["status"] == 2 else "works"] += outcome["good"]
        if not outcome["good"]:
            tally.problems.append(f"{case}: status {outcome['status']}\n{outcome['said']}")
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tally.largest_bytes = max(tally.largest_bytes - base, 0)
    if tally.largest_bytes > _MOST_BYTES:
        tally.problems.append(f"{kind}: {tally.largest_bytes / 2**20:.0f} MiB were needed")
    return tally


def main() -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", type=int, default=2000)
    parser.add_argument("--bundles", type=int, default=500)
    parser.add_argument("--checkpoints", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="repeat one case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out, failed = Console(highlight=False, soft_wrap=True, markup=False), False
    with tempfile.TemporaryDirectory() as folder:
        material = Material(Path(folder))
        todo = {kind: range(getattr(arguments, kind)) for kind in KINDS}
        if arguments.only:
            todo = {arguments.only[0]: range(int(arguments.only[1]), int(arguments.only[1]) + 1)}
        for kind, numbers in todo.items():
            tally = fuzz(kind, numbers, material, arguments.seed)
            counts = ", ".join(f"{count} {name}" for name, count in sorted(tally.outcomes.items()))
            out.print(
                f"{kind}: {len(numbers)} cases, {counts}; slowest {tally.slowest_s:.1f} s, "
                f"{tally.largest_bytes / 2**20:.0f} MiB more than before at most; {len(tally.problems)} problems"
            )
            for problem in tally.problems:
                out.print(problem)
            failed |= bool(tally.problems)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
