"""The table of a study, as JSON and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simreal.common.atomic_files import write_text
from simreal.common.json_io import to_json
from simreal.evaluation.metrics import METRICS, Metric
from simreal.report.records import GROUPS, Arm, load_run
from simreal.report.summary import Cell, cell, entropy, training_score, worlds_by_group
from simreal.study.spec import Study

_POOLED = (
    "The pooled interval ({}) is of all episodes of all seeds and worlds together: it says how well the figure of "
    "these very policies is known, and nothing about another seed. "
)


def write_results(study: Study, folder: Path) -> None:
    """Write study.json and table.md from the runs that there are."""
    document = summarize(study, finished_arms(study, folder))
    write_text(folder / "study.json", to_json(document))
    write_text(folder / "table.md", table(document))


def finished_arms(study: Study, folder: Path) -> list[Arm]:
    """The arms of a study with those of their runs that have been evaluated."""
    arms = []
    for arm in study.arms.values():
        folders = [folder / "runs" / f"{arm.name}-{seed}" for seed in study.spec.seeds]
        runs = [load_run(path) for path in folders if (path / "evaluation.json").is_file()]
        runs = [run for run in runs if run.evaluation is not None]
        if runs:
            arms.append(Arm(arm.name, runs))
    return arms


def summarize(study: Study, arms: list[Arm]) -> dict[str, Any]:
    """The content of study.json, see docs/study.md."""
    nominal = [arm for arm in arms if not arm.randomized]
    control = max(nominal, key=lambda arm: study.budget(study.arms[arm.name]), default=None)
    groups = worlds_by_group(arms)
    return {
        "schema": 1,
        "name": study.spec.name,
        "description": study.spec.description,
        "task": study.task,
        "measure": arms[0].first.measure.name,
        "seeds": list(study.spec.seeds),
        "episodes": study.spec.evaluate.episodes,
        "control": None if control is None else control.name,
        "warnings": study.warnings(),
        "arms": [_arm(arm, study, groups, control) for arm in arms],
    }


def _arm(arm: Arm, study: Study, groups: dict[str, list[str]], control: Arm | None) -> dict[str, Any]:
    found, trained = entropy(arm), training_score(arm)
    seconds = [run.seconds for run in arm.runs if run.seconds is not None]
    return {
        "name": arm.name,
        "continues": study.arms[arm.name].continues,
        "starts_from": study.arms[arm.name].starts_from,
        "sampler": arm.first.config.randomization.sampler,
        "env_steps": study.budget(study.arms[arm.name]),
        "training_seconds": sum(seconds) / len(seconds) if seconds else None,
        "entropy_npd": None if found is None else {"mean": found[0], "upper_bound": found[1]},
        "training": None if trained is None else {"mean": trained[0], "se": trained[1]},
        "groups": {group: _cell(arm, worlds, control) for group, worlds in groups.items()},
        "worlds": {world: _cell(arm, [world], control) for worlds in groups.values() for world in worlds},
        "runs": [f"runs/{run.name}" for run in arm.runs],
    }


def _cell(arm: Arm, worlds: list[str], control: Arm | None) -> dict[str, Any] | None:
    found = cell(arm, worlds)
    if found is None:
        return None
    return {
        "mean": found.mean,
        "se": found.error,
        "median": found.median,
        "pooled_ci95": None if found.pooled is None else list(found.pooled),
        "worst": {"world": found.worst[0], "mean": found.worst[1]},
        "seeds": found.seeds,
        "episodes": found.episodes,
        "above_control": None if control in (None, arm) else _difference(found, cell(control, worlds)),
    }


def _difference(one: Cell, other: Cell | None) -> dict[str, float | None] | None:
    """How much better one arm is than another: means over seeds, errors added as those of independent trainings."""
    if other is None:
        return None
    error = None if one.error is None or other.error is None else (one.error**2 + other.error**2) ** 0.5
    return {"mean": one.mean - other.mean, "se": error}


def table(document: dict[str, Any]) -> str:
    """table.md: the paper's table, then every group and every world."""
    groups = [g for g in GROUPS if any(arm["groups"].get(g) for arm in document["arms"])]
    measure = METRICS[document["measure"]]
    lines = [f"# {document['name']}: {document['task']}", ""]
    lines += [document["description"], ""] if document["description"] else []
    seeds = ", ".join(map(str, document["seeds"]))
    over = "seeds and worlds" if measure.median is None else "all episodes"
    lines += [
        f"{measure.words.capitalize()} of {document['episodes']} fresh episodes per world and seed; seeds {seeds}. "
        f"Mean over seeds ± standard error over seeds; in brackets the median over {over}.",
        "",
    ]
    head = ["arm", "steps", "entropy (npd)", "in training", *(GROUPS[g] for g in groups)]
    rows = []
    for arm in document["arms"]:
        cells = [arm["name"], f"{arm['env_steps']:,}", _entropy(arm["entropy_npd"]), _plus(arm["training"], measure)]
        rows.append([*cells, *(_with_median(arm["groups"].get(g), measure) for g in groups)])
    lines += _markdown(head, rows)
    if any(arm["entropy_npd"] and arm["entropy_npd"]["upper_bound"] for arm in document["arms"]):
        lines += ["", "\\* upper bound: ADR with the policy frozen, where it stops. In training: last 100 episodes."]
    lines += ["", "## Groups of worlds", ""]
    head = ["group", "arm", "mean", "median", "pooled 95 % interval", "worst world", "above control", "episodes"]
    lines += _markdown(head, [row for g in groups for row in _group_rows(g, document, measure)])
    lines += [
        "",
        f"{_POOLED.format(measure.interval_kind) if measure.interval_kind else ''}Above control: difference of means "
        "over seeds, ± the standard errors of both arms added in squares.",
        "", "## Worlds", "",
    ]  # fmt: skip
    worlds = list(dict.fromkeys(world for arm in document["arms"] for world in arm["worlds"]))
    rows = [[w, *(_plus(arm["worlds"].get(w), measure) for arm in document["arms"])] for w in worlds]
    lines += _markdown(["world", *(arm["name"] for arm in document["arms"])], rows)
    lines += ["", *(f"Warning: {warning}." for warning in document["warnings"])]
    return "\n".join(lines).rstrip() + "\n"


def _group_rows(group: str, document: dict[str, Any], measure: Metric) -> list[list[str]]:
    rows = []
    for arm in document["arms"]:
        found = arm["groups"].get(group)
        if not found:
            continue
        interval = found["pooled_ci95"]
        rows.append([
            GROUPS[group], arm["name"], _plus(found, measure), measure.plain.value(found["median"]),
            "-" if interval is None else measure.plain.span(*interval),
            f"{found['worst']['world']} ({measure.plain.value(found['worst']['mean'])})",
            _plus(found["above_control"], measure, sign=True), f"{found['episodes']:,}",
        ])  # fmt: skip
    return rows


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = (head, ["---"] * len(head), *rows)
    return [f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in lines]


def _entropy(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{found['mean']:+.2f}{'*' if found['upper_bound'] else ''}"


def _plus(found: dict[str, Any] | None, measure: Metric, sign: bool = False) -> str:
    if not found:
        return "-"
    error = "" if found["se"] is None else f" ± {measure.plain.error(found['se'])}"
    return (measure.plain.change if sign else measure.plain.value)(found["mean"]) + error


def _with_median(found: dict[str, Any] | None, measure: Metric) -> str:
    return "-" if not found else f"{_plus(found, measure)} ({measure.plain.value(found['median'])})"
