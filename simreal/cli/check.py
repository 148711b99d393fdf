"""`simreal check`: whether the simulation of a task or of a model file is sound."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.environment import Environment
from envs.registry import make_task
from envs.validation.health.checkup import checkup, sorted_out
from envs.validation.health.finding import Finding
from envs.validation.health.subject import (
    USUAL_PERIOD_S,
    Subject,
    subject_of_environment,
    subject_of_file,
    subject_of_task,
)
from simreal.common.atomic_files import write_text
from simreal.common.errors import UserError
from simreal.common.json_io import to_json, write_target
from simreal.common.trusted_code import module_of, use_current_folder

_FILES = (".xml", ".mjcf", ".urdf")
HEALTH = "health.json"  # in a run directory


def check_command(
    name: str, period_s: float | None, fastest: float | None, json_file: Path | None, out: Console
) -> bool:
    """Look at a task or a file, print what is wrong, write JSON. Returns whether nothing is.

    Raises:
        UserError, TaskError: there is no such task or file, or it cannot be simulated.
    """
    target = None if json_file is None else write_target(json_file, ".json")
    is_file = Path(name).suffix.lower() in _FILES
    if not is_file:
        if period_s is not None:
            raise UserError("--period: says how often a model file gets commands; a task says so itself")
        if module_of(name) is not None:
            use_current_folder()
    subject = subject_of_file(Path(name), period_s or USUAL_PERIOD_S) if is_file else subject_of_task(make_task(name))
    out.print(f"{name}: held still, random commands, every actuator moved, then random actions ...")
    task = None if subject.environment is None else subject.environment.task
    wrong, accepted = sorted_out(task, checkup(subject, fastest=None if fastest is None else {"rad": fastest}))
    for finding in wrong:
        out.print(f"{finding.kind.replace('_', ' ')}: {finding.line()}")
    for kind in dict.fromkeys(finding.kind for finding in accepted):
        assert task is not None
        count = sum(finding.kind == kind for finding in accepted)
        out.print(f"accepted ({count} x {kind.replace('_', ' ')}): {task.accepted[kind]}")
    out.print(_summary(subject, wrong))
    if target is not None:
        write_text(target, to_json(_document(subject, wrong, accepted)))
    return not wrong


def _summary(subject: Subject, wrong: list[Finding]) -> str:
    model = subject.model
    looked = f"{model.njnt} joints, {model.nactuator} actuators, physics steps of {model.opt.timestep:g} s, "
    looked += f"commands every {subject.period_s:g} s"
    if not wrong:
        return f"{subject.name}: nothing is wrong ({looked})"
    return f"{subject.name}: {len(wrong)} {'thing is' if len(wrong) == 1 else 'things are'} wrong ({looked})"


def _document(subject: Subject, wrong: list[Finding], accepted: list[Finding]) -> dict[str, Any]:
    return {
        "name": subject.name,
        "healthy": not wrong,
        "timestep_s": float(subject.model.opt.timestep),
        "control_period_s": subject.period_s,
        "findings": [asdict(finding) for finding in wrong],
        "accepted": [asdict(finding) for finding in accepted],
    }


def look_at(environment: Environment, run: Path) -> list[Finding]:
    """What is wrong with a simulation that is about to be learnt in, noted in RUN/health.json as well.

    Copies of the first environment are moved; what training meets has the same bits as without. A simulation that
    cannot be looked at (an engine without MuJoCo's data) is not.
    """
    try:
        wrong, accepted = sorted_out(environment.task, checkup(subject_of_environment(environment), short=True))
    except Exception:  # the training meets what is behind it, and says so
        return []
    document = {name: [asdict(f) for f in found] for name, found in (("findings", wrong), ("accepted", accepted))}
    write_text(run / HEALTH, to_json(document))
    return wrong
