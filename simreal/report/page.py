"""Puts the page together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simreal.documents import write_target
from simreal.errors import UserError
from simreal.files import write_text
from simreal.report import sections
from simreal.report.footage import find_clips
from simreal.report.html import page, paragraph
from simreal.report.records import Arm, Comparison, StudyDocument, load_arms, read_document
from simreal.report.verdict import verdict

_FOOTAGE_BYTES = 3_500_000  # of videos in one page
_FILMED = 4  # arms whose episodes are shown


def write_report(paths: Sequence[Path], output: Path, pictures: bool = True) -> Path:
    """Write one page about runs.

    Args:
        paths: run directories, and JSON files that `simreal evaluate A B --json FILE` wrote; or the folder of a study.
        output: the HTML file.
        pictures: draw best and worst episodes of runs that have none yet, which takes some seconds each.

    Raises:
        UserError: naming the run or file that is wrong; nothing is written then.
    """
    study = read_document(paths[0] / "study.json", StudyDocument) if len(paths) == 1 else None
    if study is not None:
        write_target(output)
        head = paragraph(study.description) if study.description else ""
        title = f"{study.task}: study {study.name}"
        return write_page(study.load_arms(paths[0]), output, title=title, head=head, pictures=pictures)
    files = [path for path in paths if path.is_file()]
    runs = [path for path in paths if path not in files]
    if not runs:
        raise UserError(f"{files[0] if files else 'report'}: expected at least one run directory of `simreal train`")
    write_target(output)
    comparisons = [found for path in files if (found := read_document(path, Comparison)) is not None]
    return write_page(load_arms(runs), output, pictures=pictures, comparisons=comparisons)


def write_page(
    arms: Sequence[Arm],
    output: Path,
    title: str | None = None,
    head: str = "",
    pictures: bool = True,
    comparisons: Sequence[Comparison] = (),
) -> Path:
    """Write the page about arms; `head` is HTML that comes before the verdict."""
    tasks = sorted({run.config.task for arm in arms for run in arm.runs})
    if len(tasks) > 1:
        raise UserError(f"a report is about one task, got runs of {', '.join(tasks)}")
    names = arms[0].name if len(arms) == 1 else f"{len(arms)} arms"
    clips, missing = [], []
    filmed = list(arms) if len(arms) <= _FILMED else [arms[0], *arms[1 - _FILMED :]]
    for arm in filmed:
        found, sentence = find_clips(arm.first, pictures)
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
        ("health", "Health of the learner", sections.health(arms)),
        ("setup", "Setup", sections.setup(arms)),
    ]
    write_text(output, page(title or f"{tasks[0]}: {names}", content, head + verdict(arms), sections.footer()))
    return output
