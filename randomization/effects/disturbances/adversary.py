"""The random network adversary: a policy of chance that takes over a share of the actions and pushes objects.

After OpenAI et al. 2019 (arXiv 1910.07113, appendix B): in each episode another random network (three layers of 265
ReLU units, 31 bins per dimension, the bin with the largest output counts) reads the observation, and

    action = (1 - alpha) * policy + alpha * adversary
    force  = beta * mass * adversary,   torque = beta * inertia * adversary   on each object

where the adversary's values lie in [-1, 1]. alpha is `adversary_action`, beta `adversary_wrench` (m/s^2, rad/s^2).

A network of its own for every environment has 230,000 weights to draw in each episode and to read in each step. Like
DeXtreme (arXiv 2210.13702), which gives every environment another drop-out mask of one random network, all
environments share matrices of normal weights; here each episode flips the signs of units and draws its own biases. A
flipped normal weight is a normal weight, and the weights of two episodes are uncorrelated, at the cost of one product
per layer for all environments.

The paper's control step is 80 ms. Here too the adversary decides every 80 ms (rounded to control steps, at least one)
from the start of the episode on, and holds what it has decided until then.

The network reads the square root of how far each value has moved since the episode began, with its sign: observations
come in SI units, and millimetres should count beside metres.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from envs.common.fast_matmul import fast_matmul
from envs.common.rng import EpisodeRandom
from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect

_UNITS, _LAYERS, _BINS = 265, 3, 31
_PERIOD_S = 0.08  # between two decisions
_BIAS = 0.5  # deviation of biases, in terms of the deviation of what the weights add up to
_DTYPE = torch.float32
_TINY = 1e-12  # keeps the root of zero finite


class RandomNetwork:
    """One random network per episode.

    Args:
        inputs, outputs: sizes of the observation and of what comes out, values in [-1, 1].
        rng: the environment's random numbers.
    """

    def __init__(self, inputs: int, outputs: int, rng: EpisodeRandom) -> None:
        self._rng, self.outputs = rng, outputs
        widths = [inputs] + [_UNITS] * _LAYERS + [outputs * _BINS]
        shared = EpisodeRandom(0, 1)
        self._weights = []
        for layer, (a, b) in enumerate(pairwise(widths)):
            gain = math.sqrt((1.0 if layer == 0 else 2.0) / a)  # He et al. 2015: keeps the size of what passes through
            weight = gain * shared.episode_normal(f"adversary{layer}", a * b).view(a, b)
            self._weights.append(weight.to(rng.device, _DTYPE))
        n, signs, biases = rng.num_envs, sum(widths[:-1]), sum(widths[1:])
        self._signs = torch.ones(n, signs, dtype=_DTYPE, device=rng.device)
        self._biases = torch.zeros(n, biases, dtype=_DTYPE, device=rng.device)
        # views: what is written to the whole shows in the parts
        signs_of, biases_of = self._signs.split(widths[:-1], dim=1), self._biases.split(widths[1:], dim=1)
        self._layers = list(zip(self._weights, signs_of, biases_of, strict=True))
        self._level = torch.linspace(-1.0, 1.0, _BINS, dtype=torch.float64, device=rng.device)

    def reset(self, mask: Tensor) -> None:
        """Draw the networks of the episodes that begin in mask [N]."""
        rows = mask.nonzero()[:, 0] if mask.device.type == "cpu" else None  # choosing rows stalls a GPU
        coin = self._rng.episode_uniform("adversary_signs", self._signs.shape[1], rows) < 0.5
        signs = torch.where(coin, -1.0, 1.0).to(_DTYPE)
        biases = (_BIAS * self._rng.episode_normal("adversary_biases", self._biases.shape[1], rows)).to(_DTYPE)
        if rows is not None:
            self._signs.index_copy_(0, rows, signs)
            self._biases.index_copy_(0, rows, biases)
        else:
            self._signs.copy_(torch.where(mask[:, None], signs, self._signs))
            self._biases.copy_(torch.where(mask[:, None], biases, self._biases))

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Inputs [k, inputs] of environments rows [k] (None: of all) -> values [k, outputs] in [-1, 1]."""
        x = x.to(_DTYPE)
        with fast_matmul():
            for layer, (weight, sign, bias) in enumerate(self._layers):
                if rows is not None:
                    sign, bias = sign[rows], bias[rows]
                x = torch.addmm(bias, x * sign, weight)
                if layer < _LAYERS:
                    x = x.relu_()
        # `max` finds the place of the largest two and a half times as fast as `argmax`
        return self._level[x.unflatten(1, (self.outputs, _BINS)).max(dim=2).indices]

    def state_dict(self) -> dict[str, Any]:
        """The signs and biases of the present networks."""
        return {"signs": self._signs.clone(), "biases": self._biases.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._signs.copy_(state["signs"])
        self._biases.copy_(state["biases"])


class Adversary(Effect):
    """Applies `adversary_action` and `adversary_wrench`. Costs nothing while both are zero in all worlds.

    Attributes:
        active: whether it acts in any world; on a GPU always.
    """

    order = 10
    _state = ("_alpha", "_beta", "_origin", "_fresh", "_values", "_wait", "active", "_any_fresh", "_network")

    def __init__(self, context: EffectContext) -> None:
        task, engine, self._environment = context.task, context.engine, context.environment
        n, device = engine.num_envs, engine.device
        self._alpha_column = context.index("adversary_action")
        self._beta_column = context.index("adversary_wrench")
        bodies = self._beta_column.places
        self._forces, self._pushed = context.forces, context.forces.on(bodies)
        self._actions = task.action_size if self._alpha_column.size else 0
        inputs = sum(component.size for component in task.components("policy"))
        self._network = RandomNetwork(inputs, self._actions + 6 * len(bodies), context.rng)
        self._alpha, self._beta = context.zeros(1), context.zeros(len(bodies), 1)
        self._origin = context.zeros(inputs)
        self._fresh = torch.ones(n, 1, dtype=torch.bool, device=device)  # the episode's first observation is to come
        self._any_fresh = True
        self._values = context.zeros(self._network.outputs)
        self._every = max(1, round(_PERIOD_S / task.control_period_s))  # control steps between two decisions
        self._wait = torch.zeros(n, dtype=torch.int64, device=device)  # control steps until the next one
        self.active = False
        self._masses, self._inertias = context.body_values("body_mass"), context.body_values("body_inertia")
        self._index = self._beta_column.index
        self._frames = engine.data("ximat") if bodies else None

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take alpha and beta of new worlds lam [N, d] in mask [N] and draw their networks."""
        rows = mask[:, None]
        if self._alpha_column.size:
            self._alpha = torch.where(rows, self._alpha_column.of(lam), self._alpha)
        if self._frames is not None:
            self._beta = torch.where(rows[:, :, None], self._beta_column.of(lam)[:, :, None], self._beta)
        self._fresh, self._any_fresh = self._fresh | rows, True
        self._wait = self._wait.masked_fill(mask, 0)
        plays = (self._alpha > 0).any(dim=1) | (self._beta > 0).flatten(1).any(dim=1)
        self.active = plays.is_cuda or bool(plays.any())  # looking would stall a GPU
        if self.active:
            self._network.reset(mask & plays)

    def read(self, observation: Tensor) -> None:
        """Decide, where it is time to, from the observation [N, nobs] that the policy has."""
        if self._any_fresh:
            self._origin = torch.where(self._fresh, observation, self._origin)
            self._fresh, self._any_fresh = torch.zeros_like(self._fresh), False
        due = self._wait == 0
        self._wait = torch.where(due, self._every, self._wait) - 1
        rows = due.nonzero()[:, 0] if due.device.type == "cpu" else None  # choosing rows stalls a GPU
        if rows is None:
            self._values = torch.where(due[:, None], self._network(_sizes(observation - self._origin)), self._values)
        elif len(rows) == len(due):
            self._values = self._network(_sizes(observation - self._origin))
        elif len(rows):
            decided = self._network(_sizes(observation[rows] - self._origin[rows]), rows)
            self._values = self._values.index_copy(0, rows, decided)

    def on_action(self, action: Tensor) -> Tensor:
        """What is left of the policy's action [N, A]; the adversary decides first, where it is time to."""
        if not self.active:
            return action
        self.read(self._environment.observed.policy)
        if not self._actions:
            return action
        return torch.lerp(action, self._values[:, : self._actions].to(action.dtype), self._alpha.to(action.dtype))

    def on_step(self) -> None:
        """Push the bodies."""
        if self._frames is None or not self.active:
            return
        push = self._beta * self._values[:, self._actions :].unflatten(1, (-1, 6))
        frame = self._frames[:, self._index].unflatten(2, (3, 3))
        torque = (frame.double() @ (self._inertias[:, self._index] * push[:, :, 3:])[..., None])[..., 0]
        force = self._masses[:, self._index, None] * push[:, :, :3]
        self._forces.add(self._pushed, torch.cat((force, torque), dim=2))


def _sizes(moved: Tensor) -> Tensor:
    """What the network reads of how far values [...] have moved: the square root, with the sign."""
    moved = moved.to(_DTYPE)
    return moved * moved.abs().add_(_TINY).rsqrt_()
