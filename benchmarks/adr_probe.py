"""ADR around a policy that no longer learns, by hand; what `widen` in a study's file does for its arms.

python -m benchmarks.adr_probe RUN_OR_BUNDLE [--like RUN_OR_CONFIG] [--episodes N] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # what takes seconds to import comes after the first line
    from randomization.config import RandomizationConfig
    from simreal.training.run_directory import LoadedPolicy


def main(arguments: Sequence[str] | None = None) -> None:
    """Grow the ranges, print them, write them; exit status 2 for an option that is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adr_probe", description="ADR around a frozen policy.")
    parser.add_argument("policy", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument("--like", metavar="RUN_OR_CONFIG", help="whose ADR block is used; default: the run's own")
    parser.add_argument("--episodes", type=int, default=10_000, help="budget; it ends earlier where the ranges stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    parser.add_argument("--seed", type=int, default=2_000_003, help="of the episodes")
    parser.add_argument("--task", metavar="MODULE:CLASS", help="the task's class, where a run names your own code")
    options = parser.parse_args(arguments)
    print(f"{options.policy}: loading ...", flush=True)
    from randomization.parameters import RandomizationError
    from simreal.common.atomic_files import write_text
    from simreal.common.errors import UserError
    from simreal.common.json_io import to_json, write_target
    from simreal.study.adr_probe import widen
    from simreal.training.run_directory import load_policy

    try:
        policy = load_policy(options.policy, options.task)
        block = adr_block(policy, options.like)
        target = None if options.json is None else write_target(options.json, ".json")
        print(f"{policy.name}: playing episodes at the ends of the ranges ...", flush=True)
        document = widen(policy, block, options.episodes, seed=options.seed, say=lambda text: print(text, flush=True))
    except (UserError, RandomizationError) as error:
        parser.exit(2, f"adr_probe: {error}\n")
    print_widened(document, Console(highlight=False, markup=False))
    if target is not None:
        write_text(target, to_json(document))


def adr_block(policy: LoadedPolicy, like: str | None) -> RandomizationConfig:
    """The ADR block of a run directory or a configuration; of the policy's own run for None. Raises UserError."""
    from simreal.common.errors import UserError
    from simreal.training.run_config import load_config
    from simreal.training.run_directory import run_config

    if like is None:
        if policy.config is None or policy.config.randomization.sampler != "adr":
            raise UserError(f"{policy.name}: was not trained under ADR; name a run or configuration that is: --like")
        return policy.config.randomization
    config = run_config(Path(like)) if Path(like).is_dir() else load_config(like)
    if config.task != policy.task_id:
        raise UserError(f"{like}: is of task {config.task}, expected {policy.task_id}")
    if config.randomization.sampler != "adr":
        raise UserError(f"{like}: randomization.sampler is {config.randomization.sampler!r}, expected 'adr'")
    return config.randomization


def print_widened(document: dict[str, Any], out: Console) -> None:
    """The result of `widen` for people."""
    from simreal.evaluation.metrics import METRICS

    why = "no boundary went further" if document["stopped"] == "quiet" else "the budget was spent"
    title = f"{document['policy']} on {document['task']}, frozen: entropy {document['entropy_npd']:+.2f} npd"
    block = document["request"]["randomization"]
    low, high = block["adr"]["thresholds"]
    moved = f"bounds move by {METRICS[block['performance']].words}: back at {low:g} or less, on at {high:g} or more"
    table = Table(title=f"{title} after {document['episodes']:,} episodes ({why})", title_justify="left", caption=moved)
    table.caption_justify = "left"
    for column in ("parameter", "lower", "upper", "limits", "unit"):
        table.add_column(column, justify="left" if column in ("parameter", "unit") else "right")
    for p in document["parameters"]:
        low, high = p["limits"]
        table.add_row(p["name"], f"{p['lower']:.4g}", f"{p['upper']:.4g}", f"{low:.4g} to {high:.4g}", p["unit"])
    out.print(table)


if __name__ == "__main__":
    main()
