"""The `simreal` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from envs.common.messages import warn_again
from simreal.adopt import cli as adoption
from simreal.common.errors import ElsewhereError, UserError
from simreal.evaluation import cli as evaluations
from simreal.identify import cli as identification
from simreal.identify.actuator import cli as actuators
from simreal.robot import cli as robots
from simreal.study import cli as studies
from simreal.vision import cli as vision
from simreal.vision.live import cli as viewing

app = typer.Typer(
    help="Train robot policies in MuJoCo under domain randomization, evaluate them, export them for the robot.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_out = Console(  # names of runs and worlds are text, whatever brackets they have
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110
)

Engine = Literal["cpu", "gpu", "drake", "pybullet", "newton"]
_EPISODES, _ENVELOPE_EPISODES = 100, 50
_LARGEST_SEED = 2**63 - 1
_INTERRUPTED = 130  # exit status
TaskCode = Annotated[
    str | None,
    typer.Option(metavar="MODULE:CLASS", help="the task's class, where a run names code that no package announces"),
]
RunOrBundle = Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="a run directory or an exported bundle")]


@app.callback()
def start() -> None:
    """Runs before every command; a user's task that it imports may ask Gymnasium for tasks."""
    from simreal import register

    register()


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="a YAML file, or the name of a shipped one")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key.sub=value ...]")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="where to write; default runs/NAME-N")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the newest checkpoint")] = False,
) -> None:
    """Train a policy, evaluate it and export it."""
    if os.environ.get("RANK", "0") == "0":  # of torchrun's; the others print nothing
        _out.print(f"{config}: reading ...")
    from simreal.cli.commands import train_command

    train_command(config, overrides or [], run_dir, resume, _out)


@app.command()
def evaluate(
    policies: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_BUNDLE ...",
            help="of one task; several: compared; 'random' is uniform actions, 'zero' action 0",
        ),
    ],
    world: Annotated[list[str] | None, typer.Option(help="world, group or YAML file; may be repeated")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="fresh ones in every world (100) or point (50)")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of the episodes")] = 1_000_003,
    baseline: Annotated[str | None, typer.Option(help="policy to compare the others with; default: the first")] = None,
    ranges_of: Annotated[Path | None, typer.Option(help="run whose ranges 'range', 'extremes' mean")] = None,
    envelope: Annotated[bool, typer.Option("--envelope", help="measure where the policy works")] = False,
    threshold: Annotated[float | None, typer.Option(min=0, max=0.999, help="--envelope: least success (0.8)")] = None,
    points: Annotated[int | None, typer.Option(min=2, help="--envelope: values of each parameter (9)")] = None,
    pair: Annotated[list[str] | None, typer.Option(help="--envelope: PARAMETER,PARAMETER; may be repeated")] = None,
    reach: Annotated[float | None, typer.Option(min=0, max=1000, help="--envelope: widths beyond ranges (1)")] = None,
    criterion: Annotated[str | None, typer.Option(help="--envelope: success, as 'return>=1000'")] = None,
    task: TaskCode = None,
    contract: Annotated[Path | None, typer.Option(help="YAML file: how an ONNX file of others is fed")] = None,
    engine: Annotated[Engine | None, typer.Option(help="plays every world; default: the world's own")] = None,
    task_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="of the task, in place of its training's; may be repeated"),
    ] = None,
) -> None:
    """Play fresh episodes and print how well policies do."""
    _out.print(f"{', '.join(map(str, policies))}: loading ...")
    from simreal.cli.commands import envelope_command, evaluate_command

    if not envelope:
        of_envelope = {"pair": pair, "criterion": criterion, "threshold": threshold, "points": points, "reach": reach}
        if given := next((name for name, value in of_envelope.items() if value is not None), None):
            raise UserError(f"--{given}: says what --envelope measures; give --envelope too")
        worlds = world or (["nominal", "trained"] if contract is None else ["nominal"])
        evaluate_command(
            policies, worlds, episodes or _EPISODES, seed, json_file, baseline, ranges_of, task, engine, _out,
            task_option, contract,
        )  # fmt: skip
        return
    from simreal.evaluation.envelope import EnvelopeSettings

    if len(policies) != 1 or world or baseline or engine or contract or task_option:
        raise UserError("--envelope: takes one run, and no --world, --baseline, --engine, --contract or --task-option")
    pairs = tuple(_two(names) for names in pair or ())
    settings = EnvelopeSettings(
        0.8 if threshold is None else threshold, points or 9, episodes or _ENVELOPE_EPISODES, pairs,
        1.0 if reach is None else reach, criterion, seed,
    )  # fmt: skip
    envelope_command(policies[0], settings, ranges_of, json_file, task, _out)


