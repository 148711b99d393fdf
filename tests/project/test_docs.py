"""The commands in docs/ run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from plugin_files import installed_from
from robots import skip_if_missing
from shortcuts import with_short_rehearsals, with_small_chunks, without_bundles
from simreal.cli.describe import quantity_tables
from simreal.cli.main import main
from simreal.common import trusted_code

DOCS = Path(__file__).resolve().parents[2] / "docs"
# A block that names a file (```python cartpole.py) is that file; the others in bash and python are run.
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A script of nothing but these is run in this process, which has torch and MuJoCo loaded.
_FILE = re.compile(r"cat > (\S+) <<'(\w+)'\n(.*?\n)\2\n", re.DOTALL)
_COMMAND = re.compile(r"(?:simreal|cd) (?:[^\n\\]|\\\n)*\n")
# What makes a run short and changes nothing else that the pages show.
_SHORT = (
    (re.compile(r"\bepisodes([:=] ?| )\d+"), r"episodes\g<1>1"),
    (re.compile(r"(simreal evaluate )(?![^\n]*--episodes)"), r"\g<1>--episodes 1 "),
    (re.compile(r"(simreal probe [^\n]*--episodes) 1\b"), r"\g<1> 50"),  # the fewest
    (re.compile(r"40_000"), "4_096"),
    (re.compile(r"(simreal train fetch_reach) train.env_steps=2000"), r"\g<1> train.env_steps=880"),  # 800 of them
    (re.compile(r"(simreal train fetch_reach) train.env_steps=3000"), r"\g<1> train.env_steps=896"),  # at random
    (re.compile(r"sweeps=5"), "sweeps=1 learner.updates_per_sweep=50"),
    (re.compile(r"(simreal record [^\n]*--steps) 2000"), r"\g<1> 400"),
    (re.compile(r"(simreal train inverted_pendulum\b[^\n]*) train.env_steps=8192"), r"\g<1> train.env_steps=4096"),
    (re.compile(r"100_000|\b12_000"), "400"),
    (re.compile(r"seconds=\d+\.\d+"), "seconds=0.2"),
    (re.compile(r"seeds: \[0, 1\]"), "seeds: [0]"),
    (re.compile(r"(\bframes(?:: | ))\d\d\d"), r"\g<1>64"),  # of pictures
    (
        re.compile(r"(simreal train (?:allegro|go1|rubiks)\S*) train.env_steps=\d+"),
        r"\g<1> num_envs=16 train.env_steps=512 evaluate.worlds=[nominal]",
    ),
    (re.compile(r"(simreal train (?:teacher|student|further)\S*)"), r"\g<1> train.env_steps=1024"),
    (re.compile(r"(simreal solve [^\n]*)"), r"\g<1> --size 32"),
    (re.compile(r" --world unmodelled"), ""),  # one of them is mujoco_warp, which compiles its kernels first
    # a busy machine may have to stop it: status 1
    (re.compile(r"(simreal run (?:[^\n\\]|\\\n)*--seconds) 10\n"), r"\g<1> 1 || test $? = 1\n"),
    (re.compile(r"(simreal view [^\n]*--seconds) 10\b"), r"\g<1> 0.2"),
    (re.compile(r"^(simreal train [^\s]*)", re.MULTILINE), r"\g<1> evaluate.episodes=1 train.keep=last"),
    (re.compile(r"(\{set: \{)"), r"\g<1>train.keep: last, "),  # of a study
)
_PAGES = sorted({path.name for path in DOCS.glob("*.md")} - {"deploy.md"})  # its robot is made up in test_export.py
_SHORT_PAGES = [page for page in _PAGES if page not in ("resilience.md", "scale.md")]  # they start processes, one kills
_NEEDS = {"c.md": ("make", "cc")}  # programs that a page runs and that not every machine has
# The runs whose bundles are made in a short form.
_EXPORTS = {
    "adopt.md": "first",
    "arm.md": "arm",
    "audit.md": "pole",
    "c.md": "pole go1",
    "engines.md": "pole",
    "evaluate.md": "r",
    "pixels.md": "seen",
    "robot.md": "swing",
    "ros2.md": "go1",
    "tasks.md": "cart",
    "train.md": "first",
    "unitree.md": "go1",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, as a new process would have it: modules of it are found, and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    with installed_from(tmp_path):
        yield tmp_path
    trusted_code._trusted.clear()


def in_a_process(language: str, code: str) -> None:
    """Run a block as a user does. Raises AssertionError with what it says on stderr."""
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        skip_if_missing(done.stderr)
    assert done.returncode == 0, f"{code}\n{done.stderr}"


def in_this_process(language: str, code: str) -> None:
    """Run a block here in a short form, if it is Python or nothing but files and `simreal` commands; else in a process
    of its own."""
    if language == "python":
        exec(compile(short(code), "<docs>", "exec"), {"__name__": "__main__"})
        return
    code = short(code)
    files, commands = _FILE.findall(code), _COMMAND.findall(_FILE.sub("", code))
    if _COMMAND.sub("", _FILE.sub("", code)).strip():
        in_a_process(language, code)
        return
    for name, _, text in files:
        Path(name).write_text(text)
    for command in commands:
        simreal(command)


def short(text: str) -> str:
    """A script or a configuration with few steps and episodes."""
    for pattern, replacement in _SHORT:
        text = pattern.sub(replacement, text)
    return text


def simreal(command: str) -> None:
    """One line of a shell: `simreal ARGUMENTS`, perhaps with `> FILE`; or `cd FOLDER`."""
    program, *arguments = shlex.split(command.replace("\\\n", " "), comments=True)
    if program == "cd":
        os.chdir(arguments[0])
        return
    target = Path(os.devnull)
    if ">" in arguments:
        at = arguments.index(">")
        target, arguments = Path(arguments[at + 1]), arguments[:at]
    with target.open("w") as file, redirect_stdout(file):
        main(arguments)


def run_page(page: str, run: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Write a page's files and run its blocks, in order; short unless in processes of their own."""
    for program in _NEEDS.get(page, ()):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    blocks = _BLOCK.findall((DOCS / page).read_text())
    assert {"bash", "python"} & {language for language, file, _ in blocks if not file}, f"{page} shows no command"
    for language, file, code in blocks:
        if file:
            Path(file).write_text(code if run is in_a_process else short(code))
        elif language in ("bash", "python"):
            try:
                run(language, code)
            except SystemExit as exit_:
                said = capsys.readouterr().err
                skip_if_missing(said)
                pytest.fail(f"{page}: exit status {exit_.code}:\n{code}\n{said}")


