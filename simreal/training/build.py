"""Puts an environment together from what a configuration or a caller names."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import mujoco
import torch

from envs.common.messages import warn_once
from envs.common.ranks import Share
from envs.engines.backlash_joints import BacklashJointEngine
from envs.engines.base import Engine, EngineError
from envs.engines.bridge.engine import BridgeEngine
from envs.engines.bridge.simulator import KINDS
from envs.engines.cpu import CpuEngine
from envs.engines.gpu.options import GpuOptions
from envs.environment import Environment
from envs.registry import TaskError, make_task
from envs.task import Task
from randomization.config import Performance, RandomizationConfig, randomization_config
from randomization.physics.writer import shortest_timestep, simple_bodies
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Sampler
from simreal.common.errors import UserError
from simreal.evaluation.model_variants import ModelVariant
from simreal.learners.base import GivenPolicy, Learner, LearnerSpec
from simreal.learners.off_policy.hindsight import ENVS, Hindsight, find_out
from simreal.learners.registry import learner_class, pixel_learner
from simreal.training.run_config import RunConfig
from simreal.training.updates.two_rollouts import overlapping
from simreal.vision.sensors.config import SensorConfig, cameras_of
from simreal.vision.sensors.pixels import ObservationConfig, camera_of

EngineName = Literal["auto", "cpu", "gpu", "drake", "pybullet", "newton"]
_NO_CUDA = (
    "engine 'gpu' without CUDA runs on the CPU, for checks only: kernels are compiled first, which takes minutes, and "
    "it is many times slower than engine 'cpu'"
)


def make_environment(
    task_id: str,
    num_envs: int,
    randomization: str | Path | Mapping[str, Any] | RandomizationConfig | None = None,
    *,
    engine: EngineName = "auto",
    seed: int = 0,
    threads: int | None = None,
    sampler: Sampler | None = None,
    explore: bool = True,
    max_episode_steps: int | None = None,
    task_options: Mapping[str, Any] | None = None,
    variant: ModelVariant | None = None,
    gpu: GpuOptions | None = None,
    share: Share | None = None,
    sensors: Mapping[str, SensorConfig] | None = None,
    observation: ObservationConfig | None = None,
) -> Environment:
    """N environments of a task, batched in torch.

    Args:
        task_id: see `simreal envs`.
        num_envs, seed: N, and the seed of every random draw.
        randomization: the worlds; see `randomization_config`.
        engine: "gpu" without CUDA runs on the CPU, for checks; "auto" is "gpu" where there is CUDA and the model runs;
            "drake", "pybullet", "newton": another simulator makes the physics steps, to evaluate in (docs/engines.md).
        threads: physics threads; None takes all that this process may use.
        sampler, explore: a sampler in place of a new one; see `DomainRandomizer`.
        max_episode_steps: another time limit than the task's.
        task_options, variant: arguments of the task, such as `ctrl_cost_weight` of Ant-v5; how the model differs.
        gpu: settings of the GPU engine.
        share: which environments of a run on many ranks these N are; None: all.
        sensors, observation: estimators that read components, by component; how a policy's pictures are taken.

    Raises:
        UnknownTaskError, RandomizationError, EngineError: naming what is wrong and what is nearest.
    """
    _check_counts(num_envs, threads)
    options = dict(task_options or {})
    if max_episode_steps is not None and task_id.startswith("gymnasium:"):  # its own wrappers look at the limit
        options["max_episode_steps"] = max_episode_steps
    with cameras_of(sensors), camera_of(observation):
        task = make_task(task_id, **options)
        config = randomization_config(randomization)
        sampler = sampler or config.sampler_for(task)
        layer = _layer(task, task_id, sampler, config.performance, explore, sensors, observation)
        full = simple_bodies(task, sampler.parameters)  # as the task compiles them; not so after `prepare`
        layer.prepare(task)
        physics = task.make_engine(num_envs, threads)
        if physics is not None:
            _refuse_changed_physics(task_id, engine, variant)
        else:
            model = task.model
            if variant is not None:
                new_task = partial(make_task, task_id, **options)
                model = variant.apply(task, new_task, full, shortest_timestep(sampler.parameters))
            physics = make_engine(_engine_for(engine, layer), model, num_envs, threads, gpu)
    if variant is not None and variant.model.backlash is not None:
        physics = BacklashJointEngine(physics)
    return Environment(task, physics, layer, seed, share, max_episode_steps)


def _layer(
    task: Task,
    task_id: str,
    sampler: Sampler,
    performance: Performance,
    explore: bool,
    sensors: Mapping[str, SensorConfig] | None,
    observation: ObservationConfig | None,
) -> DomainRandomizer:
    """The randomization of an environment, and the cameras that it sees with. Raises UserError."""
    if observation is not None:
        observation.layout(task)  # refuses cameras and components that are not there
    elif not sensors:
        return DomainRandomizer(sampler, performance, explore)
    from simreal.vision.sensors.eyes import SeeingRandomizer

    return SeeingRandomizer(sampler, performance, explore, task, task_id, sensors or {}, observation)


def _engine_for(name: EngineName, layer: DomainRandomizer) -> EngineName:
    """The engine of that name; "auto" is the CPU's for what sees, since that one draws the pictures."""
    return "cpu" if name == "auto" and type(layer) is not DomainRandomizer else name