def _two(names: str) -> tuple[str, str]:
    first, comma, second = names.partition(",")
    if not comma or "," in second:
        raise UserError(f"--pair: expected PARAMETER,PARAMETER, got {names!r}")
    return first.strip(), second.strip()


@app.command()
def export(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="a run directory", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option(help="the bundle's directory; default RUN/bundle")] = None,
    c: Annotated[Path | None, typer.Option("--c", metavar="DIR", help="also write the policy as C99, to DIR")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="weights of the C code have 8 bits")] = False,
    int8_limit: Annotated[
        float | None, typer.Option(metavar="X", help="refuse 8 bits where they change an action by more; default 0.05")
    ] = None,
    ros2_control: Annotated[
        Path | None, typer.Option("--ros2-control", metavar="DIR", help="also write a ros2_control controller, in C++")
    ] = None,
    task: TaskCode = None,
) -> None:
    """Export a run's policy as a bundle for a robot controller, as C99, and as a ros2_control controller."""
    if run is None:
        taken = "" if c is None else f" (--c took {c} as the folder for C code)"
        raise UserError(
            f"RUN: expected a run directory{taken}: simreal export RUN{' --c DIR' if c is not None else ''}"
        )
    _out.print(f"{run}: loading ...")
    from simreal.cli.commands import export_command

    if ros2_control is None:
        export_command(run, output, task, _out, c, int8, int8_limit)
        return
    from simreal.robot.commands import export_controller

    export_controller(
        run, output or run / "bundle", c, ros2_control, lambda code: export_command(
            run, output, task, _out, code, int8, int8_limit), _out.print)  # fmt: skip


app.command()(identification.excite)
app.command()(identification.identify)
app.command()(actuators.actuator)
app.command()(studies.probe)
app.command()(studies.sweep)
app.command()(evaluations.solve)
app.command()(viewing.view)
app.command()(vision.render)
app.command()(vision.estimate)


@app.command()
def record(
    policy: RunOrBundle,
    output: Annotated[Path, typer.Option(metavar="FILE.npz", help="the file of transitions to write")],
    steps: Annotated[int, typer.Option(min=1, help="transitions, over all episodes")] = 10_000,
    noise: Annotated[
        float, typer.Option(min=0, max=1000, help="standard deviation of noise on actions in [-1, 1]")
    ] = 0.0,
    random: Annotated[float, typer.Option(min=0, max=1, help="share of actions that are uniformly random")] = 0.0,
    world: Annotated[str, typer.Option(help="world name or YAML file")] = "nominal",
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of episodes and exploration")] = 11,
    task: TaskCode = None,
) -> None:
    """Record what a policy does, for learning without an environment (algorithm fqi)."""
    _out.print(f"{policy}: loading ...")
    from simreal.cli.record import record_command

    record_command(policy, output, steps, noise, random, world, seed, task, _out)


