"""`simreal robot` and `simreal run`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from envs.common.messages import nearest
from simreal.common.errors import UserError
from simreal.deploy import BundleError, Controller, Limits, Policy
from simreal.deploy.control.robot import SAFE_ACTIONS, SafeAction
from simreal.robot.dds import Bus
from simreal.robot.ros2 import TOPICS, Ros2Robot
from simreal.robot.unitree import UnitreeRobot

PortName = Literal["ros2", "unitree"]
Tell = Callable[[str], None]
_FAULTS = (
    "stale", "not_finite", "out_of_range", "lost", "limits", "stalled", "read_failed", "inputs_failed",
           "decide_failed", "write_failed")  # fmt: skip


def robot_command(
    task: str, port: str, world: str | None, domain: int | None, interface: str | None, seconds: float | None,
    seed: int, timeout_s: float, log: Path | None, tell: Tell,
) -> None:  # fmt: skip
    """Be a robot that others know through messages.

    Raises:
        UserError: the task, the world, the port or the domain is wrong.
        KeyboardInterrupt, SystemExit: it was interrupted, and has said how it went.
    """
    import torch

    from simreal.common.json_io import write_target
    from simreal.robot.process.loop import Loop
    from simreal.robot.process.ports import make_port
    from simreal.robot.process.simulation import Simulation

    if port not in get_args(PortName):
        raise UserError(f"--port: expected ros2 or unitree, got {port!r}{nearest(port, get_args(PortName))}")
    target = None if log is None else write_target(log, ".npz")
    torch.set_num_threads(1)
    bus = Bus(domain, interface)
    robot = Simulation(task, world, seed)
    speaks = make_port(port, robot, bus)
    loop = Loop(robot, speaks, timeout_s, seed, tell, record=target is not None)
    tell(
        f"{robot.task_id} in world {robot.world!r}, {1.0 / robot.timestep_s:.0f} Hz, domain {bus.domain}: "
        f"{speaks.topics}; stands until it is told something, damps after {timeout_s * 1e3:.0f} ms without a command"
    )
    report = loop.run(seconds)
    for line in report.lines():
        tell(line)
    if target is not None:
        loop.save(target)
        tell(f"{target}: what really happened, step by step")
    loop.leave()


def run_command(
    bundle: Path, ros2: bool, unitree: bool, topics: Sequence[str], domain: int | None, interface: str | None,
    seconds: float | None, inputs: Sequence[str], safe: str | None, order: str | None, shared_clock: bool,
    mount: str | None, record: Path | None, wait_s: float, tell: Tell, library: Path | None = None,
) -> bool:  # fmt: skip
    """Run a bundle's policy, or what was compiled of it, on a robot behind messages.

    Returns:
        Whether nothing had to stop it.

    Raises:
        UserError: the bundle, an option or the robot is wrong. Nothing has been sent then.
        KeyboardInterrupt, SystemExit: it was interrupted; the robot has been made safe.
    """
    if ros2 == unitree:
        raise UserError("expected --ros2 or --unitree: how is the robot spoken to?")
    if record is not None and record.exists():
        raise UserError(f"{record}: exists; name another --log")
    policy = _policy(bundle, library)
    given = _inputs(inputs, policy)
    turned = None if mount is None else _floats("--imu-mount", mount, 4)
    named = _topics(topics)
    bus = Bus(domain, interface)
    contract: dict[str, Any] = policy.contract
    options: dict[str, Any] = {"shared_clock": shared_clock, "mount": turned, "given": list(given), "wait_s": wait_s}
    if ros2:
        robot = Ros2Robot(contract, named, bus, order=None if order is None else joint_order(order), **options)
        if robot.command_kind == "array":
            tell(f"commands in the order {', '.join(robot.command_order)}; the controller's `joints` have to be these")
    else:
        if named or order:
            raise UserError("--unitree: takes no topics and no --joints: rt/lowstate, rt/lowcmd and the motors' order")
        robot = UnitreeRobot(contract, bus, **options)
    action = _safe(safe, robot.safe_actions)
    try:
        controller = Controller(
            policy, robot, inputs=given, record=record, safe=action, limits=Limits(wait_s=wait_s),
            on_event=lambda event: tell(str(event)),
        )  # fmt: skip
        try:
            controller.run(seconds)
        finally:
            _say(controller.report(), tell)
    except ValueError as error:
        raise UserError(str(error)) from None
    return not any(event.kind in _FAULTS for event in controller.events)


def _policy(bundle: Path, library: Path | None) -> Policy:
    try:
        policy = Policy.load(bundle, library=library)
    except BundleError as error:
        raise UserError(str(error)) from None
    if policy.layout.pictures is not None:
        raise UserError(f"{bundle}: looks at pictures, which simreal run does not carry; use simreal.deploy.Policy")
    return policy


def _safe(wanted: str | None, can: Sequence[SafeAction]) -> SafeAction:
    """The safe action: the one that is wanted; else to damp, where that can be said. Raises UserError."""
    if wanted is None:
        return "damp" if "damp" in can else can[0]
    for action in SAFE_ACTIONS:
        if action == wanted:
            if action not in can:
                raise UserError(f"--safe {action}: these commands cannot say that; they can say {' or '.join(can)}")
            return action
    raise UserError(f"--safe: expected {' or '.join(SAFE_ACTIONS)}, got {wanted!r}{nearest(wanted, SAFE_ACTIONS)}")


def _inputs(texts: Sequence[str], policy: Policy) -> dict[str, list[float]]:
    """Components that a user gives: "NAME=1,0,0". Raises UserError."""
    sizes = {entry["name"]: entry["shape"][0] for entry in policy.contract["observation"]}
    found: dict[str, list[float]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or name not in sizes:
            known = [entry["name"] for entry in policy.contract["observation"] if not entry.get("measured", True)]
            raise UserError(
                f"--input: expected NAME=VALUES, got {text!r}{nearest(name, sizes)}; inputs are: {', '.join(known)}"
            )
        found[name] = _floats(f"--input {name}", values, sizes[name])
    return found


def _floats(what: str, text: str, count: int) -> list[float]:
    values = list[float]()
    with suppress(ValueError):
        values = [float(value) for value in text.split(",")]
    if len(values) != count or not np.isfinite(values).all():
        raise UserError(f"{what}: expected {count} numbers with commas between them, got {text!r}")
    return values


def _topics(texts: Sequence[str]) -> dict[str, str]:
    """ROS 2's remappings, "joint_states:=/joint_states". Raises UserError."""
    found: dict[str, str] = {}
    for text in texts:
        key, walrus, topic = text.partition(":=")
        if not walrus or key not in TOPICS:
            raise UserError(
                f"expected {' or '.join(f'{k}:=TOPIC' for k in TOPICS)}, got {text!r}{nearest(key, TOPICS)}"
            )
        found[key] = topic
    return found