def _check_counts(num_envs: int, threads: int | None) -> None:
    if num_envs < 1:
        raise UserError(f"num_envs: expected at least 1, got {num_envs}")
    if threads is not None and threads < 1:  # MuJoCo would take all processors of the machine
        raise UserError(f"threads: expected at least 1, or None for all that this process may use, got {threads}")


def _refuse_changed_physics(task_id: str, engine: EngineName, variant: ModelVariant | None) -> None:
    """Raise UserError where simulations that a task steps by itself should be other ones."""
    if engine not in ("auto", "cpu"):
        raise UserError(
            f"engine: {engine!r} cannot run {task_id}, which steps simulations of its own: use 'cpu' or 'auto'"
        )
    if variant is not None and variant != ModelVariant():
        raise UserError(f"physics, model: {task_id} steps simulations of its own, which a world cannot change")


def make_engine(
    name: EngineName, model: mujoco.MjModel, num_envs: int, threads: int | None = None, gpu: GpuOptions | None = None
) -> Engine:
    """N simulations of a model on the engine of that name; see `make_environment`.

    Raises:
        UserError: the GPU engine is not installed.
        EngineError: the model does not run on the GPU, or in the other simulator.
    """
    if name in KINDS:
        return BridgeEngine(name, model, num_envs, threads)
    installed = importlib.util.find_spec("mujoco_warp") is not None
    cuda = torch.cuda.is_available()
    if name == "gpu" and not installed:
        raise UserError("engine: 'gpu' needs mujoco-warp, which is not installed: pip install 'simreal[gpu]'")
    if name == "cpu" or (name == "auto" and not (installed and cuda)):
        return CpuEngine(model, num_envs, threads)
    if not cuda:
        warn_once(_NO_CUDA)
    engine = importlib.import_module("envs.engines.gpu.engine").GpuEngine
    try:
        return engine(model, num_envs, None, gpu)
    except EngineError as error:
        if name == "gpu":
            raise
        warnings.warn(f"{error}; 'auto' takes the CPU engine", stacklevel=2)
        return CpuEngine(model, num_envs, threads)


def learner_device(name: str) -> torch.device:
    """The device that a configuration names; "auto" is CUDA where there is one. Raises UserError without CUDA."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: 'cuda' asked for, but torch finds no CUDA device; use 'cpu' or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_learner(
    config: RunConfig, environment: Environment, policies: Mapping[str, tuple[GivenPolicy, ...]] | None = None
) -> Learner:
    """The learner of a run, for an environment that has been reset, with the policies that its settings name (None
    where only its own policy is wanted). Raises UserError where its settings do not fit."""
    task = environment.task
    if config.learner.relabels and task.hindsight_obstacle is not None:
        raise UserError(f"learner: her_k: {task.id}: {task.hindsight_obstacle}; expected 0, to train without hindsight")
    observation, name = config.observation, config.learner.algorithm
    make = learner_class(name) if observation is None else pixel_learner(name)
    if config.train.overlap and observation is not None:
        raise UserError(
            "train.overlap: updates of policies that look at pictures have to be waited for; expected false"
        )
    if config.train.overlap:
        make = overlapping(make)
        if make.COLLECTED is None:
            raise UserError(f"train.overlap: updates of {name} have to be waited for; expected false")
    try:
        hindsight = _hindsight(config, environment)
        pixels = None if observation is None else observation.layout(task)
        spec = LearnerSpec.of(environment, learner_device(config.device), hindsight, policies, pixels)
        if environment.share.ranks.size > 1 and make.ROWS is None:
            what = f"{name} with pictures" if pixels else name
            raise ValueError(f"{what} runs on one process only; start it without torchrun, or with --nproc-per-node=1")
        return make(spec, config.learner, config.seed, total_steps=config.train.env_steps)
    except TaskError:  # of the rehearsal of hindsight: the task's fault, and it says so
        raise
    except ValueError as error:
        raise UserError(f"learner: {error}") from None


def _hindsight(config: RunConfig, environment: Environment) -> Hindsight | None:
    """What follows from the goal, where experience will be relabelled. Raises ValueError if it does not show."""
    if not config.learner.relabels or not environment.task.goal_size:
        return None
    pair = [
        make_environment(config.task, ENVS, engine="cpu", threads=1, task_options=config.task_options) for _ in range(2)
    ]
    return find_out(environment.task, *pair)
