"""`simreal identify` and `simreal excite`: from a robot's logs to the worlds that a policy is trained in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from envs.common.safe_yaml import FileError, read_yaml
from envs.task import Task
from envs.validation.health.subject import Subject
from randomization.parameters import Parameter, RandomizationError, build_parameters
from simreal.common.atomic_files import write_text
from simreal.common.errors import UserError
from simreal.common.json_io import to_json, write_target
from simreal.common.logs import read_log
from simreal.common.trusted_code import module_of, use_current_folder
from simreal.identify.answer.files import block, document, lines, world
from simreal.identify.excite.excitation import WORLDS, Excitations, Limits
from simreal.identify.identify import identify
from simreal.identify.measured.reading import recording_of
from simreal.identify.measured.recording import notes
from simreal.identify.rig import Rig, check_shown, held


def identify_command(
    name: str,
    rig: Rig,
    logs: list[Path],
    parameters: Path | None,
    output: Path,
    signals: dict[str, str],
    offset: float,
    piece_s: float,
    starts: int,
    seed: int,
    out: Console,
) -> None:
    """Fit the parameters and write what was found.

    Raises:
        UserError, TaskError: something is wrong with the task, a log or the parameters; nothing is written then.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists; expected a new folder")
    task, _ = _held(name, rig, floats=True)
    wanted = _wanted(task, parameters)
    recordings = [recording_of(read_log(path), task.model, signals) for path in logs]
    for recording in recordings:
        check_shown(name, task.model, recording)
        for line in notes(recording, task.model, [_driven(task, i) for i in range(recording.commands.shape[1])]):
            out.print(f"note: {line}")
    hinges = {task.model.joint(j).name for j in range(task.model.njnt)}
    joints = [joint for joint in recordings[0].tracks[0].joints if joint in hinges]  # a base has no encoder
    found = identify(
        task, recordings, wanted, offsets=[(joint, offset) for joint in joints] if offset else (), length_s=piece_s,
        starts=starts, seed=seed, say=lambda text: out.print(text, highlight=False),
    )  # fmt: skip
    seconds = sum(r.end_s - r.begin_s for r in recordings)
    heading = (
        f"simreal identify {name} {' '.join(path.name for path in logs)}\n95 % intervals of {seconds:.1f} s of log"
    )
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "identified.yaml", block(found, heading))
    write_text(output / "world.yaml", world(found, heading))
    write_text(output / "identified.json", to_json(document(found)))
    from simreal.identify.answer.page import write_page

    write_page(found, f"{name}: identified from {', '.join(path.name for path in logs)}", output / "identified.html")
    for line in lines(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(f"\n{output}/identified.yaml   a randomization block: copy it into your configuration")
    out.print(f"{output}/world.yaml        simreal evaluate RUN --world {output}/world.yaml")
    out.print(f"{output}/identified.html   residuals and trajectories")


def excite_command(
    name: str,
    rig: Rig,
    output: Path,
    parameters: Path | None,
    seconds: float,
    limits: Limits,
    rate_hz: float | None,
    band_hz: tuple[float, float],
    noise: tuple[float, float],
    draws: int,
    seed: int,
    out: Console,
) -> None:
    """Draw motions, say what the best one would tell, and write it as a table.

    Raises:
        UserError, TaskError: as for `identify_command`, or no motion stays within the limits; nothing is written then.
    """
    target = write_target(output, ".csv")
    task, start = _held(name, rig)
    wanted = _wanted(task, parameters)
    period = task.control_period_s if rate_hz is None else 1.0 / rate_hz
    excitations = Excitations(task, start(), wanted, limits, seconds, period, noise)
    best = excitations.best(draws, band_hz, seed, lambda text: out.print(text, highlight=False))
    titles = ["time", *(f"command/{actuator}" for actuator in best.actuators)]
    rows = np.column_stack((best.time, best.commands[:, list(best.columns)]))
    body = "\n".join(",".join(f"{value:.9g}" for value in row) for row in rows)
    write_text(target, ",".join(titles) + "\n" + body + "\n")
    out.print(
        f"\nin simulation, in the model's world and {WORLDS} others: at most {best.fastest:.2g} rad/s (m/s), "
        f"{best.strongest:.0%} of the largest force", highlight=False,
    )  # fmt: skip
    width = max(len(k.unknown.name) for k in best.promise.of)
    for k in best.promise.of:
        span = f"within {(k.high - k.low) / 2.0:.2g} {k.unknown.unit}" if k.told else "not told"
        out.print(f"{k.unknown.name:{width}}  {span}", markup=False, highlight=False)
    for line in best.promise.combinations:
        out.print(f"not told apart: {line}", markup=False, highlight=False)
    out.print(f"\n{target}: commands, each held until the next. Play them, record joints and commands, then")
    out.print(f"  simreal identify {name}{rig.said()} LOG --output identified")


def _driven(task: Task, column: int) -> str:
    """The actuator of a column of ctrl."""
    addresses = task.model.actuator_ctrladr.tolist()
    return task.model.actuator(max(i for i, first in enumerate(addresses) if first <= column)).name


def _held(name: str, rig: Rig, floats: bool = False) -> tuple[Task, Callable[[], Subject]]:
    if module_of(name) is not None:
        use_current_folder()
    return held(name, rig, floats)


def _wanted(task: Task, parameters: Path | None) -> list[Parameter]:
    """The parameters that are looked for. Raises UserError."""
    try:
        wanted = build_parameters(task, suggested(task) if parameters is None else _entries(parameters))
    except RandomizationError as error:
        raise UserError(f"{parameters or 'parameters'}: {error}") from None
    for parameter in wanted:
        if parameter.quantity != "action_delay" and not parameter.writes:
            raise UserError(
                f"{parameters}: {parameter.name}: {parameter.quantity} is nothing that a log of joints and commands "
                "can tell; expected physical quantities and action_delay"
            )
        if parameter.mode == "spread":
            raise UserError(f"{parameters}: {parameter.name}: {parameter.quantity} is drawn anew in every episode")
        if parameter.limits[0] == parameter.limits[1]:
            raise UserError(f"{parameters}: {parameter.name}: its range is one value, there is nothing to find")
    return wanted


def suggested(task: Task) -> dict[str, Any]:
    """What is looked for where nobody says: friction, damping, rotor and servo of every driven joint, and the delay."""
    from envs.validation.drives import find_drive

    model = task.model
    entries: dict[str, Any] = {}
    for i in range(model.nactuator):
        drive = find_drive(model, i)
        if drive is None or drive.joint is None:
            continue
        joint, dof = model.joint(drive.joint).name, int(model.jnt_dofadr[drive.joint])
        if not joint:
            continue
        for label, quantity, value in (
            ("damping", "joint_damping", model.dof_damping[dof]),
            ("friction", "joint_frictionloss", model.dof_frictionloss[dof]),
            ("rotor", "joint_armature", model.dof_armature[dof]),
        ):
            if value > 0.0:
                entries[f"{joint} {label}"] = {"quantity": quantity, "of": joint, "range": [0.25, 4.0]}
        if drive.follows == "position":
            entries[f"{drive.name} kp"] = {"quantity": "actuator_kp", "of": drive.name, "range": [0.5, 2.0]}
            if model.actuator_biasprm[drive.actuator, 2] != 0.0:
                entries[f"{drive.name} kd"] = {"quantity": "actuator_kd", "of": drive.name, "range": [0.5, 2.0]}
        else:
            entries[f"{drive.name} gain"] = {"quantity": "actuator_gain", "of": drive.name, "range": [0.5, 2.0]}
    return entries | {"action_delay": {"range": [0, 60]}}


def _entries(path: Path) -> dict[str, Any]:
    """The parameters of a YAML file: a whole configuration, a randomization block, or the entries alone."""
    try:
        content: Any = read_yaml(path)
    except FileError as error:
        raise UserError(f"{path}: {error}") from None
    for key in ("randomization", "parameters"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected parameters by name, as in a randomization block")
    return content
