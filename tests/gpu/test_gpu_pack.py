"""What is carried to a machine with a GPU arrives whole, or the part that did not is named."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the source tree")]
sys.path.insert(0, str(FOLDER))

CONTENT = {"site/a.py": b"print('a')\n", "site/big.bin": random.Random(0).randbytes(5000), "robots/x.xml": b"<mujoco/>"}


def parts(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`parts.py` as the scripts call it."""
    command = [sys.executable, str(FOLDER / "parts.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def files_below(folder: Path) -> dict[str, bytes]:
    """Contents by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    """Two archives in loads of at most 2000 bytes."""
    for name, content in CONTENT.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    archives = []
    for name in ("site", "robots"):
        archives.append(tmp_path / f"{name}.tar.xz")
        with tarfile.open(archives[-1], "w:xz") as tar:
            tar.add(tmp_path / "made" / name, name)
    done = parts("cut", "--most", 2000, tmp_path / "loads", *archives)
    assert done.returncode == 0, done.stderr
    return tmp_path / "loads"


def kept(loads: Path) -> Path:
    """A store to which every load was brought, one after another."""
    store = loads.parent / "store"
    for load in sorted(loads.iterdir()):
        assert parts("keep", load, store).returncode == 0
    return store


def test_what_was_cut_into_loads_is_extracted_as_it_was(loads: Path) -> None:
    carried = [sum(f.stat().st_size for f in load.iterdir() if f.name != "manifest.json") for load in loads.iterdir()]
    assert len(carried) > 2
    assert max(carried) <= 2000
    store, target = kept(loads), loads.parent / "target"
    shutil.rmtree(loads)  # each load is carried once
    done = parts("unpack", store, target)
    assert done.returncode == 0, done.stderr
    assert files_below(target) == CONTENT


def test_every_part_that_is_missing_or_altered_is_named_and_nothing_is_extracted(loads: Path) -> None:
    store, target = kept(loads), loads.parent / "target"
    gone, bent, short = sorted(p for p in store.iterdir() if p.name.startswith("site"))[:3]
    gone.unlink()
    content = bytearray(bent.read_bytes())
    content[len(content) // 2] ^= 1
    bent.write_bytes(content)
    short.write_bytes(short.read_bytes()[:-1])
    for command in (("check", store), ("unpack", store, target)):
        done = parts(*command)
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert [line.partition(" (of ")[0] for line in lines] == [
            f"missing: {gone.name}", f"altered: {bent.name}", f"altered: {short.name}",
        ]  # fmt: skip
        assert lines[2].endswith(f"{short.stat().st_size} bytes instead of {short.stat().st_size + 1}")
        assert "Traceback" not in done.stderr
    assert not target.exists()


def test_a_load_of_another_packing_and_a_store_without_a_list_are_refused(loads: Path) -> None:
    store = kept(loads)
    listing = loads / "load-1" / "manifest.json"
    listing.write_text(listing.read_text().replace("sha256", "sha512"))
    done = parts("keep", loads / "load-1", store)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{listing}: altered, or of another packing")
    for content, message in ((None, "missing: manifest.json"), ("[1]", "altered: manifest.json: not a list of parts")):
        if content is None:
            (store / "manifest.json").unlink()
        else:
            (store / "manifest.json").write_text(content)
        done = parts("check", store)
        assert (done.returncode, done.stderr.startswith(message)) == (2, True), done.stderr


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_wheels_are_laid_out_as_an_installer_would_less_what_is_left_out(tmp_path: Path) -> None:
    one = wheel(
        tmp_path / "one-1-py3-none-any.whl",
        {"one/a.py": b"1", "one/bin/big.so": b"2", "one/tests/deep/t.py": b"3", "one-1.dist-info/METADATA": b"4"},
    )
    two = wheel(
        tmp_path / "two-1-py3-none-any.whl",
        {"two-1.data/platlib/two/b.py": b"5", "two-1.data/scripts/two": b"6", "one/a.py": b"1"},
    )
    done = parts("site", "--without", "one/bin/*", "--without", "one/tests/*", tmp_path / "site", one, two)
    assert done.returncode == 0, done.stderr
    found = {
        str(p.relative_to(tmp_path / "site")): p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()
    }
    assert found == {"one/a.py": b"1", "one-1.dist-info/METADATA": b"4", "two/b.py": b"5"}
    clash = wheel(tmp_path / "three-1-py3-none-any.whl", {"one/a.py": b"other"})
    done = parts("site", tmp_path / "site", one, clash)
    assert (done.returncode, done.stderr.splitlines()) == (
        2, ["three-1-py3-none-any.whl: one/a.py is in another wheel too, with other content"],
    )  # fmt: skip


def test_the_scripts_are_sound_shell() -> None:
    for script in sorted(FOLDER.glob("*.sh")):
        assert os.access(script, os.X_OK), script
        subprocess.run(["bash", "-n", script], check=True)


def run(loads: Path, *arguments: str) -> subprocess.Popen[str]:
    """`run.sh` on the loads."""
    places = {"--parts": loads, "--store": loads.parent / "store", "--out": loads.parent / "out"}
    options = [str(part) for pair in places.items() for part in pair]
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.Popen(
        [str(FOLDER / "run.sh"), "--rehearse", *options, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def results(loads: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (loads.parent / "out" / "results.jsonl").read_text().splitlines()]


def test_a_step_that_hangs_is_ended_by_its_limit_and_what_it_found_stays(loads: Path) -> None:
    process = run(loads, "--budget", "7", "--only", "contract update", "--slow", "contract")
    assert process.wait(timeout=120) == 0, process.stdout and process.stdout.read()
    unpacked, found, ended, skipped, last = results(loads)
    assert unpacked["step"] == "unpack"
    assert (found["step"], found["note"]) == ("hang", "before")
    assert (ended["step"], ended["status"]) == ("contract", 124)
    assert ended["seconds"] <= 7 + 5
    assert (skipped["step"], "s are left" in skipped["skipped"]) == ("update", True)
    assert last["step"] == "run"


def test_a_run_that_is_cut_off_says_so_and_leaves_no_process(loads: Path) -> None:
    process = run(loads, "--budget", "300", "--only", "contract", "--slow", "contract")
    deadline = time.monotonic() + 120
    while not (loads.parent / "out" / "results.jsonl").exists() or len(results(loads)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert process.stdout is not None
    process.stdout.read()  # ends when the last process that writes to it has
    assert [line["step"] for line in results(loads)] == ["unpack", "hang", "run"]
    assert results(loads)[-1]["cut_off"] == "TERM"


def test_a_second_run_uses_what_the_first_unpacked_and_still_checks_the_parts(loads: Path) -> None:
    def steps() -> list[str]:
        process = run(loads, "--budget", "60", "--only", "none")
        process.wait(timeout=60)
        return [line["step"] for line in results(loads)]

    assert steps() == ["unpack", "run"]
    (loads.parent / "store" / "cargo" / "site" / "a.py").write_text("used again")
    assert steps() == ["check", "run"]
    assert (loads.parent / "store" / "cargo" / "site" / "a.py").read_text() == "used again"
    part = next(p for p in (loads / "load-1").iterdir() if p.name != "manifest.json")
    part.write_bytes(b"altered")
    assert steps() == []


def test_a_run_names_the_part_that_is_missing_and_does_nothing(loads: Path) -> None:
    gone = sorted(p for p in (loads / "load-1").iterdir() if p.name != "manifest.json")[0]
    gone.unlink()
    process = run(loads, "--budget", "300")
    assert process.wait(timeout=60) == 2
    assert process.stdout is not None
    assert f"missing: {gone.name} (of load-1)" in process.stdout.read()
    assert not (loads.parent / "store" / "cargo").exists()
