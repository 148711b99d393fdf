"""Q-learning on discretized actions, decoupled over actuators, with hindsight replay (DecQN; Seyde et al. 2023, arXiv
2210.12566).

Each actuator takes one of K values, evenly spaced in [-1, 1]; with 3 it is driven fully, not at all, or fully back. A
network gives a value q_j(s, k) for every bin k of every actuator j, so that A K numbers stand for K^A actions:

    Q_i(s, a) = mean_j q_ij(s, a_j)                                               i: one of two critics
    y_i = sum_m<n gamma^m r_m + gamma^n (1 - terminated) Q'(s_n, a*_i)            clipped to `target_limits`, where set
    a*_ij = argmax_k q_ij(s_n, k)     Q' = (Q'_1 + Q'_2) / 2, of the targets      double Q-learning
    L = sum_i mean huber(Q_i(s, a) - y_i)

A policy takes the bins that are best on average over the two critics, and to explore, in a share `epsilon` of the
actuators, a random one. Of the n steps of a target none counts beyond the end of its episode; a truncated one goes on
in value. Relabelled with another goal, the rewards of all n steps are, and the first step that reaches it is the last
where that ends episodes; as in any n-step target without correction, what the actions after the first are worth is that
of the policy that took them.

The authors' program also replays by priority, copies the targets at every 100th update and explores by the larger of
the two values; here experience is drawn evenly, targets follow by `tau`, and the mean decides.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.common.deterministic_ops import mean_all, sum_all
from envs.environment import Observed
from simreal.common.layers import Bins, Layer, array
from simreal.learners.adam import Adam
from simreal.learners.base import LearnerSpec
from simreal.learners.networks import EnsembleMLP
from simreal.learners.off_policy.backprop import pass_of
from simreal.learners.off_policy.base import OffPolicyLearner
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.options import BinsOptions, DQNConfig

CRITICS = 2


class DecoupledQ(nn.Module):
    """Values of every bin of every actuator, by several critics."""

    def __init__(self, inputs: int, action_size: int, bins: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = (action_size, bins)
        self.net = EnsembleMLP(CRITICS, [inputs, *hidden, action_size * bins])

    def forward(self, features: Tensor) -> Tensor:
        """What networks see [B, inputs] -> q [critics, B, A, K]."""
        return self.net(features).unflatten(-1, self.shape)


class GreedyActor(nn.Module):
    """The action whose bins are best on average over the critics; of bins that are equally good the first."""

    values: Tensor

    def __init__(self, q: DecoupledQ) -> None:
        super().__init__()
        self.q = q
        self.register_buffer("values", torch.linspace(-1.0, 1.0, q.shape[1]), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """What networks see [B, inputs] -> action [B, A], of bins' values."""
        return self.values[self.best(features)]

    def best(self, features: Tensor) -> Tensor:
        """Numbers of bins [B, A]."""
        return self.q(features).mean(0).argmax(-1)

    def undecided(self, tolerance: float, features: Tensor) -> Tensor:
        """[B] bool, where the best two bins of an actuator differ by less than a relative `tolerance`."""
        first, second = self.q(features).mean(0).topk(2, dim=-1).values.unbind(-1)
        return (first - second <= tolerance * first.abs().clamp(min=1.0)).any(-1)

    def layers(self) -> list[Layer]:
        """As an exported policy computes it: the critics side by side, their mean, the best bins."""
        return [*self.q.net.mean_layers(), Bins(array(self.values))]


def nearest_bin(action: Tensor, bins: int) -> Tensor:
    """Numbers [...] of the bins that actions [...] in [-1, 1] are nearest to."""
    return ((action.clamp(-1.0, 1.0) + 1.0) * (0.5 * (bins - 1))).round().long()


def value_of(q: Tensor, chosen: Tensor) -> Tensor:
    """Q [critics, B] of bins [..., B, A], for q [critics, B, A, K]: the mean over actuators."""
    return q.gather(-1, chosen.expand(q.shape[:-1]).unsqueeze(-1)).squeeze(-1).mean(-1)


