"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv 1509.02971), with hindsight replay.

    y  = r + gamma (1 - terminated) Q'(s', mu'(s'))          clipped to what the rewards allow
    Lq = mean (Q(s, a) - y)^2
    Lp = -mean Q(s, mu(s)) + action_penalty mean u(s)^2      u: what goes into the policy's tanh

The penalty is that of Plappert et al. 2018 (arXiv 1802.09464, section 2.4): without it tanh saturates.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from envs.environment import Observed
from simreal.learners.base import LearnerSpec
from simreal.learners.networks import DeterministicActor, tanh_backward
from simreal.learners.off_policy.base import ActorCritic
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.options import DDPGConfig


def ddpg_target(
    reward: Tensor, terminated: Tensor, next_q: Tensor, gamma: float, limits: tuple[float, float] | None
) -> Tensor:
    """y [B] = r + gamma (1 - terminated) Q', clipped to `limits` where given. Lillicrap et al. 2016, eq. 5."""
    target = reward + gamma * (1.0 - terminated) * next_q
    return target if limits is None else target.clamp(*limits)


class DDPG(ActorCritic):
    """The learner; see `ActorCritic`."""

    NOISES = 0
    config: DDPGConfig

    def __init__(self, spec: LearnerSpec, config: DDPGConfig, seed: int, total_steps: int | None = None) -> None:
        super().__init__(spec, config, seed, total_steps, actor=DeterministicActor, critics=1)
        self.target_actor = copy.deepcopy(self.network.actor)
        self._online += self._actor_pass.parameters
        self._targets += [p.data for p in self.target_actor.parameters()]

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A]: the policy's with normal noise, and a share of uniform ones."""
        a = self.spec.action_size
        random = self._draw(torch.rand, a) * 2.0 - 1.0
        if self._warms_up:
            return random
        action = self.behavior(self._features(observed))
        noise = self._draw(torch.randn, a)
        action = (action + self.config.exploration_noise * noise).clamp(-1.0, 1.0)
        uniform = self._draw(torch.rand, 1)
        return torch.where(uniform < self.config.exploration_random, random, action)

    @torch.no_grad()
    def _update(self, batch: ReplayBatch, noise: Tensor | None = None) -> dict[str, Tensor]:
        config, rows = self.config, self._rows(len(batch.reward))
        next_q = self.target_critic(batch.next_known, self.target_actor(batch.next_observation))[0]
        target = ddpg_target(batch.reward, batch.terminated, next_q, config.gamma, config.target_limits)
        known = batch.known
        q = self._q(known, batch.action)
        error = q - target
        self._descend_critic(error * (2.0 / rows))

        preactivation = self._actor_pass(batch.observation)[0]
        action = torch.tanh(preactivation)
        policy_q = self._q(known, action)
        gradient = tanh_backward(self._by_action(torch.full_like(policy_q, -1.0 / rows)), action)
        self._descend_actor(gradient + preactivation * (2.0 * config.action_penalty / (rows * action.shape[1])))
        self._move_targets()
        return {
            "critic_loss": self._mean(error[0].square()),
            "q": self._mean(q[0]),
            "policy_q": self._mean(policy_q[0]),
            "saturation": self._mean((preactivation.abs() > 2.0).float()),
        }

    def _stateful(self) -> tuple[str, ...]:
        return (*super()._stateful(), "target_actor")
