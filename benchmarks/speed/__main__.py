"""`python -m benchmarks.speed [--json FILE] [--quick] [--only PATTERN] [--engine gpu]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.speed.command import bench_command
from simreal.common.errors import UserError


def main() -> None:
    """Measure; exit status 2 for an option that is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Speed as ratios.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--only", metavar="PATTERN", help="measure what matches this pattern only")
    parser.add_argument("--engine", choices=("cpu", "gpu"), default="cpu", help="'gpu' measures the GPU engine")
    options = parser.parse_args()
    out = Console(
        highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110
    )
    try:
        if options.engine == "gpu":
            from benchmarks.speed.gpu import bench_gpu_command

            bench_gpu_command(options.json, options.quick, out, options.only)
        else:
            bench_command(options.json, options.quick, out, options.only)
    except UserError as error:
        parser.error(str(error))


main()
