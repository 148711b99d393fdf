"""Puts runs together that differ by their seed alone, with figures of their policies that are in files beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simreal.common.errors import UserError
from simreal.report.records import Arm, Evaluation, Run, load_run


def with_figures(run: Run, figures: Evaluation) -> Run:
    """A run with further worlds that its policy was evaluated in; of those that were played twice, the figures of more
    episodes, or the new ones."""
    if figures.task != run.config.task:
        raise UserError(
            f"{run.name}: is of {run.config.task}, but the figures of {figures.policy} are of {figures.task}"
        )
    worlds = {} if run.evaluation is None else {world.name: world for world in run.evaluation.worlds}
    worlds |= {w.name: w for w in figures.worlds if w.name not in worlds or w.episodes >= worlds[w.name].episodes}
    evaluation = figures if run.evaluation is None else run.evaluation
    return replace(run, evaluation=evaluation.model_copy(update={"worlds": tuple(worlds.values())}))


def load_arms(paths: list[Path], figures: Sequence[tuple[Path, Evaluation]] = ()) -> list[Arm]:
    """Read runs and put those together that differ by their seed alone.

    Args:
        paths: of the runs.
        figures: evaluations of their policies that are in no run, and the file of each.

    Raises:
        UserError: naming the run or the file that is wrong.
    """
    runs = [load_run(path) for path in paths]
    names = [run.name for run in runs]
    for path, found in figures:
        name = names[0] if found.policy == "bundle" and len(names) == 1 else found.policy
        if name not in names:
            raise UserError(f"{path}: is of policy {found.policy!r}, expected one of the runs: {', '.join(names)}")
        runs[names.index(name)] = with_figures(runs[names.index(name)], found)
    if len(set(names)) != len(names):
        raise UserError(f"runs must have different names, got {', '.join(names)}")
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = run.config.model_dump(mode="json", exclude={"seed", "threads", "evaluate"})
        for key in ("checkpoint_interval_s", "keep_checkpoints", "torch_threads", "log_interval"):
            del same["train"][key]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(run)
    arms = [Arm(_common_name(group), group) for group in groups.values()]
    if len({arm.name for arm in arms}) == len(arms):
        return arms
    return [Arm(", ".join(run.name for run in arm.runs), arm.runs) for arm in arms]


def _common_name(runs: list[Run]) -> str:
    names = [run.name for run in runs]
    if len(names) == 1:
        return names[0]
    shared = names[0]
    while not all(name.startswith(shared) for name in names):
        shared = shared[:-1]
    return shared.rstrip("0123456789").rstrip("-_. ") or names[0]
