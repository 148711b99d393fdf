"""Compares policies in the same episodes, untrained ones too: load them, take paired differences, print tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from envs.common.messages import near_file, nearest
from envs.environment import Environment
from simreal.common.errors import UserError
from simreal.evaluation.intervals import bootstrap_ci, unanimous_ci
from simreal.evaluation.metrics import METRICS, RETURN, Metric
from simreal.evaluation.worlds import World
from simreal.training.run_directory import LoadedPolicy, load_policy

BASELINES = ("random", "zero", "still")


def load_policies(paths: Sequence[Path], task: str | None = None, contract: Path | None = None) -> list[LoadedPolicy]:
    """Policies of one task, with names of their own; `task` as in `load_policy`.

    A path that does not exist and is one of BASELINES is that baseline, for the task of the first other one. An ONNX
    file is played as `contract` says.

    Raises UserError, naming two that do not go together.
    """
    resolved = [path.resolve() for path in paths]
    for path in paths:
        if resolved.count(path.resolve()) > 1:
            raise UserError(f"{path}: given twice")
    missing = [path for path in paths if not path.exists() and str(path) not in BASELINES]
    if missing:
        raise UserError(f"{missing[0]}: no such run or bundle{near_file(missing[0], BASELINES)}")
    if contract is not None and not any(_is_graph(path) for path in paths):
        raise UserError("--contract: says how an ONNX file is fed; there is none among the policies")
    loaded = [_load(path, task, contract) if path.exists() else None for path in paths]
    first = next((policy for policy in loaded if policy is not None), None)
    if first is None:
        raise UserError(f"{paths[0]}: a baseline plays the task of a run; name at least one run or bundle beside it")
    policies = [policy or baseline(str(path), first) for path, policy in zip(paths, loaded, strict=True)]
    for path, policy in zip(paths, policies, strict=True):
        if policy.task_id != policies[0].task_id:
            raise UserError(
                f"{paths[0]} is of {policies[0].task_id} and {path} of {policy.task_id}: "
                "only policies of one task can be compared"
            )
    names = [policy.name for policy in policies]
    return [
        policy if names.count(policy.name) == 1 else policy.renamed(str(path))
        for path, policy in zip(paths, policies, strict=True)
    ]


def _is_graph(path: Path) -> bool:
    return path.suffix == ".onnx" and not path.is_dir()


def _load(path: Path, task: str | None, contract: Path | None) -> LoadedPolicy:
    if not _is_graph(path):
        return load_policy(path, task)
    from simreal.export.foreign import load_foreign  # ONNX Runtime is not needed for runs

    return load_foreign(path, contract, task)


def other_options(policies: Sequence[LoadedPolicy]) -> list[str]:
    """Sentences about policies whose task was made with other options than the first's."""
    first = policies[0]
    return [
        f"{policy.name} has other task_options than {first.name}: episodes of one number may not be the same, and "
        "rewards may differ"
        for policy in policies[1:]
        if policy.task_options != first.task_options
    ]


def find_baseline(name: str | None, paths: Sequence[Path], policies: Sequence[LoadedPolicy]) -> int:
    """Which policy the others are compared with: by path or name; None: the first. Raises UserError."""
    if name is None:
        return 0
    for i, (path, policy) in enumerate(zip(paths, policies, strict=True)):
        if name == policy.name or Path(name).resolve() == path.resolve():
            return i
    known = [policy.name for policy in policies]
    raise UserError(
        f"--baseline: {name!r} is none of the policies{nearest(name, known)}; there are: {', '.join(known)}"
    )


