"""Task ids and how to build them. Importing this module imports no task, no torch and no MuJoCo.

A task is named in one of three ways:

- by an id: simreal's own, those given to `register_task`, and those that installed packages announce as entry points
  of the group `simreal.tasks`;
- by `module:Class`, a subclass of `Task` in any module that Python finds;
- by `gymnasium:ID`, an environment of Gymnasium that holds an mjModel and an mjData.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.common.errors import TaskError, UnknownOptionError, UnknownTaskError
from envs.common.messages import near_file, nearest
from envs.platform.entry_points import entry_points

if TYPE_CHECKING:
    from envs.task import Task

ENTRY_POINTS = "simreal.tasks"
_GYMNASIUM = "gymnasium"
# A builder is a callable, or "module:callable" to be imported when the task is made; options are its arguments.
_TASKS: dict[str, tuple[str | Callable[..., Any], dict[str, Any]]] = {}
_listeners: list[Callable[[str], object]] = []


def register_task(task_id: str, build: str | Callable[..., Any], **options: Any) -> None:
    """Make a task available.

    Args:
        task_id: its id.
        build: a Task class or function that returns a Task, or "module:name" of one.
        options: arguments of `build`.

    Raises:
        ValueError: the id is taken.
    """
    if task_id in _TASKS:
        raise ValueError(f"task {task_id!r} is registered already")
    _TASKS[task_id] = (build, options)
    for listener in _listeners:
        listener(task_id)


def tell_of_new_tasks(listener: Callable[[str], object]) -> None:
    """From now on call `listener` with the id of every task that is registered."""
    _listeners.append(listener)


def announced_tasks() -> dict[str, list[EntryPoint]]:
    """Tasks of installed packages by id; nothing of theirs is imported. Ids of `register_task` come first."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(ENTRY_POINTS):
        if entry.name not in _TASKS and entry not in found.setdefault(entry.name, []):
            found[entry.name].append(entry)
    return {name: entries for name, entries in found.items() if entries}


def task_ids() -> list[str]:
    """Every task id, in order of registration; those of installed packages last."""
    return [*_TASKS, *announced_tasks()]


def check_task_id(task_id: str) -> None:
    """Raise UnknownTaskError unless `task_id` exists; a `module:Class` is looked at by `make_task`."""
    named, colon, name = task_id.partition(":")
    if task_id in _TASKS or (colon and not named.endswith(".py")):
        return
    announced = announced_tasks()
    if task_id not in announced:
        if (told := _of_file(Path(named), name)) is not None:
            raise UnknownTaskError(f"task: {task_id}: {told}")
        known = [*_TASKS, *announced]
        raise UnknownTaskError(
            f"task: unknown task {task_id!r}{nearest(task_id, known)}; `simreal envs` lists all tasks"
        )
    if len(announced[task_id]) > 1:
        values = " and ".join(entry.value for entry in announced[task_id])
        raise TaskError(f"task: {task_id!r} is announced by two packages, as {values}; name one of these instead")


def _of_file(path: Path, name: str) -> str | None:
    """What to say of a path in the place of a task; None where it is none."""
    kind = path.suffix.lower()
    if kind == ".py":
        if not path.is_file():
            return f"no such file{near_file(path)}; expected an id or MODULE:CLASS"
        classes = re.findall(r"^class (\w+)\(.*Task\b", path.read_text(errors="replace"), re.MULTILINE) or ["CLASS"]
        module = ".".join(path.with_suffix("").parts[-1:])
        where = "" if path.parent == Path() else f" in the folder {path.parent}"
        return f"is a file; expected an id or MODULE:CLASS, as {module}:{name or classes[-1]}{where}"
    if kind in (".yaml", ".yml"):
        if not path.is_file():
            return f"no such file{near_file(path)}; expected an id or MODULE:CLASS"
        found = re.search(r"^task:\s*['\"]?([^\s'\"#]+)", path.read_text(errors="replace"), re.MULTILINE)
        return "is a YAML file; expected a task" + (f", as {found[1]}, which it names" if found else "")
    if kind in (".xml", ".mjcf", ".urdf"):
        exists = "is a model" if path.is_file() else f"no such file{near_file(path)}"
        return f"{exists}; expected a task: `simreal new ROBOT.xml` writes one for a model"
    return None


def make_task(task_id: str, **options: Any) -> Task:
    """Build a task; options override those it was registered with.

    Every task that leaves its controls to the engine has the option `actuator`: the folder of a network that says what
    its actuators exert, see `envs.parts.actuator_network`.

    Raises:
        UnknownTaskError: the id, the module or the class does not exist; names the nearest.
        UnknownOptionError: an option does not exist; names the nearest.
        TaskError: an option is of a wrong type, or what was found is not a task that can be used.
    """
    check_task_id(task_id)
    if task_id.startswith(f"{_GYMNASIUM}:"):
        from envs.gymnasium_adapter.task import AdaptedTask

        return build_task(task_id, partial(AdaptedTask, task_id.partition(":")[2]), options)
    build, registered = _builder(task_id)
    return build_task(task_id, build, registered | options)