@app.command()
def play(
    policy: RunOrBundle,
    video: Annotated[Path | None, typer.Option(help="write an MP4 or a GIF instead of opening a window")] = None,
    world: Annotated[str, typer.Option(help="world name or YAML file")] = "nominal",
    episodes: Annotated[int, typer.Option(min=1, help="episodes in the video")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=_LARGEST_SEED, help="of the episodes")] = 7,
    camera: Annotated[str, typer.Option(help="'view' or a camera of the model")] = "view",
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="of the video, 16 to 4096 pixels; or one number for both")
    ] = "480",
    task: TaskCode = None,
) -> None:
    """Show a policy in a window or a video."""
    _out.print(f"{policy}: loading ...")
    from simreal.training.run_directory import load_policy
    from simreal.vision.rendering.viewer import parse_size, save_video, watch

    width, height = parse_size(size)
    loaded = load_policy(policy, task)
    if video is None:
        watch(loaded, world, seed, camera)
    else:
        frames = save_video(loaded, video, world, episodes, seed, (width, height), camera, _out.print)
        _out.print(f"{video}: {frames} frames of {loaded.task_id}")


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN ...", help="run directories, a study, JSON of `simreal evaluate`")
    ],
    output: Annotated[Path, typer.Option(help="the HTML file")] = Path("report.html"),
    pictures: Annotated[bool, typer.Option(help="draw best and worst episodes that have not been drawn yet")] = True,
    task: TaskCode = None,
) -> None:
    """Write one self-contained HTML page about runs."""
    _out.print(f"reading {', '.join(run.name for run in runs)} ...")
    from simreal.common.trusted_code import trust
    from simreal.report import write_report
    from simreal.training.run_directory import is_estimator

    if task is not None:
        trust(task)
    say = lambda text: _out.print(f"{text} ...")  # noqa: E731
    if len(runs) == 1 and is_estimator(runs[0]):
        from simreal.vision.page import write_estimator_report

        written = write_estimator_report(runs[0], output, say)
    else:
        written = write_report(runs, output, pictures, say)
    _out.print(f"{written}: report of {', '.join(run.name for run in runs)}")


@app.command()
def study(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="a YAML file, or the name of a shipped one")],
    run_dir: Annotated[Path | None, typer.Option(help="where to write and to continue; default studies/NAME")] = None,
    pictures: Annotated[bool, typer.Option(help="draw best and worst episodes for the report")] = True,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="make the runs on this Ray cluster; 'local': on this machine")
    ] = None,
) -> None:
    """Make the runs, evaluations, table and report that a study describes, as far as they are missing."""
    from simreal.study.runner import study_command

    study_command(study, run_dir, pictures, _out, ray)


@app.command()
def envs() -> None:
    """List all tasks; then what installed packages add for any of them."""
    from envs.platform.entry_points import entry_points
    from envs.registry import task_ids

    for task_id in task_ids():
        _out.print(task_id)
    for kind in ("learner", "quantity"):
        for entry in entry_points("simreal.learners" if kind == "learner" else "simreal.quantities"):
            _out.print(f"# {kind} {entry.name}, of {entry.module}", highlight=False)


