"""PPO's update against rsl_rl's and against a plain loop in torch, on the same batch and nets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.timing import Row, median_seconds
from envs.environment import Observed, StepResult
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.gaussian import gaussian_entropy, gaussian_log_prob
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.options import PPOConfig

_OBSERVATIONS, _ACTIONS = 45, 12  # Go1's sizes
_HORIZON, _MINIBATCHES, _EPOCHS = 24, 4, 5
_LR, _CLIP, _MAX_NORM, _ENTROPY = 1e-3, 0.2, 1.0, 0.005


def bench_on_policy(num_envs: int, hidden: tuple[int, ...], repeats: int) -> list[Row]:
    """Updates per second from N x 24 steps, in 4 minibatches and 5 epochs, ELU nets with these hidden layers.

    Ours values the rollout in `update`, rsl_rl has done that while collecting: what is timed of it leaves that out.
    """
    references: list[tuple[str, Callable[[], None]]] = [("plain torch", _plain_torch(num_envs, hidden))]
    with contextlib.suppress(ImportError):
        references.append(("rsl_rl", _rsl_rl(num_envs, hidden)))
    functions = [_ours(num_envs, hidden), *(function for _, function in references)]
    for warm_up in functions:
        warm_up()
    mine, *theirs = median_seconds(functions, repeats)
    sizes = "-".join(map(str, hidden))
    name = f"PPO update, {num_envs} x {_HORIZON} steps, nets {sizes}, {torch.get_num_threads()} threads"
    return [
        Row(name, reference, seconds / mine, 1 / mine, 1 / seconds)
        for (reference, _), seconds in zip(references, theirs, strict=True)
    ]


def _ours(num_envs: int, hidden: tuple[int, ...]) -> Callable[[], None]:
    problem = LearnerSpec(num_envs, _OBSERVATIONS, _ACTIONS, 0, 0, None, torch.device("cpu"))
    settings: dict[str, Any] = {
        "actor_hidden": hidden, "critic_hidden": hidden, "horizon": _HORIZON, "minibatches": _MINIBATCHES,
        "epochs": _EPOCHS, "lr": _LR, "lr_schedule": "kl_adaptive", "clip": _CLIP, "max_grad_norm": _MAX_NORM,
        "entropy_coef": _ENTROPY,
    }  # fmt: skip
    learner = PPO(problem, PPOConfig(**settings), 0)
    no, zero = torch.zeros(num_envs, dtype=torch.bool), torch.zeros(num_envs)
    for _ in range(_HORIZON):
        observed = Observed(torch.randn(num_envs, _OBSERVATIONS), None, None, None)
        action = learner.act(observed)
        reward, steps = torch.randn(num_envs), torch.zeros(num_envs, dtype=torch.int64)
        learner.record(
            observed, action, StepResult(observed, observed, reward, no, no, no, no, no, zero, steps, steps, {})
        )

    def update() -> None:
        learner.rollout.time = _HORIZON
        learner.update()

    return update


def _rsl_rl(num_envs: int, hidden: tuple[int, ...]) -> Callable[[], None]:
    """Raises ImportError where rsl_rl (rsl-rl-lib 5) is not installed."""
    from rsl_rl import algorithms  # pyright: ignore[reportMissingImports]
    from rsl_rl.models import MLPModel  # pyright: ignore[reportMissingImports]
    from rsl_rl.storage import RolloutStorage  # pyright: ignore[reportMissingImports]
    from tensordict import TensorDict  # pyright: ignore[reportMissingImports]

    def observation() -> Any:
        return TensorDict({"policy": torch.randn(num_envs, _OBSERVATIONS)}, batch_size=[num_envs])

    first, groups = observation(), {"actor": ["policy"], "critic": ["policy"]}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 0.5}
    actor = MLPModel(first, groups, "actor", _ACTIONS, hidden, distribution_cfg=gaussian)
    critic = MLPModel(first, groups, "critic", 1, hidden)
    learner = algorithms.PPO(
        actor, critic, RolloutStorage("rl", num_envs, _HORIZON, first, [_ACTIONS]), num_learning_epochs=_EPOCHS,
        num_mini_batches=_MINIBATCHES, clip_param=_CLIP, learning_rate=_LR, max_grad_norm=_MAX_NORM,
        entropy_coef=_ENTROPY, use_clipped_value_loss=False,
    )  # fmt: skip
    for _ in range(_HORIZON):
        now = observation()
        learner.act(now)
        learner.process_env_step(now, torch.randn(num_envs), torch.zeros(num_envs), {})

    def update() -> None:
        learner.compute_returns(first)
        learner.update()

    return update


def _mlp(hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    sizes, layers = (_OBSERVATIONS, *hidden), list[nn.Module]()
    for a, b in zip(sizes, hidden, strict=False):
        layers += [nn.Linear(a, b), nn.ELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def _plain_torch(num_envs: int, hidden: tuple[int, ...]) -> Callable[[], None]:
    """The textbook loop, with nothing around it."""
    size = num_envs * _HORIZON
    actor, critic, log_std = _mlp(hidden, _ACTIONS), _mlp(hidden, 1), nn.Parameter(torch.full((_ACTIONS,), -0.7))
    parameters = [*actor.parameters(), *critic.parameters(), log_std]
    optimizer = torch.optim.Adam(parameters, lr=_LR, fused=True)
    x, advantage, target = torch.randn(size, _OBSERVATIONS), torch.randn(size), torch.randn(size)
    with torch.no_grad():
        action = actor(x) + log_std.exp() * torch.randn(size, _ACTIONS)
        old = gaussian_log_prob(action, actor(x), log_std)

    def loss(rows: Tensor) -> Tensor:
        ratio = (gaussian_log_prob(action[rows], actor(x[rows]), log_std) - old[rows]).exp()
        gain = advantage[rows]
        policy = torch.minimum(ratio * gain, ratio.clamp(1 - _CLIP, 1 + _CLIP) * gain).mean()
        value = (critic(x[rows]).squeeze(1) - target[rows]).square().mean()
        return value - policy - _ENTROPY * gaussian_entropy(log_std)

    def update() -> None:
        for _ in range(_EPOCHS):
            for rows in torch.randperm(size).chunk(_MINIBATCHES):
                optimizer.zero_grad()
                loss(rows).backward()
                nn.utils.clip_grad_norm_(parameters, _MAX_NORM)
                optimizer.step()

    return update
