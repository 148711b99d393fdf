"""`simreal actuator`: a network of what actuators exert, from a robot's logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from envs.parts.actuator_network import FILE
from simreal.common.atomic_files import new_folder
from simreal.common.errors import UserError
from simreal.common.json_io import to_json
from simreal.common.logs import read_log
from simreal.identify.actuator.samples import actuator_log
from simreal.identify.actuator.training import Errors, Shape, packed, train


def actuator_command(
    paths: Sequence[Path],
    output: Path,
    signals: dict[str, str],
    joints: Sequence[str],
    stands_for: Sequence[str],
    shape: Shape,
    out: Console,
) -> None:
    """Train on logs, and write the network and its errors.

    Args:
        paths: of the logs.
        output: a new folder.
        signals: of the logs, by kind, where their names do not say.
        joints: patterns of those of the logs that are wanted.
        stands_for: patterns of the robot's joints that a shared network is for; empty: those of the logs.
        shape: of the network.
        out: where to say what is done.

    Raises:
        UserError: something is wrong with a log or an option; nothing is written then.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists; expected a new folder")
    if stands_for and shape.each:
        raise UserError("--for: is of one network that joints share; expected it without --each")
    logs = [actuator_log(read_log(paths[0]), signals, joints, None)]
    logs += [actuator_log(read_log(path), signals, joints, logs[0].step_s) for path in paths[1:]]
    for log in logs[1:]:
        if log.joints != logs[0].joints:
            raise UserError(f"{log.name}: its joints are {log.joints}, and those of {logs[0].name} {logs[0].joints}")
    step_s = logs[0].step_s
    if step_s > 1.001 * shape.period_s:
        raise UserError(f"{logs[0].name}: has a sample every {1e3 * step_s:.3g} ms; expected --period of at least that")
    shape = replace(shape, period_s=step_s * int(shape.period_s / step_s + 1e-6))  # whole samples
    seconds = sum(log.seconds for log in logs)
    seen = f"a history of {shape.samples} samples" if shape.kind == "mlp" else f"a memory of {shape.hidden} numbers"
    out.print(
        f"{len(logs[0].joints)} joints, {seconds:.1f} s, every {1e3 * step_s:.3g} ms; {seen}, samples "
        f"{1e3 * shape.period_s:.3g} ms apart"
    )
    networks, errors = train(logs, shape, out.print)
    about = {"logs": [path.name for path in paths], "seconds": seconds, "errors": _summary(errors)}
    document = asdict(errors) | {"shape": asdict(shape), **about}
    with new_folder(output) as folder:
        (folder / FILE).write_bytes(packed(networks, stands_for or logs[0].joints, shape, about))
        (folder / "actuator.json").write_text(to_json(document))
    _say(errors, output, out)


def _summary(errors: Errors) -> dict[str, float]:
    names = ("network", "dc_motor", "ideal_pd", "spread")
    return {f"{name}_rms_nm": errors.overall(name) for name in names} | {"held_back_s": errors.held_back_s}


def _say(errors: Errors, output: Path, out: Console) -> None:
    width = max(len("all joints"), *(len(joint) for joint in errors.joints))
    out.print(f"\nerror of the torque on {errors.held_back_s:.1f} s that were held back, N m (RMS):")
    out.print(f"{'':{width}}  {'network':>9} {'DC motor':>9} {'ideal PD':>9} {'torque':>9}")
    kinds = ("network", "dc_motor", "ideal_pd", "spread")
    for i, joint in enumerate(errors.joints):
        out.print(f"{joint:{width}}  " + " ".join(f"{getattr(errors, kind)[i]:9.4g}" for kind in kinds))
    if len(errors.joints) > 1:
        out.print(f"{'all joints':{width}}  " + " ".join(f"{errors.overall(kind):9.4g}" for kind in kinds))
    if errors.overall("network") > errors.overall("dc_motor"):
        out.print(
            "note: a DC motor describes these actuators better: use motor_* quantities, or more and livelier logs"
        )
    out.print(f"\n{output}: simreal train CONFIG task_options.actuator={output}")
