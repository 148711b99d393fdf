"""PPO that learns from its last rollout while the next one is collected.

What collects is a second learner, with the weights and normalizers of the moment in which its rollout began. When that
is full the two exchange rollouts, and it gets the weights and normalizers of the last update. So a rollout comes from
the policy before the update that it runs beside, and when it is learnt from the weights have made one update since.
Ratios are against the policy that acted, whose distributions stand in the rollout; advantages are estimated with the
present critic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from envs.common.ranks import Ranks, Share
from envs.environment import Observed, StepResult
from simreal.learners.base import Learner, LearnerSpec
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.options import PPOConfig


def overlapping(make: type[Learner]) -> type[Learner]:
    """The class of a learner whose updates run beside collecting, where that is another one."""
    return OverlappingPPO if make is PPO else make


class OverlappingPPO(PPO):
    """The learner; see `PPO`. Raises ValueError where its policy remembers: what it remembered would have come from, or
    been normalized by, weights that are no more."""

    COLLECTED = ("collector",)
    ROWS = {**(PPO.ROWS or {}), "collector": PPO.ROWS}  # noqa: RUF012

    def __init__(self, spec: LearnerSpec, config: PPOConfig, seed: int, total_steps: int | None = None) -> None:
        super().__init__(spec, config, seed, total_steps)
        if self.recurrent:
            raise ValueError(f"memory: expected none with train.overlap, got {config.memory}")
        if self.stacks is not None:
            raise ValueError("observation_history, action_history: expected 0 with train.overlap")
        self.collector = PPO(spec, config, seed, total_steps)
        self.generator.manual_seed(seed + 1)  # of minibatches; actions are drawn by the collector's

    def talk_through(self, ranks: Ranks) -> None:
        """Have updates talk with other ranks through these; what collects keeps its own."""
        super().talk_through(ranks)
        self.share = Share(ranks, self.share.total)

    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A] drawn from the policy before the update that runs."""
        return self.collector.act(observed)

    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Take in the step that the last `act` led to."""
        self.collector.record(observed, action, result)

    def ready(self) -> bool:
        """Whether the rollout is full."""
        return self.collector.rollout.full

    def draw(self) -> bool:
        """Nothing is drawn: the whole rollout is learnt from."""
        return True

    def put_back(self, drawn: Any) -> None:
        """The rollout has stayed full."""

    def begin(self, drawn: bool) -> None:
        """Exchange rollouts; the present policy collects from now on."""
        collector, self.begun = self.collector, drawn
        if self.updates == 0:  # only the collector has seen anything
            self.network.normalizer.load_state_dict(collector.network.normalizer.state_dict())
            self.critic.normalizer.load_state_dict(collector.critic.normalizer.state_dict())
        self.rollout, collector.rollout = collector.rollout, self.rollout
        collector.rollout.time = 0
        self._ended.copy_(collector._ended)
        collector._ended.zero_()
        collector.network.load_state_dict(self.network.state_dict())
        collector.critic.load_state_dict(self.critic.state_dict())
        self.steps, collector.updates = collector.steps, self.updates + 1

    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Learn from the rollout that was exchanged; returns what to log."""
        log = super().update(before_step)
        self.begun = None
        return log

    def start_from(self, state: dict[str, Any]) -> None:
        """Begin with the networks and normalizers of another run's `state_dict`."""
        super().start_from(state)
        self.collector.start_from(state)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning and collecting."""
        return super().state_dict() | {"collector": self.collector.state_dict(), "begun": self.begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, also of `PPO`. Raises KeyError, ValueError or RuntimeError where it is of other
        settings."""
        super().load_state_dict(state)
        self.collector.load_state_dict(state.get("collector", state))
        self.begun = state.get("begun")
