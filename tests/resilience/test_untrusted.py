"""Files that somebody made up are refused in one line, in bounded time and memory, and run nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from envs.common.checkpoint_files import read_tensors, write_tensors
from envs.common.safe_yaml import FileError
from fuzz import Material, fuzz, sign
from simreal.common.errors import UserError
from simreal.evaluation.worlds import check_names
from simreal.training.checkpoint import load_checkpoint, newest_checkpoint
from simreal.training.run_config import load_config
from simreal.training.run_directory import load_policy
from tiny import configuration, fork

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
    child = fork()
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


def tensor_file(path: Path, header: dict[str, Any], data: bytes = b"", content: str = "{}") -> Path:
    """A file as `write_tensors` lays it out, its checksum right if there are no tensors."""
    metadata = {"content": content, "crc32": f"{zlib.crc32(content.encode()):08x}"}
    raw = json.dumps({"__metadata__": metadata, **header}).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def entry(dtype: str, shape: tuple[int, ...], start: int, stop: int) -> dict[str, Any]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def bombs(folder: Path) -> dict[str, Path]:
    """Checkpoints that would run code, or fill the memory, if they were believed."""
    folder.mkdir()
    torch.save({"format": 3, "trap": Trap()}, folder / "payload.pt")
    (folder / "plain.pt").write_bytes(pickle.dumps({"format": 3, "trap": Trap()}))
    (folder / "endless.pt").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    tensor_file(folder / "promised.pt", {"x": entry("F32", (1 << 40,), 0, 1 << 42)}, bytes(4))
    tensor_file(folder / "stretched.pt", {"x": entry("F32", (1 << 40,), 0, 4)}, bytes(4))
    tensor_file(folder / "overflow.pt", {"x": entry("F32", (1 << 31, 1 << 33), 0, 4)}, bytes(4))
    tensor_file(folder / "hole.pt", {"x": entry("F32", (1,), 4, 8)}, bytes(8))
    tensor_file(folder / "outside.pt", {"../../outside": entry("F32", (1,), 0, 4)}, bytes(4))
    many = {str(i): entry("U8", (4 << 20,), 0, 4 << 20) for i in range(1000)}
    tensor_file(folder / "overlapping.pt", many, bytes(4 << 20))
    tensor_file(folder / "deep.pt", {}, content="[" * 100_000 + "]" * 100_000)
    tensor_file(folder / "missing.pt", {}, content='{"x": {"$tensor": "y"}}')
    tensor_file(folder / "unhashable.pt", {}, content='{"x": {"$tensor": []}}')
    tensor_file(folder / "digits.pt", {}, content='{"x": ' + "9" * 100_000 + "}")
    tensor_file(folder / "long.pt", {}, content="[" + "[]," * 3_000_000 + "0]")
    tensor_file(folder / "longest allowed.pt", {}, content="[" + "[]," * 650_000 + "0]")
    with (folder / "truth.pt").open("wb") as file:
        write_tensors(file, {"x": torch.tensor([7], dtype=torch.uint8).view(torch.bool)})
    return {path.stem: path for path in folder.iterdir()}


def test_checkpoints_that_would_run_code_or_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in bombs(tmp_path / "bombs").items():
        message = refused(lambda path=path: load_checkpoint(path))
        assert message.startswith(f"{path}: not a checkpoint that `simreal train` wrote: "), (name, message)
    assert not (tmp_path / "sprung").exists()
    assert not list(tmp_path.rglob("outside"))


def test_the_made_up_file_is_one_that_can_be_read(tmp_path: Path) -> None:
    assert read_tensors(tensor_file(tmp_path / "x.pt", {}, content='{"x": [NaN, "a"]}'))["x"][1] == "a"


def test_any_value_of_a_checkpoint_comes_back_and_other_programs_read_its_tensors(tmp_path: Path) -> None:
    whole = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    content: dict[str, Any] = {
        "a": {"b/c": whole, "b": {"c": whole[:, 1], "d": (torch.tensor(True), torch.zeros(0, 3))}},
        "same": whole,
        "generator": torch.Generator().get_state(),
        "plain": [None, True, 2**70, 0.1, float("inf"), "\ud800 \n", {}, []],
    }
    path = tmp_path / "x.pt"
    with path.open("wb") as file:
        write_tensors(file, content)
    found = read_tensors(path)
    assert found["plain"] == content["plain"]
    assert torch.equal(found["a"]["b/c"], whole)
    assert torch.equal(found["a"]["b"]["c"], whole[:, 1])
    assert found["a"]["b"]["d"][0].item() is True
    assert found["a"]["b"]["d"][1].shape == (0, 3)
    assert torch.equal(found["generator"], content["generator"])
    assert torch.equal(load_file(path)["same"], whole)


def test_a_single_bit_that_changed_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with path.open("wb") as file:
        write_tensors(file, {"x": torch.arange(3.0), "steps": 1.5, "name": "n"})
    raw = path.read_bytes()
    padding = raw[8:].index(b"}   ") + 9 if b"}   " in raw else len(raw)
    for at in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
            try:
                read_tensors(path)
            except FileError:
                continue
            assert padding <= at < len(raw) - 12, (at, bit)  # white space that became other white space


def test_checkpoints_of_earlier_versions_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "step_000000000001.pt"
    path.parent.mkdir()
    torch.save({"format": 2, "env_steps": 1}, path)
    for read in (lambda: load_checkpoint(path), lambda: newest_checkpoint(tmp_path)):
        message = refused(read)
        assert message.startswith(f"{path}: ")
        assert "written by an earlier version of simreal" in message


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DOCUMENTS = {
    "aliases": (ALIASES + "task: *i\n", "an alias (*a)"),
    "itself": ("task: &a [*a]\n", "an alias (*a)"),
    "code": ("task: !!python/object/apply:os.mkdir [sprung]\n", "could not determine a constructor"),
    "name": ("task: !!python/name:os.system\n", "could not determine a constructor"),
    "deep": ("task: " + "[" * 50_000, "levels deep"),
    "deep keys": ("? " * 20_000, "levels deep"),
    "large": ("# " + "x" * 2_000_000, "larger than"),
    "integer": ("seed: " + "9" * 100_000 + "\n", "valid YAML"),
    "merge": ("a: &a {x: 1}\nb: {<<: [" + ", ".join(["*a"] * 50_000) + "]}\n", "an alias (*a)"),
    "bytes": ("task: !!binary aGVsbG8=\n", "bytes"),
    "twice": ("num_envs: 2\ntask: FetchReach-v4\nnum_envs: 4\n", "line 3: the key 'num_envs' stands twice"),
    "twice inside": ("learner: {horizon: 8, epochs: 1, horizon: 16}\n", "the key 'horizon' stands twice"),
    "a million": ("hidden: [" + "1," * 400_000 + "1]\n", "larger than"),
    "as many as fit": ("hidden: [" + "1," * 120_000 + "1]\n", "."),
    "as many lists as fit": ("hidden: [" + "[]," * 80_000 + "1]\n", "."),
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
    check(material, configs=14, bundles=8, checkpoints=14)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("configs", 2000), ("bundles", 500), ("checkpoints", 500)])
def test_thousands_of_spoilt_files_work_or_are_refused_in_one_line(kind: str, count: int, material: Material) -> None:
    @settings(max_examples=count, deadline=None, database=None)
    @given(number=st.integers(0, 2**63), seed=st.integers(0, 2**63))
    def spoil(number: int, seed: int) -> None:
        tally = fuzz(kind, range(number, number + 1), material, seed)
        assert not tally.problems, f"--seed {seed}: " + "\n".join(tally.problems)

    spoil()
