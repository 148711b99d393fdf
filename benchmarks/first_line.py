"""How long commands keep silent: until their first line, beyond what imports take, and the longest time between lines.

    python -m benchmarks.first_line RUN [--rounds 5] [--whole] [--json FILE]

RUN is a run directory of `simreal train`, under ADR, to play, to report and to widen. Commands take turns, each in a
new process with its output in a pipe; `imports` is a process that imports the module which the command runs. A command
is stopped after its first line, unless `--whole` wants its silences too. Medians over rounds, and the slowest one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from simreal.common.json_io import to_json

_COMMAND_LINE, _WIDEN = "simreal.cli.main", "benchmarks.adr_probe"


def commands(run: str, folder: Path) -> dict[str, tuple[str, list[str]]]:
    """By name, the module that is run, and its arguments."""
    return {
        "play": (_COMMAND_LINE, ["play", run, "--video", str(folder / "a.mp4"), "--episodes", "1"]),
        "report": (_COMMAND_LINE, ["report", run, "--output", str(folder / "a.html")]),
        "widen": (_WIDEN, [run, "--episodes", "200"]),
        "evaluate": (_COMMAND_LINE, ["evaluate", run, "--episodes", "20"]),
        "export": (_COMMAND_LINE, ["export", run, "--output", str(folder / "bundle")]),
    }


def lines(arguments: list[str], whole: bool = True) -> list[float]:
    """When a command begins, prints its lines (or only the first), and ends: s from its beginning. RuntimeError if it
    fails."""
    begin, times, text = time.perf_counter(), [0.0], ""
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            times.append(time.perf_counter() - begin)
            text = line
            if not whole:
                process.kill()
    if process.returncode and whole:
        raise RuntimeError(f"{' '.join(arguments)}: {text.strip()}")
    return [*times, time.perf_counter() - begin]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_line", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    seen: dict[str, list[tuple[float, float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            made = Path(folder, str(number))
            made.mkdir()
            for name, (module, arguments) in commands(options.run, made).items():
                imports = lines(["-c", f"import {module}"])[-1]
                times = lines(["-m", module, *arguments], options.whole)
                quiet = max(after - before for before, after in pairwise(times[1:]))
                seen.setdefault(name, []).append((imports, times[1], quiet, times[-1]))
    document = {"load_before": load, "load_after": os.getloadavg()[0], "rounds": options.rounds, "commands": seen}
    print(f"load {load:.1f} before, {document['load_after']:.1f} after; medians of {options.rounds}, s\n")
    heads = ["first line", "slowest", "imports alone", "beyond imports", "longest silence after it", "in all"]
    heads = heads if options.whole else heads[:4]
    print(f"| command | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, rounds in seen.items():
        imports, first, quiet, whole = (median(column) for column in zip(*rounds, strict=True))
        slowest, beyond = max(r[1] for r in rounds), max(0.0, median(r[1] - r[0] for r in rounds))
        cells = (first, slowest, imports, beyond, quiet, whole)[: len(heads)]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in cells)} |")
    if options.json is not None:
        options.json.write_text(to_json(document))


if __name__ == "__main__":
    main()
