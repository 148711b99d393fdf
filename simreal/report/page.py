"""Puts the page together."""

from __future__ import annotations

import base64
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from simreal.common.atomic_files import write_text
from simreal.common.errors import UserError
from simreal.common.json_io import write_target
from simreal.common.version import __version__
from simreal.report import sections, words
from simreal.report.arms import load_arms
from simreal.report.clips import find_clips
from simreal.report.records import (
    GROUPS,
    Arm,
    Comparison,
    Evaluation,
    StudyDocument,
    read_document,
    read_figures,
)
from simreal.report.summary import cell, entropy, worlds_by_group
from simreal.report.verdict import verdict

_FOOTAGE_BYTES = 3_500_000  # of videos in one page
_FILMED = 4  # arms whose episodes are shown


def write_report(
    paths: Sequence[Path], output: Path, pictures: bool = True, say: Callable[[str], object] = lambda text: None
) -> Path:
    """Write one page about runs.

    Args:
        paths: run directories, and JSON files that `simreal evaluate --json FILE` wrote; or the folder of a study.
        output: the HTML file.
        pictures: draw best and worst episodes of runs that have none yet, which takes some seconds each.
        say: told what is being done.

    Raises:
        UserError: naming the run or file that is wrong; nothing is written then.
    """
    study = read_document(paths[0] / "study.json", StudyDocument) if len(paths) == 1 else None
    if study is not None:
        write_target(output, ".html")
        title = f"{study.task}: study {study.name}"
        arms = study.load_arms(paths[0])
        return write_page(arms, output, title=title, description=study.description, pictures=pictures, say=say)
    files = [path for path in paths if path.is_file()]
    runs = [path for path in paths if path not in files]
    if not runs:
        raise UserError(f"{files[0] if files else 'report'}: expected at least one run directory of `simreal train`")
    write_target(output, ".html")
    found = [(path, read_figures(path)) for path in files]
    comparisons = [each for _, each in found if isinstance(each, Comparison)]
    figures = [(path, each) for path, each in found if isinstance(each, Evaluation)]
    return write_page(load_arms(runs, figures), output, pictures=pictures, comparisons=comparisons, say=say)


def write_page(
    arms: Sequence[Arm],
    output: Path,
    title: str | None = None,
    description: str = "",
    pictures: bool = True,
    comparisons: Sequence[Comparison] = (),
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Write the page about arms; `description` comes before the verdict, `say` is told what is being done."""
    tasks = sorted({run.config.task for arm in arms for run in arm.runs})
    if len(tasks) > 1:
        raise UserError(f"a report is about one task, got runs of {', '.join(tasks)}")
    names = arms[0].name if len(arms) == 1 else f"{len(arms)} arms"
    clips, missing = [], []
    filmed = list(arms) if len(arms) <= _FILMED else [arms[0], *arms[1 - _FILMED :]]
    for arm in filmed:
        found, sentence = find_clips(arm.first, pictures, say)
        clips += found
        missing.append(sentence)
    unseen = [arm.name for arm in arms if arm not in filmed]
    missing.append(f"Not shown, to keep the page small: {', '.join(unseen)}." if unseen else "")
    content = [
        ("transfer", "Worlds", sections.transfer(arms, comparisons)),
        ("learning", "Learning", sections.learning(arms)),
        ("randomization", "Randomization", sections.randomization(arms)),
        ("envelope", "Envelope", sections.envelope(arms)),
        ("episodes", "Episodes", sections.episodes(clips, missing, _FOOTAGE_BYTES)),
        ("simulation", "Health of the simulation", sections.simulation(arms)),
        ("health", "Health of the learner", sections.health(arms)),
        ("setup", "Setup", sections.setup(arms)),
    ]
    say("drawing figures")
    context = {"arms": arms, "measure": arms[0].first.measure, "groups": worlds_by_group(arms)}
    shown = [(key, heading, render(key, context | found)) for key, heading, found in content if found is not None]
    judged = render("verdict", context | verdict(arms))
    return write_sections(output, title or f"{tasks[0]}: {names}", description, judged, shown)


def write_sections(
    output: Path, title: str, description: str, verdict: Markup, shown: Sequence[tuple[str, str, Markup]]
) -> Path:
    """Write a page of sections: their key, their heading, and what is in them."""
    page = {
        "title": title,
        "description": description,
        "verdict": verdict,
        "sections": shown,
        "version": __version__,
        "python": platform.python_version(),
    }
    write_text(output, render("page", page))
    return output


def render(name: str, content: dict[str, Any]) -> Markup:
    """A template of this package, filled; all text in it is escaped."""
    return Markup(_TEMPLATES.get_template(f"{name}.html").render(content))


def _breaking(name: str) -> Markup:
    """A name that may be broken after its underscores."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _data_uri(path: Path, kind: str) -> str:
    """A file as part of the page."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "percent": words.percent, "signed": words.signed, "span": words.span, "grouped": "{:,}".format,
    "group": GROUPS.__getitem__, "dict": vars, "entropy": entropy, "breaking": _breaking, "data_uri": _data_uri,
}  # fmt: skip
_TEMPLATES.globals |= {
    "SAMPLERS": words.SAMPLERS, "cell": cell, "coloured": sections.coloured, "doubt": words.doubt,
    "seeds_of": words.seeds_of, "trained_for": words.trained_for, "unit_of": words.unit_of,
    "what_cells_say": words.what_cells_say,
}  # fmt: skip
