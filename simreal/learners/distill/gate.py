"""Several teachers: in every state those count most from which the best return follows if they go on from there.

Which teacher is the better one where is not known beforehand. In a share of the environments teachers steer whole
episodes, one after the other, and a critic V_i for each learns what teacher i gets from where. The student is shown

    a = sum_i w_i a_i,   w = softmax_i(V_i(s) / (temperature * std of returns))

which for a small temperature is the best of the teachers in each state (MAMBA's max-aggregation: Cheng, Kolobov and
Agarwal 2020, arXiv 2007.00795, section 3). Critics read the privileged group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from envs.environment import StepResult
from simreal.learners.adam import Adam
from simreal.learners.base import LearnerSpec
from simreal.learners.distill.options import DistillConfig
from simreal.learners.networks import mlp
from simreal.learners.normalizer import Normalizer
from simreal.learners.on_policy.losses import mean, shares
from simreal.learners.on_policy.returns import gae
from simreal.learners.on_policy.rollout import sound

_HIDDEN, _LAMBDA, _STEPS, _LR = (64, 64), 0.95, 20, 1e-3
_TENSORS = ("guide", "_guiding", "_final", "_weights")


class Gate:
    """Weighs the answers of K teachers in N environments.

    Args:
        count: K.
        spec: of the environments.
        config: settings.

    Attributes:
        guides: [N] bool, where teachers steer whole episodes.
        guide: [N] which of them.
    """

    def __init__(self, count: int, spec: LearnerSpec, config: DistillConfig) -> None:
        n, size, device = spec.num_envs, spec.observation_size + spec.privileged_size, spec.device
        self._config, self._count = config, count
        self.normalizer = Normalizer(size, clip=10.0)
        self.normalizer.passed = len(spec.parameters)
        self.returns = Normalizer(1, clip=math.inf)
        self.critics = nn.ModuleList(mlp([size, *_HIDDEN, 1], nn.ELU, 1.0) for _ in range(count))
        self.networks = nn.ModuleList([self.normalizer, self.returns, self.critics]).to(device)
        self.optimizer = Adam(self.critics.parameters(), lr=_LR, eps=1e-5)
        number = torch.arange(n, device=device)
        self.guides = number < max(math.ceil(config.gate_share * n), min(count, n))
        self.guide = number % count
        self._guiding = torch.zeros(config.horizon, n, dtype=torch.int64, device=device)
        self._final = torch.zeros(config.horizon, n, device=device)  # values where episodes were truncated
        self._weights = torch.zeros(count, device=device)  # sum over the rollout

    def values(self, raw: Tensor) -> Tensor:
        """V_i [K, ...] in std of returns, for states [..., n] in SI units."""
        x = self.normalizer(raw.flatten(0, -2))
        return torch.stack([critic(x).view(raw.shape[:-1]) for critic in self.critics])

    def weigh(self, raw: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """What the student is shown [N, A], and what is done where teachers steer [N, A].

        Args:
            raw: [N, n] policy and privileged group.
            answers: [K, N, A] of the teachers.
        """
        weights = torch.softmax(self.values(raw) / self._config.gate_temperature, dim=0)
        self._weights += weights.mean(1)
        mixed = (weights.unsqueeze(2) * answers).sum(0)
        index = self.guide.view(1, -1, 1).expand(1, -1, answers.shape[2])
        alone = answers.gather(0, index)[0]
        return mixed, torch.where(self.guides[:, None], alone, mixed)

    def record(self, t: int, final: Tensor, result: StepResult) -> None:
        """Take in step t, which led to states [N, n]."""
        self._guiding[t] = self.guide
        self._final[t] = self.values(final).gather(0, self.guide[None])[0]
        self.guide.copy_(torch.where(result.done, (self.guide + 1) % self._count, self.guide))

    @torch.enable_grad()
    def update(
        self, raw: Tensor, reward: Tensor, ends: Tensor, before_step: Callable[[], None] | None
    ) -> dict[str, float]:
        """Learn what the teachers got in a rollout [T, N, ...]; returns the mean weight of each."""
        terminated, truncated, diverged = ends
        steered = self.guides & sound(terminated | truncated, diverged)
        share = shares(steered.float())
        with torch.no_grad():
            self.normalizer.update(raw[steered])
            unit = self._unit()
            value = self.values(raw).gather(0, self._guiding[None])[0] * unit
            following = torch.cat((value[1:], (self._final[-1] * unit)[None]))
            following = torch.where(truncated, self._final * unit, following)
            ended = (terminated | diverged, truncated)
            advantage = gae(reward, value, following, *ended, gamma=self._config.gamma, gae_lambda=_LAMBDA)
            target = advantage + value
            self.returns.update(target[steered][:, None])
            target = target / self._unit()
            for critic in self.critics:  # what they say stays the same in units of reward
                layers: Any = critic
                for parameter in layers[-1].parameters():
                    parameter.mul_(unit / self._unit())
        loss = torch.zeros(())
        for _ in range(_STEPS):
            if before_step is not None:
                before_step()
            said = self.values(raw).gather(0, self._guiding[None])[0]
            loss = mean((said - target).square(), share)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        weights = (self._weights / len(raw)).tolist()
        self._weights.zero_()
        return {"gate_loss": float(loss.detach())} | {f"gate.{i}": weight for i, weight in enumerate(weights)}

    def _unit(self) -> Tensor:
        """Standard deviation [1] of returns, in units of reward; 1 until they vary."""
        scale = self.returns.scale()
        return torch.where(scale > 0.0, scale, 1.0).float()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes."""
        parts = {name: getattr(self, name).state_dict() for name in ("networks", "optimizer")}
        return parts | {name: getattr(self, name).clone() for name in _TENSORS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name in ("networks", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        for name in _TENSORS:
            getattr(self, name).copy_(state[name])
