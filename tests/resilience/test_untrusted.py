"""Files that somebody made up are refused in one line, in bounded time and memory, and run nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fuzz import Material, fuzz, sign
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import configuration

from randomization.tensor_file import read_tensors
from simreal.checkpoint import load_checkpoint
from simreal.config import load_config
from simreal.errors import UserError
from simreal.runs import load_policy
from simreal.worlds import check_names

_MOST_BYTES, _LONGEST_S = 96 << 20, 5.0


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A run and its bundle."""
    return Material(tmp_path_factory.mktemp("material"))


def status_bytes(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def refused(load: Callable[[], Any]) -> str:
    """The one line with which a file is refused, in a process whose largest memory and time are bounded."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        message = "was accepted"
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
            before, began = status_bytes("VmRSS"), time.process_time()
            try:
                load()
            except UserError as error:
                message = str(error)
            used, took = status_bytes("VmHWM") - before, time.process_time() - began
            if used > _MOST_BYTES or took > _LONGEST_S:
                message = f"took {used / 2**20:.0f} MiB and {took:.1f} s: {message}"
        except BaseException as error:
            message = f"raised {error!r}"
        os.write(write, message.encode()[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    assert message, "crashed"
    assert "\n" not in message
    return message


class Trap:
    """Leaves a mark if it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("sprung",)


def archive(path: Path, description: bytes, records: dict[str, bytes] | None = None, method: int = 0) -> Path:
    """A file as torch.save lays it out."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", description)
        for name, raw in (records or {}).items():
            file.writestr(f"archive/data/{name}", raw)
    return path


def stored(storage: bytes, size: tuple[int, ...], stride: tuple[int, ...], length: int) -> bytes:
    """The description of {"x": a tensor of these sizes over a record named 0}."""

    def number(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)  # LONG1

    def tuple_of(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, numbers)) + b"t"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    reference = (
        b"(" + text("storage") + b"ctorch\n" + storage + b"\n" + text("0") + text("cpu") + number(length) + b"tQ"
    )
    arguments = b"(" + reference + number(0) + tuple_of(size) + tuple_of(stride) + b"\x89" + b"ccollections\n"
    arguments += b"OrderedDict\n)Rt"
    return b"\x80\x02}" + text("x") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def bombs(folder: Path) -> dict[str, Path]:
    """Checkpoints that would run code, or fill the memory, if they were believed."""
    folder.mkdir()
    torch.save({"format": 2, "trap": Trap()}, folder / "payload.pt")
    (folder / "plain.pt").write_bytes(pickle.dumps({"format": 2, "trap": Trap()}))
    archive(folder / "bomb.pt", stored(b"FloatStorage", (1 << 28,), (1,), 1 << 28), {"0": bytes(1 << 28)}, 8)
    archive(folder / "stretched.pt", stored(b"FloatStorage", (1 << 40,), (0,), 1), {"0": bytes(4)})
    archive(folder / "overflow.pt", stored(b"FloatStorage", (1 << 31, 1 << 33), (1, 1), 1), {"0": bytes(4)})
    archive(folder / "promised.pt", stored(b"FloatStorage", (1 << 40,), (1,), 1 << 40), {"0": bytes(4)})
    doubling = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60)) + b"."
    archive(folder / "doubling.pt", b"\x80\x02" + doubling)
    archive(folder / "deep.pt", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    archive(folder / "long.pt", b"\x80\x02" + b"N0" * 3_000_000 + b"N.")
    archive(folder / "outside.pt", stored(b"FloatStorage", (1,), (1,), 1), {"../../outside": bytes(4)})
    overlapping(folder / "overlapping.pt")
    return {path.stem: path for path in folder.iterdir()}


def overlapping(path: Path) -> None:
    """An archive whose directory names one record of 4 MB a thousand times."""
    archive(path, b"\x80\x02}.", {"0": bytes(4 << 20)})
    raw = path.read_bytes()
    (start,) = struct.unpack("<I", raw[-6:-2])
    directory, end = raw[start:-22], raw[-22:]
    (entry,) = (directory[i:] for i in range(len(directory)) if directory[i:].startswith(b"PK\1\2") and i)
    many = b"".join(entry.replace(b"data/0", b"d/%04d"[:6] % i if i < 10 else b"%06d" % i) for i in range(1000))
    directory += many
    end = end[:8] + struct.pack("<HHII", 1002, 1002, len(directory), start) + end[20:]
    path.write_bytes(raw[:start] + directory + end)


def test_checkpoints_that_would_run_code_or_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in bombs(tmp_path / "bombs").items():
        message = refused(lambda path=path: load_checkpoint(path))
        assert message.startswith(f"{path}: not a checkpoint that `simreal train` wrote: "), (name, message)
    assert not (tmp_path / "sprung").exists()
    assert not list(tmp_path.rglob("outside"))


def test_the_made_up_description_is_one_that_can_be_read(tmp_path: Path) -> None:
    raw = np.arange(6, dtype=np.float32).tobytes()
    path = archive(tmp_path / "x.pt", stored(b"FloatStorage", (2, 3), (3, 1), 6), {"0": raw})
    assert torch.equal(read_tensors(path)["x"], torch.arange(6.0).view(2, 3))


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DOCUMENTS = {
    "aliases": (ALIASES + "task: *i\n", "aliases counted"),
    "itself": ("task: &a [*a]\n", "contains it"),
    "code": ("task: !!python/object/apply:os.mkdir [sprung]\n", "could not determine a constructor"),
    "name": ("task: !!python/name:os.system\n", "could not determine a constructor"),
    "deep": ("task: " + "[" * 50_000, "levels deep"),
    "deep keys": ("? " * 20_000, "levels deep"),
    "large": ("# " + "x" * 2_000_000, "larger than"),
    "integer": ("seed: " + "9" * 100_000 + "\n", "valid YAML"),
    "base 60": ("seed: " + ":".join(["59"] * 30_000) + "\n", "64 bits"),
    "merge": ("a: &a {x: 1}\nb: {<<: [" + ", ".join(["*a"] * 60_000) + "]}\n", "aliases counted"),
    "bytes": ("task: !!binary aGVsbG8=\n", "bytes"),
    "a million": ("hidden: [" + "1," * 400_000 + "1]\n", "more than 100000 values"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_yaml_that_would_run_code_or_explode_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, said = DOCUMENTS[name]
    path = tmp_path / "c.yaml"
    path.write_text(text)
    for load in (lambda: load_config(str(path)), lambda: check_names([str(path)])):
        message = refused(load)
        assert message.startswith(f"{path}: "), message
        assert said in message
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "learner",
    [
        {"algorithm": "sac", "hidden": [65_536, 65_536]},
        {"algorithm": "sac", "hidden": [1] * 10_000},
        {"algorithm": "ppo", "actor_hidden": [65_536, 65_536]},
        {"algorithm": "ppo", "memory": "lstm", "memory_size": 10**9},
    ],
)
def test_networks_beyond_reason_are_refused_before_they_are_made(learner: dict[str, Any], tmp_path: Path) -> None:
    document = yaml.safe_load(configuration("sac", "adr").to_yaml()) | {"learner": learner}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    assert refused(lambda: load_config(str(path))).startswith(f"{path}: learner.")


def test_a_run_with_a_replay_beyond_reason_is_evaluated_without_it(material: Material, tmp_path: Path) -> None:
    run = Path(shutil.copytree(material.run, tmp_path / "run"))
    document = yaml.safe_load((run / "config.yaml").read_text())
    document["learner"]["replay_size"] = 10**15
    (run / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    expected, loaded = load_policy(material.run), load_policy(run)
    size = sum(component.size for component in loaded.make_task().components("policy"))
    observation = torch.linspace(-1.0, 1.0, 3 * size).view(3, size)
    assert torch.equal(loaded.act(observation), expected.act(observation))


def spoilt_bundles(material: Material, folder: Path) -> dict[str, tuple[Path, str]]:
    """Bundles with something wrong, digests made right where they matter, and what is said of them."""

    def copy(name: str) -> tuple[Path, dict[str, Any]]:
        bundle = Path(shutil.copytree(material.bundle, folder / name))
        return bundle, json.loads((bundle / "policy.json").read_text())

    found: dict[str, tuple[Path, str]] = {}
    bundle, contract = copy("digest")
    contract["files"]["policy.onnx"]["sha256"] = "0" * 64
    (bundle / "policy.json").write_text(json.dumps(contract))
    found["a wrong sha256"] = bundle, "altered after the export"
    for label, key in (("traversal", "../../etc/passwd"), ("absolute", "/etc/passwd")):
        bundle, contract = copy(label)
        contract["files"][key] = {"bytes": 1, "sha256": "0" * 64}
        sign(bundle, contract)
        found[label] = bundle, "expected plain file names"
    bundle, contract = copy("link")
    (bundle / "golden.npz").unlink()
    (bundle / "golden.npz").symlink_to("/etc/hostname")
    found["a link out of it"] = bundle, "leads out of the bundle"
    bundle, contract = copy("pickled")
    np.savez(bundle / "golden.npz", observations=np.array([Trap()], dtype=object), actions=np.zeros(1))
    sign(bundle, contract)
    found["a pickle in it"] = bundle, "cannot be read"
    bundle, contract = copy("bomb")
    with (
        zipfile.ZipFile(bundle / "golden.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("observations.npy", "w") as record,
    ):
        for _ in range(64):
            record.write(bytes(8 << 20))
    sign(bundle, contract)
    found["a zip bomb"] = bundle, "unpacks to"
    bundle, contract = copy("promise")
    raw = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)}
    np.lib.format.write_array_header_1_0(raw, header)
    with zipfile.ZipFile(bundle / "golden.npz", "w") as file:
        file.writestr("observations.npy", raw.getvalue())
    sign(bundle, contract)
    found["a huge shape"] = bundle, "cannot be read"
    bundle, contract = copy("parameters")
    contract["randomization"]["parameters"][0]["quantity"] = "*"
    sign(bundle, contract)
    found["an unknown quantity"] = bundle, "unknown quantity '*'"
    return found


def test_bundles_that_lie_are_refused(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_policy(material.bundle)  # as it is, it is good
    for name, (bundle, said) in spoilt_bundles(material, tmp_path / "bundles").items():
        message = refused(lambda bundle=bundle: load_policy(bundle))
        assert message.startswith(str(bundle)), (name, message)
        assert said in message, (name, message)
    assert not (tmp_path / "sprung").exists()


def check(material: Material, **counts: int) -> None:
    for kind, count in counts.items():
        tally = fuzz(kind, range(count), material, seed=random.Random(kind).randrange(1000))
        assert not tally.problems, "\n".join(tally.problems)
        assert min(tally.outcomes["works"], tally.outcomes["refused"]) > 0
        assert sum(tally.outcomes.values()) == count


def test_some_spoilt_files_work_or_are_refused_in_one_line(material: Material) -> None:
    check(material, configs=20, bundles=15, checkpoints=40)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("configs", 2000), ("bundles", 500), ("checkpoints", 500)])
def test_thousands_of_spoilt_files_work_or_are_refused_in_one_line(kind: str, count: int, material: Material) -> None:
    @settings(max_examples=count, deadline=None, database=None)
    @given(number=st.integers(0, 2**63), seed=st.integers(0, 2**63))
    def spoil(number: int, seed: int) -> None:
        tally = fuzz(kind, range(number, number + 1), material, seed)
        assert not tally.problems, f"--seed {seed}: " + "\n".join(tally.problems)

    spoil()