@app.command()
def describe(
    task: Annotated[str, typer.Argument(metavar="TASK", help="an id of `simreal envs`, MODULE:CLASS or gymnasium:ID")],
    image: Annotated[Path | None, typer.Option(help="write a picture of 5 x 5 sampled worlds instead")] = None,
    randomization: Annotated[
        Path | None, typer.Option(help="YAML file with the worlds of --image; default: everything visual")
    ] = None,
    camera: Annotated[str, typer.Option(help="of --image: 'view' or a camera of the model")] = "view",
    as_yaml: Annotated[bool, typer.Option("--yaml", help="print a `randomization:` block to start from")] = False,
    group: Annotated[list[str] | None, typer.Option(help="of quantities, as 'physics': only these")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all of it to this file instead")] = None,
) -> None:
    """Show what a task observes, does and lets vary."""
    print(f"{task}: loading ...", file=sys.stderr if as_yaml else sys.stdout, flush=True)
    from envs.registry import make_task
    from simreal.cli.describe import describe as show
    from simreal.common.trusted_code import module_of, use_current_folder

    if module_of(task) is not None:
        use_current_folder()
    if image is not None:
        from simreal.vision.rendering.contact_sheet import save_sheet

        save_sheet(image, task, randomization, camera)
        _out.print(f"{image}: the nominal world of {task} and 24 sampled ones")
        return
    if randomization is not None or camera != "view":
        raise UserError("--randomization and --camera say what --image shows; give --image FILE.png too")
    if as_yaml:
        from simreal.cli.suggest import suggested_yaml

        print(suggested_yaml(make_task(task)), end="")
        return
    if json_file is not None:
        from simreal.cli.describe import description
        from simreal.common.atomic_files import write_text
        from simreal.common.json_io import to_json, write_target

        target = write_target(json_file, ".json")
        write_text(target, to_json(description(make_task(task), group or ())))
        _out.print(f"{json_file}: what {task} observes, does and lets vary")
        return
    width = None if sys.stdout.isatty() else 200
    show(make_task(task), Console(highlight=False, width=width), group or ())


@app.command()
def check(
    task: Annotated[str, typer.Argument(metavar="TASK", help="an id, MODULE:CLASS, gymnasium:ID, or an MJCF file")],
    period: Annotated[float | None, typer.Option(min=1e-6, max=10, help="of a file: s between two commands")] = None,
    max_speed: Annotated[float | None, typer.Option(min=0, help="of hinges, rad/s, under random actions (200)")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write what was found to this file")] = None,
) -> None:
    """Find what is wrong with a simulation; exit status 1 where something is."""
    _out.print(f"{task}: loading ...")
    from simreal.cli.check import check_command

    if not check_command(task, period, max_speed, json_file, _out):
        sys.exit(1)


@app.command()
def audit(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="the bundle that ran on the robot")],
    log: Annotated[Path, typer.Argument(metavar="LOG", help="MCAP, rosbag2, CSV or .npz")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write what was found to this file")] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COMPONENT=TOPIC", help="a signal of the log, TOPIC:FIELD; may be repeated"),
    ] = None,
    simulate: Annotated[bool, typer.Option(help="compare with the policy in simulation")] = True,
) -> None:
    """Find what is wrong on a robot by its log; exit status 1 where something is."""
    from simreal.cli.audit import audit_command

    if not audit_command(bundle, log, pairs or [], simulate, json_file, _out):
        sys.exit(1)


@app.command()
def new(
    robot: Annotated[Path, typer.Argument(metavar="ROBOT.xml", help="the MJCF of a robot")],
    output: Annotated[Path | None, typer.Option(help="folder to write; default: the robot's name")] = None,
) -> None:
    """Write a task, a configuration and a randomization block to start from."""
    _out.print(f"{robot}: loading ...")
    from simreal.adopt.new import new_command

    new_command(robot, output, _out)


app.command()(adoption.adopt)
app.command()(robots.run)
app.command()(robots.robot)


@app.command()
def schema() -> None:
    """Print the JSON schema of configurations, for editors."""
    import json

    from simreal.training.run_config import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=2))


@app.command()
def bench(
    configs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG ...]", help="YAML files or shipped ones; default: three of them"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
) -> None:
    """Measure how fast tasks step and policies learn on this machine."""
    from simreal.cli.bench import bench_command

    bench_command(configs or [], json_file, _out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit status: 0 done, 1 `check` or `audit` found something, 2 wrong input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    warn_again()
    try:
        status = app(args=given or ["--help"], standalone_mode=False)
    except KeyboardInterrupt:
        _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        _report(error)
    else:
        if status == _INTERRUPTED:  # newer versions of Typer return it in place of raising KeyboardInterrupt
            _fail("interrupted", _INTERRUPTED)


def _report(error: Exception) -> None:
    """One line on stderr for what the user can mend; anything else is our fault and shows its traceback."""
    from envs.common.ranks import LostRankError
    from envs.engines.base import EngineError
    from envs.registry import TaskError
    from randomization.parameters import RandomizationError
    from simreal.training.trainer import Interrupted

    if isinstance(error, LostRankError):
        _fail(str(error), 1)
    if isinstance(error, ElsewhereError):
        _fail("", 2)
    if isinstance(error, Interrupted):
        _fail(str(error), _INTERRUPTED)
    if isinstance(error, typer.Abort):
        _fail("interrupted", _INTERRUPTED)
    describe_usage = getattr(error, "format_message", None)  # typer's own errors about arguments
    if describe_usage is not None:
        _fail(describe_usage(), 2)
    if isinstance(error, (UserError, TaskError, RandomizationError, EngineError)):
        _fail(str(error), 2)
    raise error


def _fail(message: str, status: int) -> None:
    if message:  # else another rank of the run tells it
        print(f"simreal: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
