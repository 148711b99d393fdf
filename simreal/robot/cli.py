"""The commands `simreal run` and `simreal robot`, as `simreal.cli.main` takes them; `commands` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_LARGEST_SEED = 2**63 - 1


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="an exported bundle")],
    topics: Annotated[
        list[str] | None, typer.Argument(metavar="[joint_states:=TOPIC commands:=TOPIC imu:=TOPIC]")
    ] = None,
    ros2: Annotated[bool, typer.Option("--ros2", help="the robot speaks ROS 2, at these topics")] = False,
    unitree: Annotated[bool, typer.Option("--unitree", help="the robot speaks Unitree's SDK2")] = False,
    domain: Annotated[int | None, typer.Option(help="of DDS; default ROS_DOMAIN_ID, or 0")] = None,
    interface: Annotated[str | None, typer.Option(help="of the network; 'lo': this machine, without multicast")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="then it ends, in the safe action")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="NAME=V,V", help="what no sensor shows")
    ] = None,
    safe: Annotated[str | None, typer.Option(help="hold, damp or zero_torque; default damp, if it can be said")] = None,
    joints: Annotated[str | None, typer.Option(help="order of array commands: names, or the controller's YAML")] = None,
    shared_clock: Annotated[bool, typer.Option("--shared-clock", help="the robot's clock agrees with ours")] = False,
    imu_mount: Annotated[str | None, typer.Option(metavar="W,X,Y,Z", help="turns the IMU's axes to its body's")] = None,
    log: Annotated[Path | None, typer.Option(help="rosbag2 directory, FILE.mcap or FILE.npz of every cycle")] = None,
    library: Annotated[Path | None, typer.Option(help="libpolicy.so of `export --c`, in place of ONNX Runtime")] = None,
    wait: Annotated[float, typer.Option(min=0, help="s for publishers, subscribers and first messages")] = 5.0,
) -> None:
    """Run a policy on a robot behind ROS 2 or Unitree messages; exit status 1 where it had to be stopped."""
    from simreal.robot.commands import run_command

    if not run_command(
        bundle, ros2, unitree, topics or [], domain, interface, seconds, inputs or [], safe, joints, shared_clock,
        imu_mount, log, wait, typer.echo, library,
    ):  # fmt: skip
        sys.exit(1)


def robot(
    task: Annotated[str, typer.Argument(metavar="TASK", help="an id of `simreal envs`, or go1")],
    port: Annotated[str, typer.Option(help="ros2 or unitree")] = "ros2",
    world: Annotated[str | None, typer.Option(help="world name or YAML file")] = None,
    domain: Annotated[int | None, typer.Option(help="of DDS; default ROS_DOMAIN_ID, or 0")] = None,
    interface: Annotated[str | None, typer.Option(help="of the network; 'lo': this machine, without multicast")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="then it ends")] = None,
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of the world and all chance")] = 0,
    timeout_ms: Annotated[float, typer.Option(min=1, help="without commands, after which it damps by itself")] = 100.0,
    log: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="write what really happened")] = None,
) -> None:
    """Be a robot in real time that others know through messages only."""
    typer.echo(f"{task}: starting ...")
    from simreal.robot.commands import robot_command

    robot_command(task, port, world, domain, interface, seconds, seed, 1e-3 * timeout_ms, log, typer.echo)
