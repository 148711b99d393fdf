"""Updates of SAC and DDPG against stable-baselines3's and skrl's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.speed.timing import Row, median_seconds
from simreal.learners.base import LearnerSpec
from simreal.learners.off_policy.ddpg import DDPG
from simreal.learners.off_policy.sac import SAC
from simreal.learners.options import DDPGConfig, SACConfig

_OBSERVATIONS, _ACTIONS = 28, 4  # FetchPush's sizes


def _filled(learner: DDPG | SAC, problem: LearnerSpec) -> Callable[[], None]:
    """A function that makes ten updates of a learner whose replay is filled with noise."""
    n = problem.num_envs
    for _ in range(20):
        learner.replay.add(
            torch.randn(n, _OBSERVATIONS), torch.rand(n, _ACTIONS) * 2 - 1, torch.randn(n),
            torch.randn(n, _OBSERVATIONS), torch.zeros(n), torch.zeros(n, dtype=torch.bool),
        )  # fmt: skip

    def ten_updates() -> None:
        learner.updates_due = 10.0
        learner.update()

    return ten_updates


def bench_off_policy(algorithm: str, repeats: int) -> list[Row] | None:
    """Updates per second against those of peers, same sizes and threads; None where none of them is installed."""
    references: list[tuple[str, Callable[[], None]]] = []
    for name, make in (("stable-baselines3", _stable_baselines), ("skrl", _skrl)):
        with contextlib.suppress(ImportError):
            references.append((name, make(algorithm)))
    if not references:
        return None
    problem = LearnerSpec(256, _OBSERVATIONS, _ACTIONS, 0, 0, None, torch.device("cpu"))
    sizes: dict[str, Any] = {"hidden": (256, 256), "batch_size": 256, "replay_size": 10_000, "her_k": 0}
    ours = (
        _filled(SAC(problem, SACConfig(**sizes), 0), problem)
        if algorithm == "sac"
        else _filled(DDPG(problem, DDPGConfig(**sizes), 0), problem)
    )
    functions = [ours, *(function for _, function in references)]
    for warm_up in functions:
        warm_up()
    mine, *theirs = median_seconds(functions, repeats)
    name = f"{algorithm.upper()} updates, {torch.get_num_threads()} threads"
    return [
        Row(name, reference, seconds / mine, 10 / mine, 10 / seconds)
        for (reference, _), seconds in zip(references, theirs, strict=True)
    ]


def _stable_baselines(algorithm: str) -> Callable[[], None]:
    """Ten gradient steps of stable-baselines3's learner of the same sizes. Raises ImportError without it."""
    import gymnasium
    import stable_baselines3
    from stable_baselines3.common.logger import Logger

    class Shape(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (_OBSERVATIONS,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (_ACTIONS,), np.float32)

    kind = {"sac": stable_baselines3.SAC, "ddpg": stable_baselines3.DDPG}[algorithm]
    model = kind(
        "MlpPolicy", Shape(), batch_size=256, buffer_size=10_000, device="cpu",
        policy_kwargs={"net_arch": [256, 256]},
    )  # fmt: skip
    model.set_logger(Logger(None, []))
    random = np.random.default_rng(0)
    assert model.replay_buffer is not None
    for _ in range(5120):
        a, b = random.standard_normal((2, 1, _OBSERVATIONS)).astype(np.float32)
        action = random.uniform(-1, 1, (1, _ACTIONS)).astype(np.float32)
        model.replay_buffer.add(a, b, action, random.standard_normal(1), np.zeros(1), [{}])

    def ten_updates() -> None:
        model.train(gradient_steps=10, batch_size=256)

    return ten_updates


def _skrl(algorithm: str) -> Callable[[], None]:
    """Ten gradient steps of skrl's learner (2.1) of the same sizes. Raises ImportError without it.

    Its SAC has a standard deviation that no observation changes and no tanh: an update has less to do than ours.
    """
    import gymnasium
    from skrl.agents.torch import ddpg, sac  # pyright: ignore[reportMissingImports]
    from skrl.memories.torch import RandomMemory  # pyright: ignore[reportMissingImports]
    from skrl.utils.model_instantiators.torch import (  # pyright: ignore[reportMissingImports]
        deterministic_model,
        gaussian_model,
    )

    spaces = {
        "observation_space": gymnasium.spaces.Box(-np.inf, np.inf, (_OBSERVATIONS,), np.float32),
        "action_space": gymnasium.spaces.Box(-1.0, 1.0, (_ACTIONS,), np.float32),
    }

    def network(make: Any, inputs: str, output: str) -> Any:
        layers = [{"name": "net", "input": inputs, "layers": [256, 256], "activations": "relu"}]
        return make(**spaces, device="cpu", network=layers, output=output)

    stochastic, both = algorithm == "sac", "concatenate([OBSERVATIONS, ACTIONS])"
    policies, critics = (("policy",), ("critic_1", "critic_2")) if stochastic else (("policy",), ("critic",))
    targets = tuple(f"target_{name}" for name in (critics if stochastic else (*policies, *critics)))
    models = {
        name: network(deterministic_model, both, "ONE")
        if "critic" in name
        else network(gaussian_model if stochastic else deterministic_model, "OBSERVATIONS", "tanh(ACTIONS)")
        for name in (*policies, *critics, *targets)
    }
    for model in models.values():
        model.init_state_dict()
    learner = (sac.SAC if stochastic else ddpg.DDPG)(
        models=models, memory=RandomMemory(memory_size=5120, device="cpu", replacement=True), **spaces, device="cpu",
        cfg={"batch_size": 256, "gradient_steps": 10, "experiment": {"write_interval": 0, "checkpoint_interval": 0}},
    )  # fmt: skip
    learner.init()
    tensors: dict[str, Any] = learner.memory.tensors
    for name, tensor in tensors.items():
        if name != "terminated":
            tensor.copy_(torch.rand(tensor.shape) * 2.0 - 1.0)
    learner.memory.filled = True
    learner.enable_models_training_mode(True)

    def ten_updates() -> None:
        learner.update(timestep=0, timesteps=1)

    return ten_updates
