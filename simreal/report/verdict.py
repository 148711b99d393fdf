"""The top of the page: what was trained, for how long, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from simreal.measure import Measure
from simreal.report.html import clock, notes, paragraph, percent, row, signed, table, tile
from simreal.report.records import GROUPS, Arm, Box, Run
from simreal.report.summary import Cell, cell, entropy, worlds_by_group

SAMPLERS = {"none": "no randomization", "manual": "fixed ranges", "adr": "ADR", "doraemon": "DORAEMON"}


def verdict(arms: Sequence[Arm]) -> str:
    """Sentences, and tiles for one arm or a table for several."""
    groups = worlds_by_group(arms)
    if len(arms) > 1:
        parts = [_arms_table(arms, groups)]
    else:
        parts = [paragraph(_story(arms[0]))]
        what = arms[0].first.measure.words.capitalize()
        parts.append(paragraph(f"{what} of fresh episodes, without exploration:", "soft"))
        parts.append(f'<div class="tiles">{_tiles(arms[0], groups)}</div>')
    parts += [paragraph(text) for text in (*_comparison(arms, groups), *_boxes(arms))]
    return "".join(parts) + notes(_cautions(arms, groups))


def _story(arm: Arm) -> str:
    run = arm.first
    settings = run.config
    text = f"{settings.learner.algorithm.upper()} on {settings.task}, trained {trained_in(arm)}"
    text += f", {_seeds(arm)}; {SAMPLERS[settings.randomization.sampler]}"
    if run.parameters:
        text += f" over {len(run.parameters)} parameters"
    return text + f"{entropy_text(arm)}."


def trained_in(arm: Arm) -> str:
    """For 500,000 steps in 8 min 28 s."""
    seconds = [run.seconds for run in arm.runs if run.seconds is not None]
    text = f"for {max(run.steps for run in arm.runs):,} steps"
    if seconds:
        each = " each" if len(seconds) > 1 else ""
        text += f" in {clock(sum(seconds) / len(seconds))}{each}"
    return text


def _seeds(arm: Arm) -> str:
    seeds = ", ".join(str(run.config.seed) for run in arm.runs)
    return f"seed {seeds}" if len(arm.runs) == 1 else f"seeds {seeds}"


def entropy_text(arm: Arm) -> str:
    """The entropy of an arm's ranges as the end of a sentence; empty without ranges."""
    found = entropy(arm)
    if found is None:
        return ""
    if found[1]:
        return f", entropy at most {signed(found[0])} nats per dimension (upper bound from ADR with the policy frozen)"
    return f", final entropy {signed(found[0])} nats per dimension"


def score(found: Cell) -> str:
    """97.5 %, or 4.48 successes, or a return."""
    return found.measure.page.value(found.mean)


def doubt(found: Cell) -> str:
    """How well a score is known, with the name of what says so."""
    parts, written = [], found.measure.page
    if found.error is not None:
        parts.append(f"± {written.error(found.error)} over {found.seeds} seeds")
    if found.pooled is not None:
        parts.append(f"{'pooled ' if found.seeds > 1 else ''}95 %: {written.span(*found.pooled)}")
    if found.measure.median is not None:
        parts.append(f"median {written.value(found.median)}")
    if found.spread is not None:
        parts.append(f"± {written.error(found.spread)} over episodes")
    return "; ".join(parts)


def doubt_below(found: Cell) -> str:
    """The same for a cell of a table whose caption gives the names."""
    parts, written = [], found.measure.page
    if found.error is not None:
        parts.append(f"± {written.error(found.error)}")
    if found.pooled is not None:
        parts.append(written.span(*found.pooled))
    if found.measure.median is not None:
        parts.append(f"median {written.value(found.median)}")
    if found.spread is not None:
        parts.append(f"± {written.error(found.spread)}")
    return f"<small>{'<br>'.join(parts)}</small>"


def what_cells_say(measure: Measure) -> str:
    """What `score` and `doubt_below` show, for a caption."""
    text = "mean over seeds; below it ± its standard error over seeds"
    if measure.interval is not None:
        text += f", and the 95 % {measure.interval_kind} interval of all episodes pooled"
    return text + (", and their median" if measure.median is not None else "")