def differences(
    documents: Sequence[dict[str, Any]],
    worlds: Sequence[Sequence[World]],
    baseline: int,
    measure: Metric,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Differences "a" minus "b" of every policy a from the baseline b, with paired bootstrap intervals.

    Args:
        documents: evaluations of the policies, in worlds of equal names and with equal episode numbers.
        worlds: the worlds of each; "trained" and those made of a policy's own ranges may differ between policies,
            and then there are no pairs to compare.
        baseline: index of b.
        measure: what the task is judged by.
        seed: of the bootstrap.
    """
    base, found = documents[baseline], []
    for i, document in enumerate(documents):
        rows = zip(document["worlds"], base["worlds"], worlds[i], worlds[baseline], strict=True)
        pairs = [(row, other) for row, other, a, b in rows if i != baseline and a.signature() == b.signature()]
        if not pairs:
            continue
        found += _paired([(row, other, document["policy"], base["policy"]) for row, other in pairs], measure, seed)
    return found


def engine_differences(
    document: dict[str, Any], worlds: Sequence[World], measure: Metric, seed: int = 0
) -> list[dict[str, Any]]:
    """Differences of worlds in another engine from the same worlds in MuJoCo, of one policy, where both were played.

    Args:
        document: its evaluation.
        worlds: the worlds, in the order of the document.
        measure: what the task is judged by.
        seed: of the bootstrap.

    Returns:
        As `differences`, with "a" and "b" the names of worlds, and "policy".
    """
    plain = {
        world.signature(): row for world, row in zip(worlds, document["worlds"], strict=True) if world.engine == "cpu"
    }
    pairs = []
    for world, row in zip(worlds, document["worlds"], strict=True):
        other = plain.get(world.in_mujoco.signature())
        if world.engine != "cpu" and other is not None:
            pairs.append((row, other, row["name"], other["name"]))
    found = _paired(pairs, measure, seed) if pairs else []
    return [{"policy": document["policy"], **entry} for entry in found]


def _paired(
    pairs: Sequence[tuple[dict[str, Any], dict[str, Any], str, str]], measure: Metric, seed: int
) -> list[dict[str, Any]]:
    """Differences of pairs of worlds' figures, each with the names of "a" and "b": episodes are resampled together."""
    found = []
    table = np.stack([_column(row, other, key) for row, other, *_ in pairs for key in METRICS], axis=1)
    means = table.mean(axis=0).reshape(len(pairs), -1)
    ends = bootstrap_ci(table, seed).T.reshape(len(pairs), -1, 2)
    for (row, other, a, b), mean, interval in zip(pairs, means.tolist(), ends.tolist(), strict=True):
        entry: dict[str, Any] = {"world": row["name"], "a": a, "b": b}
        for key, value, end in zip(METRICS, mean, interval, strict=True):
            entry |= {key: value, f"{key}_ci95": end}
        ended = set(_column(row, other, "success").tolist())
        if measure is not RETURN and len(ended) == 1:
            entry["success_ci95"] = unanimous_ci(ended.pop(), len(table))
        found.append(entry)
    return found


def _column(row: dict[str, Any], other: dict[str, Any], key: str) -> np.ndarray:
    return np.asarray(row["samples"][key], dtype=np.float64) - np.asarray(other["samples"][key], dtype=np.float64)


def policies_table(documents: Sequence[dict[str, Any]], measure: Metric) -> Table:
    """All policies in all worlds, for people."""
    entropies = [f"{d['policy']} {d['adr_entropy_npd']:+.2f}" for d in documents if d["adr_entropy_npd"] is not None]
    caption = f"entropy (npd): {', '.join(entropies)}" if entropies else ""
    table = plain_table(documents[0]["task"], ("world", "policy"), measure.columns, caption)
    for rows in zip(*(document["worlds"] for document in documents), strict=True):
        for document, row in zip(documents, rows, strict=True):
            table.add_row(row["name"] if row is rows[0] else "", document["policy"], *measure.cells(row))
        table.add_section()
    return table


def differences_table(found: Sequence[dict[str, Any]], document: dict[str, Any], measure: Metric) -> Table:
    """Differences from the baseline, whose document is given, for people."""
    shown = list(dict.fromkeys((measure, RETURN)))
    table = _difference_table(f"Differences from {document['policy']}, episode by episode", ("world", "policy"), shown)
    seen = ""
    for difference in sorted(found, key=lambda d: [row["name"] for row in document["worlds"]].index(d["world"])):
        table.add_row(
            difference["world"] if difference["world"] != seen else "", difference["a"], *_cells(difference, shown)
        )
        seen = difference["world"]
    return table


def engines_table(found: Sequence[dict[str, Any]], measure: Metric) -> Table:
    """Differences of worlds in other engines from the same ones in MuJoCo, for people."""
    shown = list(dict.fromkeys((measure, RETURN)))
    table = _difference_table(
        "Differences from MuJoCo on the CPU, episode by episode", ("world", "from", "policy"), shown
    )
    for difference in found:
        table.add_row(difference["a"], difference["b"], difference["policy"], *_cells(difference, shown))
    return table


def _difference_table(title: str, texts: Sequence[str], shown: Sequence[Metric]) -> Table:
    return plain_table(title, texts, [column for m in shown for column in (m.name, "95 % interval")])


def _cells(difference: dict[str, Any], shown: Sequence[Metric]) -> list[str]:
    cells = []
    for m in shown:
        cells += [m.plain.change(difference[m.name]), m.plain.change_span(*difference[f"{m.name}_ci95"])]
    return cells


def plain_table(title: str, texts: Sequence[str], numbers: Sequence[str], caption: str = "") -> Table:
    """A table without rows: columns of text, aligned to the left, then columns of numbers, aligned to the right."""
    table = Table(
        title=title, title_justify="left", header_style="bold", caption=caption or None, caption_justify="left"
    )
    for column in (*texts, *numbers):
        table.add_column(column, justify="left" if column in texts else "right", overflow="fold")
    return table


def envelope_table(document: dict[str, Any]) -> Table:
    """An envelope for people: success along each parameter, and the box."""
    box = document["box"]
    title = f"Success along each parameter of {document['task']}, from end to end"
    title += "" if document["criterion"] is None else f"; success: {document['criterion']}"
    caption = f"no box found in which success is at least {document['threshold']:g} with 95 % confidence"
    if box is not None:
        caption = f"in the box: success at least {box['lower_bound']:.3f} ({box['successes']} of {box['episodes']})"
    table = plain_table(title, ("parameter", "unit"), ("trained", "seen", "success", "box"), caption)
    for p in document["parameters"]:
        inside = "-" if box is None else _ends(box["ranges"][p["name"]])
        success = " ".join(f"{value:.2f}" for value in p["success"])
        seen = _ends((p["values"][0], p["values"][-1]))
        table.add_row(p["name"], p["unit"], _ends(p["trained"]), seen, success, inside)
    return table


def _ends(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def figures_table(figures: dict[str, Any], measure: Metric) -> Table:
    """The figures of an evaluation for people."""
    entropy = figures["adr_entropy_npd"]
    title = f"{figures['policy']} on {figures['task']}"
    title += "" if entropy is None else f", entropy of the trained ranges {entropy:+.2f} npd"
    table = plain_table(title, ["world"], ["episodes", *measure.columns])
    for world in figures["worlds"]:
        table.add_row(world["name"], str(world["episodes"]), *measure.cells(world))
    return table


def reported_table(figures: dict[str, Any], reported: Mapping[str, str]) -> Table | None:
    """What a task reports of its episodes (`Task.reported`), means over episodes; None where there is nothing."""
    found = {name: words for name, words in reported.items() if name in figures["worlds"][0]["measures"]}
    if not found:
        return None
    table = plain_table("means over episodes", ["world"], list(found.values()))
    for world in figures["worlds"]:
        table.add_row(world["name"], *(f"{world['measures'][name]['mean']:.3g}" for name in found))
    return table


def baseline(name: str, run: LoadedPolicy) -> LoadedPolicy:
    """A baseline for the task of a run, with its options and in the worlds of its training.

    Args:
        name: "random": every action uniform in [-1, 1]; "zero" or "still": action 0.
        run: whose place it takes.
    """
    size = run.make_task().action_size
    untrained: dict[str, Any] = {
        "name": name, "reset": lambda mask: None, "entropy": None, "randomization": None, "module": None,
    }  # fmt: skip
    if name != "random":
        return replace(run, act=lambda observation: torch.zeros(len(observation), size), **untrained)
    playing: list[Environment] = []

    def act(_: Tensor) -> Tensor:
        return 2.0 * playing[0].rng.uniform("random policy", size).cpu() - 1.0

    return _InEnvironment(**vars(run) | untrained | {"act": act, "playing": playing})


@dataclass(frozen=True)
class _InEnvironment(LoadedPolicy):
    """A policy that draws from the episodes' own random numbers, of the environment that was made for it last.

    So its actions are as repeatable as the episodes: they depend on the seed, the episode and the step alone.
    """

    playing: list[Environment] = field(default_factory=list)

    def make_environment(self, *args: Any, **kwargs: Any) -> Environment:
        self.playing[:] = [super().make_environment(*args, **kwargs)]
        return self.playing[0]
