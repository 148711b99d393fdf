"""simreal: train robot policies in MuJoCo under automatic domain randomization, and export them for the robot.

Everything that users call is here; `envs` and `randomization` are simreal's own lower floors. Importing this
module is cheap: torch and MuJoCo are loaded when something that needs them is used, and a robot controller
that only has numpy and onnxruntime can import `simreal.deploy`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simreal.common.version import __version__

_PUBLIC = {
    "train": "simreal.cli.functions",
    "evaluate": "simreal.cli.functions",
    "load": "simreal.cli.functions",
    "LoadedPolicy": "simreal.training.run_directory",
    "make_vec": "simreal.gym.vector",
    "VecEnv": "simreal.gym.vector",
    "ADR": "randomization.samplers.adr",
    "Parameter": "randomization.parameters",
    "make_environment": "simreal.training.build",
    "make_task": "envs.registry",
    "register_task": "envs.registry",
    "Task": "envs.task",
    "Component": "envs.task",
    "ActionComponent": "envs.task",
    "Outcome": "envs.task",
    "Mark": "envs.common.step_records",
    "Mirror": "envs.task",
    "compile_spec": "envs.task",
    "ComposedTask": "envs.parts.composed",
    "JointPosition": "envs.parts.actions",
    "JointVelocity": "envs.parts.actions",
    "JointTorque": "envs.parts.actions",
    "EndEffectorDelta": "envs.parts.actions",
    "JointState": "envs.parts.observations",
    "BodyPose": "envs.parts.observations",
    "Imu": "envs.parts.observations",
    "LastAction": "envs.parts.observations",
    "LastTarget": "envs.parts.observations",
    "Command": "envs.parts.observations",
    "Goal": "envs.parts.observations",
    "LeggedVelocity": "envs.locomotion.legged.velocity",
    "LeggedRobot": "envs.locomotion.legged.robot",
    "Foot": "envs.locomotion.legged.robot",
    "Gait": "envs.locomotion.legged.gait",
    "Reach": "envs.robots.reach",
    "Hold": "envs.robots.hold",
    "Servo": "envs.robots.servos",
    "put_servos": "envs.robots.servos",
    "load_robot": "envs.platform.menagerie",
    "robot_path": "envs.platform.menagerie",
    "TaskError": "envs.registry",
    "register_learner": "simreal.learners.registry",
    "Learner": "simreal.learners.base",
    "LearnerSpec": "simreal.learners.base",
    "LearnerOptions": "simreal.learners.options",
    "register_quantity": "randomization.catalogue.table",
    "Quantity": "randomization.catalogue.quantity",
    "Effect": "randomization.effects.effect",
    "EffectContext": "randomization.effects.context",
    "Observed": "envs.environment",
    "StepResult": "envs.environment",
    "GpuOptions": "envs.engines.gpu.options",
    "UserError": "simreal.common.errors",
    "load_estimator": "simreal.vision.estimator.loading",
    "Estimator": "simreal.vision.estimator.loading",
}
__all__ = [
    "ADR",
    "ActionComponent",
    "BodyPose",
    "Command",
    "Component",
    "ComposedTask",
    "Effect",
    "EffectContext",
    "EndEffectorDelta",
    "Estimator",
    "Foot",
    "Gait",
    "Goal",
    "GpuOptions",
    "Hold",
    "Imu",
    "JointPosition",
    "JointState",
    "JointTorque",
    "JointVelocity",
    "LastAction",
    "LastTarget",
    "Learner",
    "LearnerOptions",
    "LearnerSpec",
    "LeggedRobot",
    "LeggedVelocity",
    "LoadedPolicy",
    "Mark",
    "Mirror",
    "Observed",
    "Outcome",
    "Parameter",
    "Quantity",
    "Reach",
    "Servo",
    "StepResult",
    "Task",
    "TaskError",
    "UserError",
    "VecEnv",
    "__version__",
    "compile_spec",
    "deploy",
    "evaluate",
    "load",
    "load_estimator",
    "load_robot",
    "make_environment",
    "make_task",
    "make_vec",
    "put_servos",
    "register_learner",
    "register_quantity",
    "register_task",
    "robot_path",
    "testing",
    "train",
]

if TYPE_CHECKING:
    from envs.common.step_records import Mark
    from envs.engines.gpu.options import GpuOptions
    from envs.environment import Observed, StepResult
    from envs.locomotion.legged.gait import Gait
    from envs.locomotion.legged.robot import Foot, LeggedRobot
    from envs.locomotion.legged.velocity import LeggedVelocity
    from envs.parts.actions import EndEffectorDelta, JointPosition, JointTorque, JointVelocity
    from envs.parts.composed import ComposedTask
    from envs.parts.observations import BodyPose, Command, Goal, Imu, JointState, LastAction, LastTarget
    from envs.platform.menagerie import load_robot, robot_path
    from envs.registry import TaskError, make_task, register_task
    from envs.robots.hold import Hold
    from envs.robots.reach import Reach
    from envs.robots.servos import Servo, put_servos
    from envs.task import ActionComponent, Component, Mirror, Outcome, Task, compile_spec
    from randomization.catalogue.quantity import Quantity
    from randomization.catalogue.table import register_quantity
    from randomization.effects.context import EffectContext
    from randomization.effects.effect import Effect
    from randomization.parameters import Parameter
    from randomization.samplers.adr import ADR
    from simreal import deploy, testing
    from simreal.cli.functions import evaluate, load, train
    from simreal.common.errors import UserError
    from simreal.gym.vector import VecEnv, make_vec
    from simreal.learners.base import Learner, LearnerSpec
    from simreal.learners.options import LearnerOptions
    from simreal.learners.registry import register_learner
    from simreal.training.build import make_environment
    from simreal.training.run_directory import LoadedPolicy
    from simreal.vision.estimator.loading import Estimator, load_estimator


def _check_floors() -> None:
    """Raise ImportError if `envs` or `randomization` would come from, or came from, another package."""
    root = Path(__file__).resolve().parent.parent
    for name in ("envs", "randomization"):
        module = sys.modules.get(name)
        if module is not None:
            origin = getattr(module, "__file__", None)
        else:
            spec = importlib.util.find_spec(name)
            origin = None if spec is None else spec.origin
        found = None if origin is None else Path(origin).resolve().parent
        if found != root / name:
            raise ImportError(
                f"simreal needs its own package {name!r} at {root / name}, but Python finds {found or 'none'}; "
                f"remove or rename the other one"
            )


@cache
def register() -> None:
    """Make simreal's tasks known to Gymnasium, and gymnasium-robotics' environments run under MuJoCo 4.

    Importing simreal does so, except in the command `simreal`, which does it once it has more to do than to show its
    help: Gymnasium, gymnasium-robotics and MuJoCo take a quarter of a second to import.
    """
    try:
        gymnasium: Any = importlib.import_module("gymnasium")
    except ImportError:  # a robot controller has no use for it
        return
    from envs.platform.gymnasium_robotics_patch import patch_gymnasium_robotics
    from envs.registry import task_ids, tell_of_new_tasks

    patch_gymnasium_robotics()

    def make_known(task_id: str) -> None:
        gymnasium.register(
            id=f"simreal/{task_id}",
            entry_point="simreal.gym.vector:SingleEnv",
            vector_entry_point="simreal.gym.vector:make_vec",
            kwargs={"task": task_id},
        )

    for task_id in task_ids():
        make_known(task_id)
    tell_of_new_tasks(make_known)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module = importlib.import_module(_PUBLIC[name])
        globals().update({public: getattr(module, public) for public, home in _PUBLIC.items() if home == _PUBLIC[name]})
        return globals()[name]
    if name in ("deploy", "testing"):
        return importlib.import_module(f"simreal.{name}")
    raise AttributeError(f"module 'simreal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def _is_command() -> bool:
    """Whether this process is `simreal ...` or `python -m simreal ...`."""
    return Path(sys.argv[0]).stem == "simreal" or ("-m", "simreal") in pairwise(sys.orig_argv)


_check_floors()
importlib.import_module("envs.platform.gl").choose_gl_backend()
if not _is_command():
    register()