def _tiles(arm: Arm, groups: dict[str, list[str]]) -> str:
    tiles = []
    for group, heading in list(GROUPS.items())[:4]:
        found = cell(arm, groups.get(group, []))
        if found is None:
            tiles.append(tile(heading.capitalize(), "–", "not measured"))
            continue
        worlds = len(groups[group])
        details = f"{doubt(found)}; {found.episodes:,} episodes" + (f" in {worlds} worlds" if worlds > 1 else "")
        tiles.append(tile(heading.capitalize(), score(found), details.removeprefix("; ")))
    every = cell(arm, [name for names in groups.values() for name in names])
    if every is not None:
        tiles.append(tile("Worst world", every.measure.page.value(every.worst[1]), every.worst[0]))
    return "".join(tiles)


def _arms_table(arms: Sequence[Arm], groups: dict[str, list[str]]) -> str:
    shown = [group for group in GROUPS if group in groups]
    rows = []
    for arm in arms:
        cells = []
        for group in shown:
            figure = cell(arm, groups[group])
            cells.append("–" if figure is None else f"<b>{score(figure)}</b>{doubt_below(figure)}")
        every = cell(arm, [name for names in groups.values() for name in names])
        if every is not None:
            cells.append(f"{every.measure.page.value(every.worst[1])}<small>{escape(every.worst[0])}</small>")
        else:
            cells.append("–")
        bound = entropy(arm)
        cells.append("–" if bound is None else signed(bound[0]) + ("*" if bound[1] else ""))
        steps, _, time = trained_in(arm).removeprefix("for ").partition(" in ")
        cells.append(f"{steps}<small>{time}</small>")
        sampler = SAMPLERS[arm.first.config.randomization.sampler]
        rows.append(row(arm.name, cells, below=f"{sampler}, {_seeds(arm)}"))
    measure = arms[0].first.measure
    caption = f"{measure.words.capitalize()} of fresh episodes: {what_cells_say(measure)}."
    if any((found := entropy(arm)) is not None and found[1] for arm in arms):
        caption += " * upper bound: where ADR stops with the policy frozen."
    head = ["", *(GROUPS[group] for group in shown), "worst world", "entropy (npd)", "trained"]
    return table(caption, head, rows)


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
                f"In {GROUPS[group]} worlds nothing does better than the control {controls[0].name}, {score(control)}."
            )
            continue
        text = f"In {GROUPS[group]} worlds {best_arm.name} does best, {score(best)}; "
        text += f"the control {controls[0].name} has {score(control)}."
        if best.pooled is not None and control.pooled is not None and control.pooled[1] >= best.pooled[0]:
            text += " Their pooled intervals overlap."
        sentences.append(text)
    return sentences


def _boxes(arms: Sequence[Arm]) -> list[str]:
    found = [(run, run.envelope.box) for arm in arms for run in arm.runs if run.envelope and run.envelope.box]
    return [box_sentence(run, box) for run, box in found]


def box_sentence(run: Run, box: Box) -> str:
    """What the trusted box is, in words."""
    asked = run.envelope.criterion if run.envelope is not None else None
    text = f"{run.name}, trusted box ({len(box.ranges)} parameters, see Envelope): success "
    text += "is at least " if asked is None else f"({asked}) is at least "
    text += f"{percent(box.lower_bound)} with {percent(box.confidence)} confidence in worlds drawn from it"
    return text + f" ({box.successes:,} of {box.episodes:,} episodes; asked for {percent(box.success)})."


def _cautions(arms: Sequence[Arm], groups: dict[str, list[str]]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    for arm in arms:
        for run in arm.runs:
            if run.steps + run.config.train.log_interval + run.config.num_envs < run.config.train.env_steps:
                found.append(f"{run.name} has only reached {run.steps:,} of {run.config.train.env_steps:,} steps.")
            if not (run.path / "evaluation.json").is_file():
                found.append(f"{run.name} has not been evaluated.")
            for what in ("evaluation", "envelope"):
                if getattr(run, what) is None and (run.path / f"{what}.json").is_file():
                    found.append(f"{run.name}: its {what} is of an earlier checkpoint, and left out.")
    found += _unequal_worlds(arms, groups)
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
            "about a robot."
        )
    if any(arm.randomized for arm in arms) and all(arm.randomized for arm in arms):
        found.append("No control without randomization is on this page: what randomization is worth cannot be seen.")
    if any(len(arm.runs) == 1 for arm in arms):
        found.append("One seed per arm is not enough to compare arms: intervals are of episodes, not of trainings.")
    return found


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
