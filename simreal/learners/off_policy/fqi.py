"""Fitted Q iteration on recorded transitions (Ernst et al. 2005; with a network: Riedmiller 2005).

Sweep k fits the values of discretized actions, decoupled over actuators as in `simreal.learners.off_policy.dqn`, to
targets that those of the sweep before give for all transitions (s, a, r, s'):

    y_i = r + gamma (1 - terminated) Q_{k-1}(s', argmax q_{i, k-1}(s', .))    Q_{k-1}: mean over the critics
    q_k = argmin_q  sum_i mean huber(q_i(s, a) - y_i)

A fit goes on from the weights of the one before, by gradient steps on batches drawn evenly; recorded actions count for
the nearest bin. Goals of a task with goals are relabelled as in other replays. What the record does not show is
extrapolated: values of actions that nobody took may be far too high, `target_limits` bounds them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.common.fast_matmul import fast_matmul
from envs.environment import Observed, StepResult
from simreal.learners.base import Learner, LearnerSpec, mean_metrics
from simreal.learners.networks import polyak_
from simreal.learners.off_policy.base import OffPolicyPolicy
from simreal.learners.off_policy.dataset import check_fits, read_dataset
from simreal.learners.off_policy.dqn import DecoupledQ, Descent, GreedyActor, dqn_target
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.learners.off_policy.transitions import normalized
from simreal.learners.options import FQIConfig

_DRAWN = 32  # batches that are drawn at a time


class FQI(Learner):
    """The learner; see `Learner`. An update is a sweep.

    Raises:
        UserError: the dataset is missing, damaged, or of another task.
    """

    config: FQIConfig
    NETWORKS = ("policy", "target_q")
    policy: OffPolicyPolicy

    def __init__(self, spec: LearnerSpec, config: FQIConfig, seed: int, total_steps: int | None = None) -> None:
        super().__init__(spec, config, seed, total_steps)
        self.q = DecoupledQ(spec.observation_size, spec.action_size, config.bins, config.hidden).to(spec.device)
        self.policy = OffPolicyPolicy(spec, config, GreedyActor(self.q)).to(spec.device)
        self.target_q = copy.deepcopy(self.q)
        self._online = [p.data for p in self.q.parameters()]
        self._targets = [p.data for p in self.target_q.parameters()]
        self._descent = Descent(self.q, config)
        self.optimizer = self._descent.optimizer
        self.digest = ""  # of the dataset; empty where only the policy is wanted
        if config.dataset:
            self.replay = self._recorded(Path(config.dataset))
            self.policy.normalizer.update(self.replay.everything())

    def _recorded(self, path: Path) -> HerReplayBuffer:
        """The dataset as a replay."""
        spec, dataset = self.spec, read_dataset(path)
        check_fits(path, dataset, spec.task, spec.observation_size, spec.action_size, spec.goal_size)
        self.digest = dataset.digest()
        replay = HerReplayBuffer(
            len(dataset), 1, spec.observation_size, spec.action_size, spec.goal_size,
            self.config.her_k if spec.goal_size else 0, spec.hindsight, device=spec.device,
        )  # fmt: skip
        arrays = {name: torch.from_numpy(dataset.arrays[name]).to(spec.device) for name in dataset.arrays}
        names = ("observation", "action", "reward", "next_observation", "terminated", "episode")
        goals, success = arrays.get("achieved_goal"), arrays["success"]
        replay.fill(*(arrays[name] for name in names), achieved_goal=goals, success=success)
        return replay

    def act(self, observed: Observed) -> Tensor:
        """The best action [N, A]: nothing is explored."""
        with torch.no_grad():
            return self.policy(observed.policy.to(self.spec.device))

    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Nothing: what is learnt from was recorded before."""

    def proceed(self) -> None:
        """Begin the next sweep."""
        self.steps += 1

    def ready(self) -> bool:
        """Whether a sweep was begun and not made."""
        return self.steps > self.updates

    @fast_matmul()
    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        """A sweep: gradient steps towards the targets of the values that were there before; returns means to log."""
        config, size = self.config, self.config.batch_size
        polyak_(self._targets, self._online, 1.0)
        logs: list[dict[str, Tensor]] = []
        for first in range(0, config.updates_per_sweep, _DRAWN):
            count = min(_DRAWN, config.updates_per_sweep - first)
            drawn = normalized(self.replay.sample(size * count, self.generator), self.policy.normalizer)
            for i in range(count):
                if before_step is not None:
                    before_step()
                batch = drawn.rows(i * size, (i + 1) * size)
                with torch.no_grad():
                    q = self.target_q(batch.next_observation)
                    target = dqn_target(batch.reward, config.gamma, batch.terminated, q, q, config.target_limits)
                log = self._descent.step(batch, target)
                logs.append({name: value.detach() for name, value in log.items()})
        self.updates += 1
        return mean_metrics(logs) | {"updates": float(self.updates * config.updates_per_sweep)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning; the dataset only by its fingerprint."""
        parts = {name: getattr(self, name).state_dict() for name in ("policy", "target_q", "optimizer")}
        return parts | {
            "generator": self.generator.get_state(),
            "counters": {"steps": self.steps, "updates": self.updates},
            "dataset": self.digest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises KeyError, ValueError or RuntimeError where it is of other settings."""
        if state["dataset"] != self.digest:
            raise ValueError(f"learner.dataset: {self.config.dataset} holds other transitions than those learnt from")
        for name in ("policy", "target_q", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.steps, self.updates = state["counters"]["steps"], state["counters"]["updates"]
