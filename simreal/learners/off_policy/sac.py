"""Soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905), with hindsight replay.

y  = r + gamma (1 - terminated) (min_i Q'_i(s', a') - alpha log pi(a'|s')),  a' ~ pi(s')
Lq = sum_i mean (Q_i(s, a) - y)^2
Lp = mean (alpha log pi(a|s) - min_i Q_i(s, a)),  a ~ pi(s)
La = -mean log(alpha) (log pi(a|s) + target_entropy)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from envs.common.deterministic_ops import sum_all
from envs.environment import Observed
from simreal.learners.adam import Adam
from simreal.learners.base import LearnerSpec
from simreal.learners.networks import GaussianActor, Squashed
from simreal.learners.off_policy.base import ActorCritic
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.options import SACConfig


def sac_target(
    reward: Tensor, terminated: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha: Tensor | float, gamma: float
) -> Tensor:
    """y [B]; next_q [members, B] of the target critics. Haarnoja et al. 2018, eq. 2 and 3."""
    soft_value = next_q.amin(dim=0) - alpha * next_log_prob
    return reward + gamma * (1.0 - terminated) * soft_value


class SAC(ActorCritic):
    """The learner; see `ActorCritic`."""

    NOISES = 2  # for the next action and for the present one
    config: SACConfig

    def __init__(self, spec: LearnerSpec, config: SACConfig, seed: int, total_steps: int | None = None) -> None:
        super().__init__(spec, config, seed, total_steps, actor=GaussianActor, critics=2)
        self.log_alpha = nn.Parameter(torch.tensor(config.initial_alpha, device=spec.device).log())
        self.target_entropy = -float(spec.action_size) if config.target_entropy is None else config.target_entropy
        self.alpha_optimizer = Adam([self.log_alpha], lr=config.alpha_lr)
        self._optimizers["alpha_optimizer"] = config.alpha_lr

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A] drawn from the policy; uniform ones during the warm-up."""
        if self._warms_up:
            return self._draw(torch.rand, self.spec.action_size) * 2.0 - 1.0
        noise = self._draw(torch.randn, self.spec.action_size)
        observation = observed.policy.to(self.spec.device)
        if self.history.layout.size:
            observation = observation.float()  # as the replay has it
        return self.behavior.sample(self.history.features(observation, self.network.normalizer), noise)[0]

    @torch.no_grad()
    def _update(self, batch: ReplayBatch, noise: Tensor) -> dict[str, Tensor]:
        config, rows = self.config, self._rows(len(batch.reward))
        alpha = self.log_alpha.exp()
        next_action, next_log_prob = self.network.actor.sample(batch.next_observation, noise[0])
        next_q = self.target_critic(batch.next_known, next_action)
        target = sac_target(batch.reward, batch.terminated, next_q, next_log_prob, alpha, config.gamma)
        if config.target_limits is not None:
            target = target.clamp(*config.target_limits)
        known = batch.known
        q = self._q(known, batch.action)
        error = q - target
        self._descend_critic(error * (2.0 / rows))

        drawn = Squashed(self._actor_pass(batch.observation)[0], noise[1])
        policy_q, lower = self._q(known, drawn.action).min(dim=0)
        by_q = torch.zeros_like(q).scatter_(0, lower[None], -1.0 / rows)
        log_prob = drawn.log_prob()
        entropy = -self._mean(log_prob)
        self._descend_actor(drawn.gradient(self._by_action(by_q), alpha * (1.0 / rows)), entropy)

        self.alpha_optimizer.step([entropy - self.target_entropy])  # derivative of La
        self._move_targets()
        return {
            "critic_loss": sum_all(error.square()) / rows,
            "q": self._mean(q, dim=1),
            "policy_q": self._mean(policy_q),
            "entropy": self._once(entropy),
            "alpha": self._once(alpha),
            "saturation": self._mean((drawn.action.abs() > 0.96).float()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning."""
        return super().state_dict() | {"log_alpha": self.log_alpha.detach().clone()}

    def start_from(self, state: dict[str, Any]) -> None:
        """Begin with the networks, normalizers and temperature of another run's `state_dict`."""
        super().start_from(state)
        self.log_alpha.data.copy_(state["log_alpha"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        super().load_state_dict(state)
        self.log_alpha.data.copy_(state["log_alpha"])
