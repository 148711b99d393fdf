"""The top of the page: what was trained, for how long, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simreal.report.records import GROUPS, Arm
from simreal.report.summary import Cell, cell, without_effect, worlds_by_group


def verdict(arms: Sequence[Arm]) -> dict[str, Any]:
    """The sentences of verdict.html that follow from comparing arms."""
    groups = worlds_by_group(arms)
    return {"comparison": _comparison(arms, groups), "cautions": _cautions(arms, groups)}


def _comparison(arms: Sequence[Arm], groups: dict[str, list[str]]) -> list[str]:
    """What randomization is worth where it counts, against the control."""
    controls = [arm for arm in arms if not arm.randomized]
    sentences = []
    for group in ("held_out", "unmodelled"):
        figures = [(arm, found) for arm in arms if (found := cell(arm, groups.get(group, []))) is not None]
        control = next((found for arm, found in figures if controls and arm is controls[0]), None)
        if control is None or len(figures) < 2:
            continue
        best_arm, best = max(figures, key=lambda pair: pair[1].mean)
        if best is control:
            sentences.append(
                f"In {GROUPS[group]} worlds nothing does better than the control {controls[0].name}, {_score(control)}."
            )
            continue
        text = f"In {GROUPS[group]} worlds {best_arm.name} does best, {_score(best)}; "
        text += f"the control {controls[0].name} has {_score(control)}."
        if best.pooled is not None and control.pooled is not None and control.pooled[1] >= best.pooled[0]:
            text += " Their pooled intervals overlap."
        sentences.append(text)
    return sentences


def _cautions(arms: Sequence[Arm], groups: dict[str, list[str]]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    for arm in arms:
        for run in arm.runs:
            total, unit = run.config.learner.run_length(run.config.train.env_steps), run.unit
            slack = run.config.train.log_interval + run.config.num_envs if unit == "steps" else 0
            if run.steps + slack < total:
                found.append(f"{run.name} has only reached {run.steps:,} of {total:,} {unit}.")
            if not (run.path / "evaluation.json").is_file():
                found.append(f"{run.name} has not been evaluated.")
            for what in ("evaluation", "envelope"):
                if getattr(run, what) is None and (run.path / f"{what}.json").is_file():
                    found.append(f"{run.name}: its {what} is of an earlier checkpoint, and left out.")
    found += _unequal_worlds(arms, groups)
    if idle := without_effect(arms):
        found.append(f"Equal to nominal in every episode, and left out of means: {', '.join(idle)}.")
    made = arms[0].first.config.task_options
    if others := [arm.name for arm in arms if arm.first.config.task_options != made]:
        found.append(
            f"Not of the same task_options as {arms[0].name}: {', '.join(others)}. Rewards and episodes may differ for "
            "that alone."
        )
    missing = [GROUPS[group] for group in ("held_out", "unmodelled") if group not in groups]
    if missing:
        found.append(
            f"Not measured: worlds that are {' or '.join(missing)}. Success in worlds of training alone says little "
            f"about a robot. To measure them: {_measuring(arms, groups)}"
        )
    if any(arm.randomized for arm in arms) and all(arm.randomized for arm in arms):
        found.append("No control without randomization is on this page: what randomization is worth cannot be seen.")
    if any(len(arm.runs) == 1 for arm in arms):
        found.append("One seed per arm is not enough to compare arms: intervals are of episodes, not of trainings.")
    return found


def _measuring(arms: Sequence[Arm], groups: dict[str, list[str]]) -> str:
    """The commands after which the page has the worlds that it lacks."""
    wanted = " ".join(f"--world {group}" for group in ("held_out", "unmodelled") if group not in groups)
    runs = " ".join(str(run.path) for arm in arms for run in arm.runs)
    return f"simreal evaluate {runs} {wanted} --json more.json, then simreal report {runs} more.json"


def _unequal_worlds(arms: Sequence[Arm], groups: dict[str, list[str]]) -> list[str]:
    """Runs whose means over groups leave out worlds that others were played in."""
    found: list[str] = []
    for run in (run for arm in arms for run in arm.runs):
        if run.evaluation is None:
            continue
        played = {world.name for world in run.evaluation.worlds}
        missing = [name for names in groups.values() for name in names if name not in played]
        if missing:
            some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            found.append(f"{run.name} was not played in {some}: means over groups are not of the same worlds.")
    return found


def _score(found: Cell) -> str:
    return found.measure.page.value(found.mean)
