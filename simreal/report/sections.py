"""The sections below the verdict; each is an empty string where the runs have nothing to show."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from html import escape

from randomization.parameters import Parameter
from simreal.measure import MEASURES, RETURN, Measure
from simreal.report import figures
from simreal.report.footage import Clip
from simreal.report.html import data_uri, fold, notes, paragraph, percent, row, table
from simreal.report.records import GROUPS, Arm, Box, Columns, Comparison, Run
from simreal.report.summary import cell, worlds_by_group
from simreal.report.verdict import doubt_below, score, trained_in, what_cells_say
from simreal.version import __version__

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
_SCORES = {measure.column for measure in MEASURES.values()}
_NOT_HEALTH = _SCORES | {"env_steps", "episodes", "rollout_return", "seconds", "replay", "updates"}
_SATURATED, _KL_TIMES = 0.5, 4.0  # from where on a remark is made


def learning(arms: Sequence[Arm]) -> str:
    """What the task is judged by, and return, in training."""
    metrics = {arm.name: [_since_first_episode(run.metrics) for run in arm.runs] for arm in arms}
    if not any(columns for seeds in metrics.values() for columns in seeds):
        return ""
    plots, measure = [], arms[0].first.measure
    if measure is not RETURN:
        for against, words in (("env_steps", "steps"), ("seconds", "time")):
            share = measure.ends == (0.0, 1.0)
            figure = figures.learning_curves(metrics, measure.column, measure.name, against, share)
            plots.append(_plot(figure, f"{measure.name.capitalize()} in training against {words}"))
    for against, words in (("env_steps", "steps"), ("seconds", "time"))[: 2 if measure is RETURN else 1]:
        figure = figures.learning_curves(metrics, "return", "return per episode", against)
        plots.append(_plot(figure, f"Return in training against {words}"))
    text = "Means of the last 100 training episodes, with exploration, in the worlds that training played then."
    if any(len(arm.runs) > 1 for arm in arms):
        text += " Lines are means over seeds, bands reach from the lowest to the highest seed."
    return paragraph(text) + f'<div class="plots wide">{"".join(plots)}</div>'


def _since_first_episode(columns: Columns) -> Columns:
    """Rows before an episode has ended have averages over none."""
    first = next((i for i, count in enumerate(columns.get("episodes", [])) if count > 0), 0)
    return {name: values[first:] for name, values in columns.items()}


def randomization(arms: Sequence[Arm]) -> str:
    """Entropy of the ranges, how each range moved, and where it ended."""
    moving = [arm for arm in arms if arm.randomized and any(run.adr.get("entropy_npd") for run in arm.runs)]
    moving = [arm for arm in moving if arm.first.config.randomization.sampler in ("adr", "doraemon")]
    parts = []
    if moving:
        seeds = {arm.name: [run.adr for run in arm.runs if run.adr.get("entropy_npd")] for arm in moving}
        text = (
            "Entropy: the mean over parameters of the logarithm of the range's width, drawn once every range has opened"
        )
        text += f" (a width of zero counts as {1e-6:g})."
        if any(max(_finite(c["entropy_npd"]), default=-99) > figures.UNSEEN_NPD for s in seeds.values() for c in s):
            plot = _plot(figures.entropy_curves(seeds), "Entropy of the ranges against steps")
            parts.append(paragraph(text) + f'<div class="plots wide">{plot}</div>')
        else:
            parts.append(paragraph("Some range has not opened in any run, so the entropy is that of a width of zero."))
    for i, arm in enumerate(moving):
        content = f'<div class="plots small">{_ranges(arm)}</div>' + paragraph(
            "Shaded: the range that worlds are drawn from, against steps. Dotted: the limits it may reach.", "soft"
        )
        parts.append(fold(f"Ranges of {arm.name}", content, is_open=i == len(moving) - 1))
    for arm in arms:
        if arm.randomized:
            parts.append(fold(f"Final ranges of {arm.name}", _final_ranges(arm), is_open=arm not in moving))
    return "".join(parts)


def _ranges(arm: Arm) -> str:
    seeds = [run.adr for run in arm.runs if run.adr.get("env_steps")]
    plots = []
    for p in arm.first.parameters:
        if all(f"{p.name}.lower" in columns for columns in seeds):
            figure = figures.range_curve(seeds, p.name, labelled(p), p.limits)
            plots.append(_plot(figure, f"{arm.name}: range of {p.name} against steps", caption=False))
    return "".join(plots)


def _final_ranges(arm: Arm) -> str:
    rows = []
    for p in arm.first.parameters:
        cells = [escape(unit_of(p)), f"{p.nominal:.4g}", f"{p.limits[0]:.4g} to {p.limits[1]:.4g}"]
        for run in arm.runs:
            low, high = (run.adr.get(f"{p.name}.{side}") for side in ("lower", "upper"))
            cells.append(f"{low[-1]:.4g} to {high[-1]:.4g}" if low and high else "–")
        rows.append(row(p.name, cells, text_columns=1))
    head = ["parameter", "unit", "nominal", "limits", *(run.name for run in arm.runs)]
    return table(f"Ranges that {arm.name} was trained in at the end, and how far they might have gone.", head, rows, 1)


def transfer(arms: Sequence[Arm], comparisons: Sequence[Comparison]) -> str:
    """Worlds against policies."""
    groups = worlds_by_group(arms)
    rows, parts = [], []
    for group, worlds in groups.items():
        rows.append(f'<tr class="group"><th colspan="{len(arms) + 1}" scope="rowgroup">{GROUPS[group]}</th></tr>')
        rows += [row(world, _scores(arms, [world])) for world in worlds]
        if len(worlds) > 1:
            rows.append(row(f"all {len(worlds)}", _scores(arms, worlds)))
    if len(arms) == 1 and rows:
        parts.append(_all_figures(arms[0]))
    elif rows:
        measure = arms[0].first.measure
        caption = f"{measure.words.capitalize()}: {what_cells_say(measure)}. "
        caption += "The stronger a cell's colour, the better; the triangle marks the best of a row. "
        caption += "In world trained every policy plays the ranges of its own training; without any, the nominal world."
        parts.append(table(caption, ["world", *(arm.name for arm in arms)], rows))
        evaluated = [arm for arm in arms if any(run.evaluation is not None for run in arm.runs)]
        parts += [fold(f"All figures of {arm.name}", _all_figures(arm)) for arm in evaluated]
    parts += [_differences(comparison, arms[0].first.measure) for comparison in comparisons]
    return "".join(parts)


def _scores(arms: Sequence[Arm], worlds: Sequence[str]) -> list[str]:
    found = [cell(arm, worlds) for arm in arms]
    means = [f.mean for f in found if f is not None]
    least, most = arms[0].first.measure.ends
    low = min(means, default=0.0) if least is None else least
    high = max(means, default=1.0) if most is None else most
    cells = []
    for figure in found:
        if figure is None:
            cells.append("–")
            continue
        share = (figure.mean - low) / (high - low) if high > low else 0.5
        best = " best" if len(means) > 1 and figure.mean == max(means) and min(means) < max(means) else ""
        cells.append(
            f'<td class="score{best}" style="--p:{share:.3f}"><b>{score(figure)}</b>{doubt_below(figure)}</td>'
        )
    return cells


def _all_figures(arm: Arm) -> str:
    rows = []
    for run in arm.runs:
        for w in run.evaluation.worlds if run.evaluation is not None else ():
            figures_of_world = run.measure.cells(vars(w), page=True)
            names = [escape(run.name)] if len(arm.runs) > 1 else []
            rows.append(row(w.name, [*names, *figures_of_world, f"{w.episodes:,}", GROUPS[w.kind]], len(names)))
    names = ["run"] if len(arm.runs) > 1 else []
    head = ["world", *names, *arm.first.measure.columns, "episodes", "group"]
    caption = "Every run in every world; worst 10 %: mean return of the worst tenth of the episodes."
    return table(caption, head, rows, len(names))


def _differences(comparison: Comparison, measure: Measure) -> str:
    rows, shown = [], dict.fromkeys((measure, RETURN))
    for d in comparison.differences:
        cells = [escape(f"{d.a} − {d.b}")]
        for m in shown:
            found = d.of(m)
            cells += ["–", "–"] if found is None else [m.page.change(found[0]), m.page.change_span(*found[1])]
        rows.append(row(d.world, cells, text_columns=1))
    heads = [f"{m.name} ({m.points})" if m.points else m.name for m in shown]
    head = ["world", "policies", *(column for name in heads for column in (name, "95 % interval"))]
    return table("Differences in the same episodes, with paired bootstrap intervals.", head, rows, 1)


def envelope(arms: Sequence[Arm]) -> str:
    """Where the policy stops to work, parameter by parameter."""
    parts = []
    for run in (run for arm in arms for run in arm.runs if run.envelope is not None):
        found = run.envelope
        assert found is not None
        names = {p.name: labelled(p) for p in run.parameters}
        trained = {m.name: m.trained for m in found.parameters}
        for m in found.parameters:
            names.setdefault(m.name, f"{m.name} ({m.unit})" if m.unit not in ("", "1") else m.name)
        curves = [
            _plot(
                figures.marginal_curve(m, names[m.name], found.threshold, found.box),
                f"{run.name}: success against {m.name}" + (f", {m.episodes} episodes each" if m.episodes else ""),
            )
            for m in found.parameters
        ]
        maps = [
            _plot(
                figures.pair_map(p, (names.get(p.x, p.x), names.get(p.y, p.y)), trained),
                f"{run.name}: success against {p.x} and {p.y}"
                + (f", {p.episodes} episodes each" if p.episodes else ""),
            )
            for p in found.pairs
        ]
        text = "Shaded: the range of training. Band: 95 % interval. Bar at the bottom: the trusted box."
        if found.threshold is not None:
            text += f" Dotted: {percent(found.threshold)}."
        if found.criterion is not None:
            text += f" Success here: {found.criterion}."
        text += " Maps: the frame is the range of training." if maps else ""
        parts.append(f"<h3>{escape(run.name)}</h3>{paragraph(text)}")
        parts.append(
            f'<div class="plots middle">{"".join(curves)}</div><div class="plots middle">{"".join(maps)}</div>'
        )
        parts.append(_box(run, found.box) if found.box is not None else "")
    return "".join(parts)


def _box(run: Run, box: Box) -> str:
    trained = {m.name: m.trained for m in (run.envelope.parameters if run.envelope else ())}
    units = {p.name: unit_of(p) for p in run.parameters}
    rows = []
    for name, (low, high) in box.ranges.items():
        before = trained.get(name)
        cells = [escape(units.get(name, "")), f"{low:.4g} to {high:.4g}"]
        rows.append(row(name, [*cells, f"{before[0]:.4g} to {before[1]:.4g}" if before else "–"], text_columns=1))
    caption = (
        f"The trusted box: success at least {percent(box.lower_bound)} with {percent(box.confidence)} confidence, "
    )
    caption += f"from {box.successes:,} successes in {box.episodes:,} episodes drawn inside it."
    return table(caption, ["parameter", "unit", "trusted range", "range of training"], rows, 1)


def episodes(clips: Sequence[Clip], missing: Sequence[str], budget: int) -> str:
    """Best and worst episodes; videos as long as `budget` bytes last."""
    shown = []
    for clip in clips:
        video = ""
        if clip.video is not None and clip.video.stat().st_size * 4 // 3 <= budget:
            budget -= clip.video.stat().st_size * 4 // 3
            source = f'src="{data_uri(clip.video, "video/mp4")}" aria-label="{escape(clip.title)}"'
            poster = f'poster="{data_uri(clip.poster, "image/jpeg")}"'
            video = f'<video controls muted playsinline preload="metadata" {poster} {source}></video>'
        image = f'<img src="{data_uri(clip.stills, "image/jpeg")}" alt="Moments of the episode: {escape(clip.text)}">'
        caption = f"<figcaption><b>{escape(clip.title)}</b><br>{escape(clip.text)}</figcaption>"
        shown.append(f"<figure>{caption}{image}{video}</figure>")
    sentences = "".join(paragraph(text, "soft") for text in missing if text)
    return (f'<div class="clips">{"".join(shown)}</div>' if shown else "") + sentences


def health(arms: Sequence[Arm]) -> str:
    """What the learner reported, folded, with remarks on what looks ill."""
    metrics: dict[str, list[Columns]] = {arm.name: [run.metrics for run in arm.runs] for arm in arms}
    columns = dict.fromkeys(c for seeds in metrics.values() for s in seeds for c in s if c not in _NOT_HEALTH)
    terms = [c for c in columns if c.startswith("term/")]
    figures_of_learner = [c for c in _HEALTH if c in columns]
    figures_of_learner += sorted(c for c in columns if c not in _HEALTH and c not in terms)
    if not figures_of_learner:
        return ""
    remarks = [remark for arm in arms for run in arm.runs for remark in _remarks(run)]
    text = notes(remarks) or paragraph(
        f"Nothing stands out: fewer than {percent(_SATURATED)} saturated actions, no unstable simulation, KL within "
        f"{_KL_TIMES:g} times its aim, Q within the limits of its targets."
    )
    text += fold("Figures of the learner, against steps", _small_curves(metrics, figures_of_learner))
    return text + (fold("Terms of the reward, means per step", _small_curves(metrics, terms)) if terms else "")


def _small_curves(metrics: dict[str, list[Columns]], columns: Sequence[str]) -> str:
    plots = []
    for column in columns:
        label = _HEALTH.get(column, column.removeprefix("term/"))
        figure = figures.health_curve(metrics, column, label)
        if figure is not None:
            plots.append(_plot(figure, f"{label} against steps", caption=False))
    key = ", ".join(f"{name}: {figures.style_of(i)}" for i, name in enumerate(metrics)) if len(metrics) > 1 else ""
    return f'<div class="plots small">{"".join(plots)}</div>' + (paragraph(f"{key}.", "soft") if key else "")


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


def setup(arms: Sequence[Arm]) -> str:
    """Configurations, seeds and versions: what is needed to do it again."""
    rows = []
    for arm in arms:
        config = arm.first.config
        what = f"{config.learner.algorithm.upper()}, {config.num_envs} environments"
        seeds = ", ".join(str(run.config.seed) for run in arm.runs)
        cells = [escape(what), config.randomization.sampler, seeds, trained_in(arm).removeprefix("for ")]
        rows.append(row(arm.name, cells, text_columns=2))
    parts = [table("Runs.", ["", "learner", "randomization", "seeds", "training"], rows, 2)]
    versions = {run.name: run.versions for arm in arms for run in arm.runs if run.versions}
    names = list(dict.fromkeys(key for found in versions.values() for key in found))
    if names:
        rows = [row(name, [escape(v.get(key, "–")) for key in names]) for name, v in versions.items()]
        parts.append(fold("Versions that the runs were exported with", table("Versions.", ["run", *names], rows)))
    for arm in arms:
        yaml = f'<pre tabindex="0">{escape(arm.first.config.to_yaml())}</pre>'
        more = f" (seed {arm.first.config.seed})" if len(arm.runs) > 1 else ""
        parts.append(fold(f"Configuration of {arm.name}{more}", yaml))
    return "".join(parts)


def footer() -> str:
    """Who wrote the page."""
    return f"Written by simreal {escape(__version__)}, Python {platform.python_version()}."


def labelled(p: Parameter) -> str:
    """A parameter's name with its unit."""
    return f"{p.name} ({unit_of(p)})" if unit_of(p) else p.name


def unit_of(p: Parameter) -> str:
    """A parameter's unit for readers."""
    if p.unit != "1":
        return p.unit
    return "x nominal" if p.mode == "scale" else ""


def _plot(figure: figures.Figure, words: str, caption: bool = True) -> str:
    shown = f"<figcaption>{escape(words)}</figcaption>" if caption else ""
    return f"<figure>{figures.svg(figure, words)}{shown}</figure>"


def _finite(values: Sequence[float]) -> list[float]:
    return [v for v in values if math.isfinite(v)]