def joint_order(text: str) -> list[str]:
    """The joints of a forward command controller: names with commas between them, or its YAML file.

    Raises:
        UserError: the file has no list of `joints`, or several.
    """
    if not text.endswith((".yaml", ".yml")):
        return [name.strip() for name in text.split(",") if name.strip()]
    from simreal.training.run_config import read_yaml

    lists = _joint_lists(read_yaml(Path(text)))
    if len(lists) != 1:
        raise UserError(
            f"{text}: expected one list of `joints`, as of a forward_command_controller; it has {len(lists)}"
        )
    return lists[0]


def _joint_lists(document: Any) -> list[list[str]]:
    if not isinstance(document, Mapping):
        return []
    found = list[list[str]]()
    for key, value in document.items():
        if key == "joints" and isinstance(value, list) and all(isinstance(name, str) for name in value):
            found.append(value)
        else:
            found += _joint_lists(value)
    return found


def _say(report: Mapping[str, Any], tell: Tell) -> None:
    """The end of a run in a few lines."""
    times = report["times_s"]

    def between(name: str) -> str:
        t = times.get(name)
        return "-" if t is None else f"{t['p50'] * 1e3:.2f} / {t['p99'] * 1e3:.2f} / {t['max'] * 1e3:.2f} ms"

    tell(f"{report['cycles']} cycles of {report['control_period_s'] * 1e3:g} ms, {report['overruns']} overruns, "
         f"{report['skipped']} skipped; ends {report['state']}")  # fmt: skip
    tell(f"p50 / p99 / max: read-decide-write {between('read_decide_write')}, late {between('late')}, "
         f"age of the oldest sensor {between('sensor_age')}")  # fmt: skip
    if report["record"]:
        tell(f"log: {', '.join(f'{key} {value}' for key, value in report['record'].items() if value)}")


def export_controller(
    run: Path, bundle: Path, c: Path | None, output: Path, export: Callable[[Path], None], tell: Tell
) -> None:
    """Export a run's bundle and its policy in C, and write the source of a ros2_control controller around that.

    Args:
        run: the run directory.
        bundle: where the bundle is written.
        c: where the policy in C is written; None: nowhere else.
        output: the folder of the controller's package.
        export: writes the bundle, and the policy in C to a folder.
        tell: says what was written.

    Raises:
        UserError: the policy cannot be a controller, or `output` is in the way.
    """
    from simreal.export.source import ExportError
    from simreal.robot.ros2_control.writer import FOLDER, write_controller

    try:
        FOLDER.refuse_foreign(output)
    except ExportError as error:
        raise UserError(str(error)) from None
    for other in (run, bundle, *([] if c is None else [c])):
        if output.resolve() == other.resolve() or output.resolve() in other.resolve().parents:
            raise UserError(f"--ros2-control: {output}: is in the way of {other}; name another directory")
    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch) / "policy" if c is None else c
        export(code)
        write_controller(bundle, code, output)
    tell(f"{output}: the same as a ros2_control controller in C++")