@pytest.mark.parametrize("page", _SHORT_PAGES)
@pytest.mark.usefixtures("here")
def test_commands_in_docs_run(page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with_short_rehearsals(monkeypatch)
    with_small_chunks(monkeypatch)
    without_bundles(monkeypatch, but=_EXPORTS.get(page, ""))
    run_page(page, in_this_process, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("page", _PAGES)
@pytest.mark.usefixtures("here")
def test_commands_in_docs_run_in_processes_of_their_own(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_page(page, in_a_process, capsys)


def test_files_that_a_page_shows_are_those_of_the_examples() -> None:
    blocks = _BLOCK.findall((DOCS / "arm.md").read_text())
    shown = {name: text for _, name, text in blocks if (DOCS.parent / "examples" / name).is_file() and name}
    assert sorted(shown) == ["arm_loop.py", "arm_reach.py", "arm_reach.yaml"]
    assert {name: (DOCS.parent / "examples" / name).read_text() for name in shown} == shown


def test_the_tables_of_quantities_are_those_of_the_registry() -> None:
    _, _, section = (DOCS / "randomize.md").read_text().partition("## Every quantity\n")
    # To mend it: replace everything from **Physics** on by the output of this function.
    assert section[section.index("**Physics**") :] == quantity_tables().lstrip()