def build_task(task_id: str, build: Callable[..., Any], options: dict[str, Any]) -> Task:
    """Call what makes a task with options, and check the options before and the task afterwards; errors as above."""
    from envs.parts.actuator_network import load_actuator
    from envs.validation.task_contract import check_task
    from envs.validation.task_options import checked_options

    actuator = options.get("actuator")
    options = {name: value for name, value in options.items() if name != "actuator"}

    parameters = inspect.signature(build).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    unknown = [name for name in options if name not in known]
    if unknown and len(known) == len(parameters):
        raise UnknownOptionError(
            f"{task_id}: unknown option {unknown[0]!r}{nearest(unknown[0], known)}; "
            f"there are: {', '.join(known) or 'none'}"
        )
    task = check_task(task_id, build(**checked_options(task_id, build, options)))
    if actuator is not None:
        if "ctrl" not in task.command_fields:
            raise TaskError(f"task_options: actuator: {task_id} leaves no controls to the engine")
        task.actuator = load_actuator(actuator)
        task.actuator.drives(task.model)
    return task


def _builder(task_id: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What makes a task, and the options it is registered with."""
    if task_id in _TASKS:
        build, options = _TASKS[task_id]
        return (_load(task_id, build) if isinstance(build, str) else build), options
    if ":" in task_id:
        from envs.validation.task_contract import check_class

        return check_class(task_id, _load(task_id, task_id)), {}
    entry = announced_tasks()[task_id][0]
    return _load(task_id, f"{entry.module}:{entry.attr}"), {}


def _load(task_id: str, value: str) -> Any:
    """The object that "module:name" names. Raises UnknownTaskError if there is none, TaskError if it is broken."""
    module_name, _, name = value.partition(":")
    label = f"task: {task_id}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise UnknownTaskError(f"{label}: Python finds no module {missing!r}") from None
        raise TaskError(f"{label}: module {module_name!r} needs {missing!r}, which is not installed") from None
    except (Exception, SystemExit) as error:
        raise TaskError(f"{label}: importing {module_name!r} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None) if name.isidentifier() else None
    if found is None:
        known = [key for key in vars(module) if not key.startswith("_")]
        raise UnknownTaskError(f"{label}: module {module_name!r} has no {name!r}{nearest(name, known)}")
    return found


for _family in ("FetchReach", "FetchPush", "FetchSlide", "FetchPickAndPlace"):
    for _dense in (False, True):
        register_task(
            f"{_family}{'Dense' if _dense else ''}-v4",
            "envs.manipulation.fetch:FetchTask",
            family=_family,
            dense=_dense,
        )

for _dense in (False, True):
    _suffix = "Dense" if _dense else ""
    register_task(f"HandReach{_suffix}-v3", "envs.manipulation.shadow_hand.reach:HandReachTask", dense=_dense)
_GOALS: dict[str, dict[str, tuple[str, str]]] = {  # object: name of the task: position and rotation of its goals
    "Block": {
        "RotateZ": ("ignore", "z"), "RotateParallel": ("ignore", "parallel"), "RotateXYZ": ("ignore", "xyz"),
        "Full": ("random", "xyz"), "": ("random", "xyz"),
    },
    "Egg": {"Rotate": ("ignore", "xyz"), "Full": ("random", "xyz"), "": ("random", "xyz")},
    "Pen": {"Rotate": ("ignore", "xyz"), "Full": ("random", "xyz"), "": ("random", "xyz")},
}  # fmt: skip
_TOUCH = {"": None, "_BooleanTouchSensors": "boolean", "_ContinuousTouchSensors": "sensordata"}
for _object, _goals in _GOALS.items():
    for _name, (_position, _rotation) in _goals.items():
        for _sensors, _touch in _TOUCH.items():
            if _name == "Full" and _touch:
                continue
            for _dense in (False, True):
                _id = f"HandManipulate{_object}{_name}{_sensors}{'Dense' if _dense else ''}-v1"
                register_task(
                    _id, "envs.manipulation.shadow_hand.manipulate:HandManipulateTask",
                    object_name=_object, target_position=_position, target_rotation=_rotation, touch=_touch,
                    dense=_dense, name=_id,
                )  # fmt: skip
for _name in ("Door", "Hammer", "Pen", "Relocate"):
    for _sparse in (False, True):
        register_task(
            f"AdroitHand{_name}{'Sparse' if _sparse else ''}-v1",
            f"envs.manipulation.adroit.tasks:AdroitHand{_name}Task",
            sparse=_sparse,
        )

_GYMNASIUM_V5 = {
    "planar": ("HalfCheetah", "Hopper", "Walker2d", "Swimmer"),
    "free": ("Ant", "Humanoid", "HumanoidStandup"),
    "arms": ("Reacher", "Pusher", "InvertedPendulum", "InvertedDoublePendulum"),
}
for _kind, _names in _GYMNASIUM_V5.items():
    for _name in _names:
        register_task(f"{_name}-v5", f"envs.locomotion.gymnasium_v5.{_kind}:{_name}Task")

register_task("Go1Velocity-v0", "envs.locomotion.go1.velocity:Go1VelocityTask")
for _hand in ("allegro", "shadow"):
    register_task(f"{_hand.capitalize()}Cube-v0", "envs.manipulation.cube.reorientation:CubeReorientation", hand=_hand)
register_task("RubiksCube-v0", "envs.manipulation.rubiks.task:RubiksCube")
