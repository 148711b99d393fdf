"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477), with hindsight replay.

    a' = clip(mu'(s') + clip(target_noise e, -c, c), -1, 1),  e ~ N(0, 1), c: noise_clip
    y  = r + gamma (1 - terminated) min_i Q'_i(s', a')       clipped to what the rewards allow, where that is set
    Lq = sum_i mean (Q_i(s, a) - y)^2
    Lp = -mean Q_1(s, mu(s)) + action_penalty mean u(s)^2    u: what goes into the policy's tanh

Policy and targets move at every `policy_delay`-th update of the critics only. The penalty is that of DDPG with
hindsight (Plappert et al. 2018, arXiv 1802.09464, section 2.4), and not in the paper: its weight is 0 unless set.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from envs.common.deterministic_ops import sum_all
from envs.environment import Observed
from simreal.learners.base import LearnerSpec
from simreal.learners.networks import DeterministicActor, tanh_backward
from simreal.learners.off_policy.base import ActorCritic
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.options import TD3Config


def smoothed(action: Tensor, noise: Tensor, std: float, clip: float) -> Tensor:
    """Actions [B, A] near those of the target policy, in [-1, 1]; `noise` [B, A] is standard normal. Algorithm 1."""
    return (action + (std * noise).clamp(-clip, clip)).clamp(-1.0, 1.0)


def td3_target(
    reward: Tensor, terminated: Tensor, next_q: Tensor, gamma: float, limits: tuple[float, float] | None
) -> Tensor:
    """y [B], clipped to `limits` where given; next_q [members, B] of the target critics. Fujimoto et al., eq. 10."""
    target = reward + gamma * (1.0 - terminated) * next_q.amin(dim=0)
    return target if limits is None else target.clamp(*limits)


class TD3(ActorCritic):
    """The learner; see `ActorCritic`."""

    NOISES = 1  # for the target policy's action
    config: TD3Config

    def __init__(self, spec: LearnerSpec, config: TD3Config, seed: int, total_steps: int | None = None) -> None:
        super().__init__(spec, config, seed, total_steps, actor=DeterministicActor, critics=2)
        self.target_actor = copy.deepcopy(self.network.actor)
        self._online += self._actor_pass.parameters
        self._targets += [p.data for p in self.target_actor.parameters()]

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A]: the policy's with normal noise; uniform ones during the warm-up."""
        if self._warms_up:
            return self._draw(torch.rand, self.spec.action_size) * 2.0 - 1.0
        action = self.behavior(self._features(observed))
        noise = self._draw(torch.randn, self.spec.action_size)
        return (action + self.config.exploration_noise * noise).clamp(-1.0, 1.0)

    @torch.no_grad()
    def _update(self, batch: ReplayBatch, noise: Tensor) -> dict[str, Tensor]:
        config, rows = self.config, self._rows(len(batch.reward))
        next_action = self.target_actor(batch.next_observation)
        saturation = self._mean((next_action.abs() > 0.96).float())
        next_action = smoothed(next_action, noise[0], config.target_noise, config.noise_clip)
        next_q = self.target_critic(batch.next_known, next_action)
        target = td3_target(batch.reward, batch.terminated, next_q, config.gamma, config.target_limits)
        q = self._q(batch.known, batch.action)
        error = q - target
        self._descend_critic(error * (2.0 / rows))
        if self.updates % config.policy_delay == 0:
            self._descend_actor(self._actor_gradient(batch))
            self._move_targets()
        return {
            "critic_loss": sum_all(error.square()) / rows,
            "q": self._mean(q, dim=1),
            "target": self._mean(target),
            "saturation": saturation,
        }

    def _actor_gradient(self, batch: ReplayBatch) -> Tensor:
        """Gradient of Lp by what goes into the policy's tanh [B, A]."""
        rows, known = self._rows(len(batch.reward)), batch.known
        preactivation = self._actor_pass(batch.observation)[0]
        action = torch.tanh(preactivation)
        by_q = torch.zeros_like(self._q(known, action))
        by_q[0] = -1.0 / rows
        gradient = tanh_backward(self._by_action(by_q), action)
        if self.config.action_penalty:
            gradient += preactivation * (2.0 * self.config.action_penalty / (rows * action.shape[1]))
        return gradient

    def _stateful(self) -> tuple[str, ...]:
        return (*super()._stateful(), "target_actor")