def dqn_target(
    reward: Tensor,
    discount: Tensor | float,
    terminated: Tensor,
    next_q: Tensor,
    target_q: Tensor,
    limits: tuple[float, float] | None,
) -> Tensor:
    """y [critics, B] of rewards [B] (over n steps), clipped to `limits` where given.

    Args:
        reward: discounted sum over the n steps.
        discount: gamma to the number of steps, [B] or the same for all.
        terminated: [B], 0 or 1.
        next_q: [critics, B, A, K] of the critics that learn, which choose the bins.
        target_q: [critics, B, A, K] of the targets, whose mean values them.
        limits: lowest and highest return.
    """
    value = value_of(target_q.mean(0).expand_as(next_q), next_q.argmax(-1))
    target = reward + discount * (1.0 - terminated) * value
    return target if limits is None else target.clamp(*limits)


class Descent:
    """Steps of critics towards targets.

    Args:
        q: what learns.
        config: `lr`, `bins` and `huber` are read.

    Attributes:
        optimizer: of the critics.
    """

    def __init__(self, q: DecoupledQ, config: BinsOptions) -> None:
        self.optimizer = Adam(q.parameters(), lr=config.lr)
        self._pass, self._shape, self._config = pass_of(q.net), q.shape, config

    @torch.no_grad()
    def step(self, batch: ReplayBatch, target: Tensor) -> dict[str, Tensor]:
        """One step towards targets [critics, B] for a batch; returns what to log, [] each."""
        (actuators, bins), delta = self._shape, self._config.huber
        q = self._pass(batch.observation).unflatten(-1, (actuators, bins))
        chosen = nearest_bin(batch.action, bins)
        value = value_of(q, chosen)
        errors = functional.huber_loss(value, target, reduction="none", delta=delta)
        rows = errors.shape[1]
        by_chosen = (value - target).clamp(-delta, delta) * (1.0 / rows) / actuators
        where = chosen.expand(q.shape[:-1]).unsqueeze(-1)
        by_q = torch.zeros_like(q).scatter_(-1, where, by_chosen[..., None, None].expand(where.shape))
        self.optimizer.step(self._pass.weights(by_q.flatten(-2)))
        return {"loss": sum_all(errors) / rows, "q": mean_all(value), "target": mean_all(target)}


class DQN(OffPolicyLearner):
    """The learner; see `OffPolicyLearner`."""

    NOISES = 0
    config: DQNConfig

    def __init__(self, spec: LearnerSpec, config: DQNConfig, seed: int, total_steps: int | None = None) -> None:
        def actor(inputs: int) -> GreedyActor:
            return GreedyActor(DecoupledQ(inputs, spec.action_size, config.bins, config.hidden))

        super().__init__(spec, config, seed, total_steps, actor)
        self.q: DecoupledQ = self.network.actor.q
        self.target_q = copy.deepcopy(self.q)
        self._online = [p.data for p in self.q.parameters()]
        self._targets = [p.data for p in self.target_q.parameters()]
        self._descent = Descent(self.q, config)
        self.optimizer = self._descent.optimizer
        self._optimizers = {"optimizer": config.lr}

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A]: the best bins, and random ones in a share of the actuators; in all during the warm-up."""
        shape = (self.spec.num_envs, self.spec.action_size)
        generator, device = self.generator, self.spec.device
        chosen = torch.randint(self.config.bins, shape, generator=generator, device=device)
        share = self.epsilon()
        if share < 1.0:
            explores = torch.rand(shape, generator=generator, device=device) < share
            chosen = torch.where(explores, chosen, self.behavior.best(self._features(observed)))
        return self.network.actor.values[chosen]

    def epsilon(self) -> float:
        """Share of actuators that explore at present."""
        config = self.config
        if self._warms_up:
            return 1.0
        progress = (self.steps - config.warmup_steps) / config.epsilon_steps if config.epsilon_steps else 1.0
        return max(1.0 - (1.0 - config.epsilon) * max(progress, 0.0), config.epsilon)

    def _sample(self, count: int) -> ReplayBatch:
        return self.replay.sample(count, self.generator, self.config.n_steps, self.config.gamma)

    @torch.no_grad()
    def _update(self, batch: ReplayBatch, noise: Tensor | None = None) -> dict[str, Tensor]:
        config = self.config
        discount = config.gamma if batch.discount is None else batch.discount
        next_q, target_q = self.q(batch.next_observation), self.target_q(batch.next_observation)
        target = dqn_target(batch.reward, discount, batch.terminated, next_q, target_q, config.target_limits)
        log = self._descent.step(batch, target)
        self._move_targets()
        return log

    def _told(self) -> dict[str, float]:
        return super()._told() | {"epsilon": self.epsilon()}

    def _stateful(self) -> tuple[str, ...]:
        return (*super()._stateful(), "target_q")
