"""How well an estimator reads fresh pictures, look by look, with intervals over episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from randomization.samplers.adr import ADR
from simreal.common.errors import UserError
from simreal.evaluation.compare import plain_table
from simreal.evaluation.intervals import wilson
from simreal.vision.datasets.maker import ChunkMaker
from simreal.vision.datasets.plan import worlds_of
from simreal.vision.estimator.loading import Estimator
from simreal.vision.estimator.looks import LookWorlds, find_look
from simreal.vision.estimator.targets import LEVEL, Target

Array = NDArray[np.float64]
_RESAMPLES = 1000
USUAL = 0.9  # of all errors, the smallest


@dataclass(frozen=True)
class Readings:
    """What an estimator made of n pictures.

    Attributes:
        episode: [n] of each picture; pictures of an episode have one look and go together.
        error: by target, [n], m or rad.
        miss: [n, spreads] how far each number is off for which an interval is claimed, m or rad.
        claimed: [n, spreads] half widths of these intervals.
        difference: [n, size], in the component's own numbers.
    """

    episode: NDArray[np.int64]
    error: dict[str, Array]
    miss: dict[str, Array]
    claimed: dict[str, Array]
    difference: dict[str, Array]


def read_looks(
    estimator: Estimator, look: LookWorlds, frames: int, seed: int, boundaries: list[Tensor] | None = None
) -> Readings:
    """Have an estimator read fresh pictures. The same seed gives every estimator the same states and, where ranges are
    the same, the same looks.

    Args:
        estimator: to be tried.
        look: see `find_look`.
        frames: how many, rounded up to whole steps of a chunk's environments.
        seed: of states and looks.
        boundaries: gets the boundary [n] of each picture, see `Sampler.draw`, in parts; then each has its own look.
    """
    per = "episode" if boundaries is None else "frame"
    plan = replace(estimator.config.plan(), seed=seed, looks=per, unseen=look.unseen)
    maker = ChunkMaker(plan, looks=look.sampler, trusted=estimator.config.task)
    parts: list[tuple[NDArray[np.int64], dict[str, tuple[Array, ...]]]] = []
    size = maker.chunking.size
    try:
        for number in range(-(-frames // size)):
            chunk = maker.chunk(number, maker.chunking.steps(frames - number * size))
            pictures, numbers = chunk.pictures, number * size + np.arange(len(chunk.worlds))
            if look.spoil is not None:
                pictures = look.spoil(pictures, numbers)
            if boundaries is not None:
                boundaries.append(torch.from_numpy(chunk.boundary))
            found = estimator.estimate(pictures)
            truths = {t.name: torch.from_numpy(chunk.states[t.name]).float() for t in estimator.readings}
            read = {t.name: _read(t, *found[t.name], truths[t.name]) for t in estimator.readings}
            parts.append((np.array([maker.chunking.episode_of(int(n)) for n in numbers]), read))
    finally:
        maker.close()
    columns = {name: [np.concatenate([read[name][k] for _, read in parts]) for k in range(4)] for name in parts[0][1]}
    return Readings(
        np.concatenate([episode for episode, _ in parts]),
        *({name: values[k] for name, values in columns.items()} for k in range(4)),
    )


def _read(target: Target, value: Tensor, std: Tensor, truth: Tensor) -> tuple[Array, ...]:
    measures = (
        target.error(value, truth), target.misses(value, truth), target.claimed(std), target.differences(value, truth),
    )  # fmt: skip
    return tuple(measure.double().numpy() for measure in measures)


def summarize_looks(look: LookWorlds, readings: Readings, targets: Sequence[Target]) -> dict[str, Any]:
    """One entry of `looks` in evaluation.json."""
    found = {}
    for target in targets:
        error, miss, claimed = (part[target.name] for part in (readings.error, readings.miss, readings.claimed))
        covered, sure = (miss <= claimed).mean(1), claimed <= target.within
        right = (error <= target.within).astype(float)
        quantiles = lambda rows, e=error: np.quantile(e[rows], (0.5, 0.9))  # noqa: E731
        means = lambda rows, r=right, c=covered: np.array([r[rows].mean(), c[rows].mean()])  # noqa: E731
        middle, share = quantiles(slice(None)), means(slice(None))
        middle_ends = resampled(readings.episode, quantiles).T.tolist()
        share_ends = resampled(readings.episode, means).T.tolist()
        differences = readings.difference[target.name]
        noise, bias = parts_of_variance(readings.episode, differences)
        usual = error <= np.quantile(error, USUAL)
        shrunk = cut_normal(differences.shape[1], USUAL)
        usual_noise, usual_bias = (
            part / shrunk for part in parts_of_variance(readings.episode[usual], differences[usual])
        )
        found[target.name] = {
            "unit": target.unit, "median": float(middle[0]), "median_ci95": middle_ends[0],
            "p90": float(middle[1]), "p90_ci95": middle_ends[1],
            "within": target.within, "right": float(share[0]), "right_ci95": share_ends[0],
            "level": LEVEL, "coverage": float(share[1]), "coverage_ci95": share_ends[1],
            "sure": float(sure.mean()),
            "sure_right": float((miss[sure] <= target.within).mean()) if sure.any() else None,
            "elements": list(target.elements), "noise": noise.tolist(), "bias": bias.tolist(),
            "usual_noise": usual_noise.tolist(), "usual_bias": usual_bias.tolist(),
            "mean": differences.mean(0).tolist(),
        }  # fmt: skip
    return {
        "name": look.name, "group": look.group, "frames": len(readings.episode),
        "episodes": len(np.unique(readings.episode)), "targets": found,
    }  # fmt: skip


def resampled(episode: NDArray[np.int64], statistic: Callable[[Any], Array], seed: int = 0) -> Array:
    """Ends [2, k] of 95 % percentile bootstrap intervals of a statistic [k] of rows, whole episodes resampled."""
    numbers, place = np.unique(episode, return_inverse=True)
    order = np.argsort(place, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(place))[:-1])
    generator = np.random.default_rng(seed)
    values = [
        statistic(np.concatenate([rows[i] for i in generator.integers(len(numbers), size=len(numbers))]))
        for _ in range(_RESAMPLES)
    ]
    return np.percentile(np.stack(values), (2.5, 97.5), axis=0)


def parts_of_variance(episode: NDArray[np.int64], difference: Array) -> tuple[Array, Array]:
    """Standard deviations [k] of errors [n, k] within episodes (noise) and of the episodes' means (bias).

    The usual estimates of a one-way analysis of variance with random effects (Searle, Casella, McCulloch 1992,
    ch. 3.6): noise^2 = MSW; bias^2 = (MSB - MSW) / n0, at least 0.
    """
    numbers, place, counts = np.unique(episode, return_inverse=True, return_counts=True)
    groups, n = len(numbers), len(episode)
    means = np.stack([np.bincount(place, column) / counts for column in difference.T], axis=1)
    within = np.square(difference - means[place]).sum(0) / max(n - groups, 1)
    between = (counts[:, None] * np.square(means - difference.mean(0))).sum(0) / max(groups - 1, 1)
    size = (n - np.square(counts).sum() / n) / max(groups - 1, 1)
    return np.sqrt(within), np.sqrt(np.maximum(between - within, 0.0) / max(size, 1.0))


def cut_normal(size: int, share: float) -> float:
    """Standard deviation of the share of draws that are nearest to 0, of a standard normal one of `size` numbers: by
    chi-squared distributions of `size` and of two more degrees of freedom."""
    squares = torch.linspace(0.0, 30.0 + 10.0 * size, 100_001, dtype=torch.float64)
    below = torch.special.gammainc(torch.tensor(size / 2.0, dtype=torch.float64), squares / 2.0)
    most = squares[torch.searchsorted(below, share)]
    inside = torch.special.gammainc(torch.tensor(size / 2.0 + 1.0, dtype=torch.float64), most / 2.0)
    return float((inside / share).sqrt())


def assess(
    estimator: Estimator, looks: Sequence[str], frames: int, seed: int, say: Callable[[str], object]
) -> dict[str, Any]:
    """The document of `evaluation.json`. Raises UserError for a look that cannot be had."""
    config = estimator.config
    worlds = [find_look(name, config, estimator.looks) for name in looks]
    rows = []
    for look in worlds:
        say(f"reading {frames:,} fresh pictures in look {look.name} ...")
        rows.append(summarize_looks(look, read_looks(estimator, look, frames, seed), estimator.readings))
    sampler = worlds_of(config.make_task(), config.randomization).looks
    sampler.load_state_dict(estimator.looks)
    drawn = config.randomization.sampler != "none" and bool(sampler.parameters)
    measured = [c.name for c in estimator.task.measured_components()]
    document = {
        "measured": [t.name for t in estimator.readings if t.name in measured],
        "estimator": estimator.name, "task": config.task, "frames": estimator.frames, "seed": seed,
        "entropy_npd": sampler.entropy() if drawn else None, "looks": rows,
    }  # fmt: skip
    if isinstance(sampler, ADR) and config.evaluate.boundary_frames:
        say("reading fresh pictures at every boundary ...")
        document["boundaries"] = boundaries_of(estimator, sampler, config.evaluate.boundary_frames, seed + 1)
    return document


def boundaries_of(estimator: Estimator, sampler: ADR, frames: int, seed: int) -> list[dict[str, Any]]:
    """How large a share of fresh pictures is read well at each boundary that can move, about `frames` pictures each."""
    sampler.boundary_probability = 1.0
    codes: list[Tensor] = []
    look = LookWorlds("boundaries", "trained", sampler)
    readings = read_looks(estimator, look, frames * sampler.movable_sides, seed, codes)
    right = np.all([readings.error[t.name] <= t.within for t in estimator.targets], axis=0)
    boundary, found = torch.cat(codes).numpy(), []
    for code in np.unique(boundary[boundary >= 0]).tolist():
        parameter, side = sampler.parameters[code // 2], ("lower", "upper")[code % 2]
        bound = float((sampler.upper if code % 2 else sampler.lower)[code // 2])
        good, count = int(right[boundary == code].sum()), int((boundary == code).sum())
        found.append({
            "parameter": parameter.name, "side": side, "value": bound, "moved": bound != parameter.nominal,
            "frames": count, "right": good / count, "right_ci95": list(wilson(good, count)),
        })  # fmt: skip
    return found


def assessment_table(document: dict[str, Any]) -> Table:
    """An assessment for people."""
    entropy = document["entropy_npd"]
    title = f"{document['estimator']} on {document['task']}, {document['frames']:,} pictures"
    title += "" if entropy is None else f", entropy of the trained looks {entropy:+.2f} npd"
    table = plain_table(
        title, ("look", "component"),
        ("pictures", "median", "95 %", "p90", "95 %", "right", "in interval", "sure", "of these right"),
        f"right: error at most the configured one; in interval: inside the claimed {LEVEL:.0%}; sure: numbers whose "
        "claimed interval reaches no further than the configured error",
    )  # fmt: skip
    for look in document["looks"]:
        for k, (name, row) in enumerate(look["targets"].items()):
            table.add_row(
                "" if k else look["name"], name, "" if k else str(look["frames"]),
                f"{row['median']:.4f} {row['unit']}", _ends(row["median_ci95"]), f"{row['p90']:.4f}",
                _ends(row["p90_ci95"]), f"{row['right']:.3f}", f"{row['coverage']:.3f}", f"{row['sure']:.3f}",
                "-" if row["sure_right"] is None else f"{row['sure_right']:.3f}",
            )  # fmt: skip
        table.add_section()
    return table


def _ends(ends: Sequence[float]) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}"


def noise_block(document: dict[str, Any], look: str, usual: bool) -> dict[str, dict[str, Any]]:
    """Entries of a `randomization:` block with the errors of an estimator in a look: of what it reads in place of a
    sensor, the noise of every step and the bias of every episode, ranges from 0 to twice what was found, so that this
    is their mean.

    Args:
        document: of `evaluation.json`.
        look: in it.
        usual: of normal errors of which nine tenths are as the nine tenths that are smallest; else of all errors, whose
            standard deviations a few large ones make.

    Raises:
        UserError: the assessment is of a version that did not tell these apart.
    """
    row = next(row for row in document["looks"] if row["name"] == look)
    entries: dict[str, dict[str, Any]] = {}
    for name, target in row["targets"].items():
        if name not in document.get("measured", row["targets"]):
            continue  # no sensor shows it
        for part in ("noise", "bias"):
            found = target.get(f"usual_{part}") if usual else target[part]
            if found is None:
                raise UserError(f"{document['estimator']}: was assessed by an earlier version; assess it again")
            sigma = float(np.sqrt(np.mean(np.square(found))))
            if sigma > 0.0:
                quantity = f"observation_{part}"
                entries[f"{name}_{part}"] = {
                    "quantity": quantity,
                    "of": name,
                    "range": [0.0, float(f"{2 * sigma:.3g}")],
                }
    return entries
