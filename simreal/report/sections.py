"""What the sections show, each in the template of its name; None where the runs have nothing to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from simreal.evaluation.metrics import METRICS, RETURN
from simreal.report import figures
from simreal.report.clips import Clip
from simreal.report.records import Arm, Columns, Comparison, Run
from simreal.report.summary import Cell, cell, worlds_by_group
from simreal.report.words import labelled, percent

Content = dict[str, Any]

_HEALTH = {  # column of metrics.csv: what it is, with its unit
    "q": "Q of the batch (return)",
    "policy_q": "Q of the policy (return)",
    "critic_loss": "critic loss",
    "value_loss": "value loss (std² of returns)",
    "policy_loss": "policy loss",
    "kl": "KL per update (nats)",
    "entropy": "entropy of actions (nats)",
    "alpha": "temperature",
    "saturation": "saturated actions (share)",
    "clip_fraction": "clipped ratios (share)",
    "explained_variance": "explained variance (share)",
    "action_std": "std of actions",
    "grad_norm": "gradient norm",
    "lr": "step size",
    "divergences": "unstable simulations",
}
_SCORES = {measure.column for measure in METRICS.values()}
_NOT_HEALTH = _SCORES | {"env_steps", "episodes", "rollout_return", "seconds", "replay", "updates"}
_SATURATED, _KL_TIMES = 0.5, 4.0  # from where on a remark is made


class Plot(NamedTuple):
    """A figure of the page."""

    svg: Markup
    caption: str


def _plot(figure: figures.Figure, words: str, caption: bool = True) -> Plot:
    return Plot(Markup(figures.svg(figure, words)), words if caption else "")


def learning(arms: Sequence[Arm]) -> Content | None:
    """What the task is judged by, and return, in training."""
    metrics = {arm.name: [_since_first_episode(run.metrics) for run in arm.runs] for arm in arms}
    if not any(columns.get("episodes") for seeds in metrics.values() for columns in seeds):
        return None
    measure, by = arms[0].first.measure, {"env_steps": "steps", "seconds": "time"}
    wanted = [("return", "return per episode", "Return", against) for against in by]
    if measure is not RETURN:
        judged = [(measure.column, measure.name, measure.name.capitalize(), against) for against in by]
        wanted = [*judged, wanted[0]]
    plots = []
    for column, label, words, against in wanted:
        share = column == measure.column and measure.ends == (0.0, 1.0)
        figure = figures.learning_curves(metrics, column, label, against, share)
        plots.append(_plot(figure, f"{words} in training against {by[against]}"))
    return {"plots": plots, "seeds": any(len(arm.runs) > 1 for arm in arms)}


def _since_first_episode(columns: Columns) -> Columns:
    """Rows before an episode has ended have averages over none."""
    first = next((i for i, count in enumerate(columns.get("episodes", [])) if count > 0), 0)
    return {name: values[first:] for name, values in columns.items()}


def randomization(arms: Sequence[Arm]) -> Content | None:
    """Entropy of the ranges, how each range moved, and where it ended."""
    moving = [arm for arm in arms if arm.randomized and any(run.adr.get("entropy_npd") for run in arm.runs)]
    moving = [arm for arm in moving if arm.first.config.randomization.sampler in ("adr", "doraemon")]
    if not any(arm.randomized for arm in arms):
        return None
    seeds = {arm.name: [run.adr for run in arm.runs if run.adr.get("entropy_npd")] for arm in moving}
    seen = any(max(_finite(c["entropy_npd"]), default=-99) > figures.UNSEEN_NPD for s in seeds.values() for c in s)
    drawn = figures.entropy_curves(seeds, small=len(moving) == 1) if seen else None
    entropy = None if drawn is None else _plot(drawn, "Entropy of the ranges against steps", caption=len(moving) > 1)
    said = [f"{run.name}: {concern.text}." for arm in moving for run in arm.runs for concern in run.concerns]
    return {"entropy": entropy, "ways": {arm.name: _ranges(arm) for arm in moving}, "concerns": said}


def _ranges(arm: Arm) -> list[Plot]:
    seeds = [run.adr for run in arm.runs if run.adr.get("env_steps")]
    return [
        _plot(
            figures.range_curve(seeds, p.name, labelled(p), p.limits),
            f"{arm.name}: range of {p.name} against steps",
            caption=False,
        )
        for p in arm.first.parameters
        if all(f"{p.name}.lower" in columns for columns in seeds)
    ]


def transfer(arms: Sequence[Arm], comparisons: Sequence[Comparison]) -> Content | None:
    """Worlds against policies."""
    if not comparisons and not worlds_by_group(arms):
        return None
    shown = list(dict.fromkeys((arms[0].first.measure, RETURN)))
    heads = [f"{m.name} ({m.points})" if m.points else m.name for m in shown]
    head = ["world", "policies", *(column for name in heads for column in (name, "95 % interval"))]
    return {"comparisons": comparisons, "shown": shown, "head": head}


def coloured(arms: Sequence[Arm], worlds: Sequence[str]) -> list[tuple[Cell | None, float, bool]]:
    """How each arm did in some worlds, as a share of the scale of colours, and whether it is the best."""
    found = [cell(arm, worlds) for arm in arms]
    means = [f.mean for f in found if f is not None] or [0.0]
    least, most = arms[0].first.measure.ends
    low, high = min(means) if least is None else least, max(means) if most is None else most

    def share(mean: float) -> float:
        return (mean - low) / (high - low) if high > low else 0.5

    differ = min(means) < max(means)
    return [(f, 0.0, False) if f is None else (f, share(f.mean), differ and f.mean == max(means)) for f in found]


def envelope(arms: Sequence[Arm]) -> Content | None:
    """Where the policy stops to work, parameter by parameter: curves and maps of each run."""
    found = [(run, *_envelope(run)) for arm in arms for run in arm.runs if run.envelope is not None]
    return {"runs": found} if found else None


def _envelope(run: Run) -> tuple[list[Plot], list[Plot]]:
    found = run.envelope
    assert found is not None
    names = {m.name: f"{m.name} ({m.unit})" if m.unit not in ("", "1") else m.name for m in found.parameters}
    names |= {p.name: labelled(p) for p in run.parameters}
    trained = {m.name: m.trained for m in found.parameters}

    def plot(figure: figures.Figure, against: str, episodes: int) -> Plot:
        each = f", {episodes} episodes each" if episodes else ""
        return _plot(figure, f"{run.name}: success against {against}{each}")

    curves = [
        plot(figures.marginal_curve(m, names[m.name], found.threshold, found.box), m.name, m.episodes)
        for m in found.parameters
    ]
    maps = [
        plot(
            figures.pair_map(p, (names.get(p.x, p.x), names.get(p.y, p.y)), trained),
            f"{p.x} and {p.y}",
            p.episodes,
        )
        for p in found.pairs
    ]
    return curves, maps


def episodes(clips: Sequence[Clip], missing: Sequence[str], budget: int) -> Content | None:
    """Best and worst episodes; videos as long as `budget` bytes last."""
    with_video = []
    for clip in clips:
        size = budget + 1 if clip.video is None else clip.video.stat().st_size * 4 // 3
        if size <= budget:
            budget -= size
            with_video.append(clip)
    missing = [text for text in missing if text]
    return {"clips": clips, "with_video": with_video, "missing": missing} if clips or missing else None


def simulation(arms: Sequence[Arm]) -> Content:
    """What a look at the simulation found before training, and how many simulations became unstable in it."""
    runs = [run for arm in arms for run in arm.runs]
    unstable = {run.name: _finite(run.metrics.get("divergences", [])) for run in runs}
    return {
        "runs": [run for run in runs if run.health is not None],
        "unseen": [run for run in runs if run.health is None],
        "unstable": {name: round(values[-1]) for name, values in unstable.items() if values and values[-1] > 0},
        "task": runs[0].config.task,
    }


def health(arms: Sequence[Arm]) -> Content | None:
    """What the learner reported, with remarks on what looks ill."""
    metrics: dict[str, list[Columns]] = {arm.name: [run.metrics for run in arm.runs] for arm in arms}
    columns = dict.fromkeys(c for seeds in metrics.values() for s in seeds for c in s if c not in _NOT_HEALTH)
    terms = [c for c in columns if c.startswith("term/")]
    learner = [c for c in _HEALTH if c in columns]
    learner += sorted(c for c in columns if c not in _HEALTH and c not in terms)
    if not learner:
        return None
    return {
        "remarks": [remark for arm in arms for run in arm.runs for remark in _remarks(run)],
        "quiet": _quiet([run for arm in arms for run in arm.runs]),
        "learner": _small_curves(metrics, learner),
        "terms": _small_curves(metrics, terms),
        "key": ", ".join(f"{n}: {figures.style_of(i)}" for i, n in enumerate(metrics)) if len(metrics) > 1 else "",
    }


def _quiet(runs: Sequence[Run]) -> str:
    """What was looked at and is as it should be: of what the learners of these runs have."""
    looked = [f"fewer than {percent(_SATURATED)} saturated actions", "no unstable simulation"]
    if any(getattr(run.config.learner, "desired_kl", None) is not None for run in runs):
        looked.append(f"KL within {_KL_TIMES:g} times its aim")
    if any(getattr(run.config.learner, "target_limits", None) is not None for run in runs):
        looked.append("Q within the limits of its targets")
    return ", ".join(looked)


def _small_curves(metrics: dict[str, list[Columns]], columns: Sequence[str]) -> list[Plot]:
    labels = {column: _HEALTH.get(column, column.removeprefix("term/")) for column in columns}
    drawn = [(label, figures.health_curve(metrics, column, label)) for column, label in labels.items()]
    return [_plot(figure, f"{label} against steps", caption=False) for label, figure in drawn if figure is not None]


def _remarks(run: Run) -> list[str]:
    last = {key: _finite(values)[-1] for key, values in run.metrics.items() if _finite(values)}
    learner = run.config.learner
    remarks = []
    if last.get("saturation", 0.0) > _SATURATED:
        remarks.append(f"{percent(last['saturation'])} of the actions are saturated at the end.")
    if last.get("divergences", 0.0) > 0:
        remarks.append(f"{last['divergences']:.0f} simulations became unstable and were ended.")
    aim = getattr(learner, "desired_kl", None)
    if aim is not None and last.get("kl", 0.0) > _KL_TIMES * aim:
        remarks.append(f"The last update moved the policy by {last['kl']:.3f} nats, {aim:g} was aimed at.")
    limits = getattr(learner, "target_limits", None)
    if limits is not None and "q" in last and not limits[0] <= last["q"] <= limits[1]:
        remarks.append(f"Q is {last['q']:.1f}, outside the possible returns {limits[0]:g} to {limits[1]:g}.")
    return [f"{run.name}: {remark}" for remark in remarks]


def setup(arms: Sequence[Arm]) -> Content:
    """Configurations, seeds and versions: what is needed to do it again."""
    versions = {run.name: run.versions for arm in arms for run in arm.runs if run.versions}
    return {"versions": versions, "packages": list(dict.fromkeys(key for v in versions.values() for key in v))}


def _finite(values: Sequence[float]) -> list[float]:
    return [v for v in values if math.isfinite(v)]
