"""What disturbs the world: random forces on bodies, pushes, and a base that moves.

* Forces (arXiv 1808.00177, appendix C): with `force_probability` per control step a body gets a new force, normal
  along each axis with standard deviation `force_size` * mass; until then the last one decays to `force_decay` of
  itself per 80 ms.
* Pushes: every `push_interval`, from a random moment on, the horizontal velocity of a floating body changes by
  `push_velocity` in a random direction.
* Moving base: what stands on a base that accelerates by a(t) feels -a(t) in addition to gravity;
  a(t) = `base_acceleration` * sin(2 pi `base_frequency` t + phase) in a random horizontal direction, constant during
  a control step.
"""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from randomization.catalogue.quantity import RandomizationError
from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.targets.objects import horizontal_dofs

_DECAY_TIME_S = 0.08


class RandomForces(Effect):
    """Applies `force_size`, `force_probability` and `force_decay`."""

    order = 20
    _state = ("_sigma", "_p", "_left", "_acceleration")

    def __init__(self, context: EffectContext) -> None:
        self._random, self._durations = context.random, context.durations
        self._size = context.index("force_size")
        self._probability, self._decay = context.index("force_probability"), context.index("force_decay")
        self._forces, self._pushed = context.forces, context.forces.on(self._size.places)
        self._masses, self._bodies = context.body_values("body_mass"), self._size.index
        k = self._size.size
        self._starts, self._values = context.random.reserve_uniform(k), context.random.reserve_normal(3 * k)
        zeros = context.zeros
        self._sigma, self._p, self._left, self._acceleration = zeros(k, 1), zeros(1), zeros(1, 1), zeros(k, 3)

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the sizes of new worlds lam [N, d] in mask [N]; episodes begin without a force."""
        self.change(mask, lam)
        self._acceleration = self._acceleration.masked_fill(mask[:, None, None], 0.0)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take other sizes; a force that acts goes on to decay."""
        rows = mask[:, None]
        self._sigma = torch.where(rows[:, :, None], self._size.of(lam)[:, :, None], self._sigma)
        self._p = torch.where(rows, self._probability.or_nominal(lam), self._p)
        left = self._decay.or_nominal(lam) ** (self._durations.period_s / _DECAY_TIME_S)
        self._left = torch.where(rows[:, :, None], left[:, :, None], self._left)

    def on_step(self) -> None:
        """Push the bodies."""
        normal = self._random.normal[:, self._values].unflatten(1, (-1, 3))
        starts = (self._random.uniform[:, self._starts] < self._p)[:, :, None]
        self._acceleration = torch.where(starts, self._sigma * normal, self._acceleration * self._left)
        self._forces.add(self._pushed, self._masses[:, self._bodies, None] * self._acceleration)


class Pushes(Effect):
    """Applies `push_velocity` and `push_interval`."""

    order = 40
    _state = ("_speed_m_s", "_period_s", "_since_s")

    def __init__(self, context: EffectContext) -> None:
        self._rng, self._random, self._durations = context.rng, context.random, context.durations
        task, device = context.task, context.engine.device
        self._speed = context.index("push_velocity")
        self._interval = context.index("push_interval")
        k = self._speed.size
        self._direction_draws = context.random.reserve_uniform(k)
        moves = [
            (dof, i, way) for i, body in enumerate(self._speed.places) for dof, way in horizontal_dofs(task.model, body)
        ]
        self._dofs = torch.tensor([dof for dof, _, _ in moves], dtype=torch.int64, device=device)
        self._pushed = torch.tensor([i for _, i, _ in moves], dtype=torch.int64, device=device)
        self._way = torch.tensor([way for _, _, way in moves], dtype=torch.float64, device=device)  # [dofs, 2]
        self._speed_m_s, self._period_s, self._since_s = context.zeros(k), context.zeros(1) + 1.0, context.zeros(k)
        self._qvel = context.engine.data("qvel")

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the speeds of new worlds lam [N, d] in mask [N], and where in the interval the episode begins."""
        self.change(mask, lam)
        phase = self._rng.episode_uniform("push_phase", self._speed.size)
        self._since_s = torch.where(mask[:, None], phase * self._period_s, self._since_s)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take other speeds and another interval since the last push."""
        rows = mask[:, None]
        self._speed_m_s = torch.where(rows, self._speed.of(lam), self._speed_m_s)
        self._period_s = torch.where(rows, self._interval.or_nominal(lam), self._period_s)

    def on_step(self) -> None:
        """Change velocities where a push is due."""
        self._since_s = self._since_s + self._durations.period_s
        due = self._since_s >= self._period_s
        self._since_s = torch.where(due, (self._since_s - self._period_s).clamp(max=self._period_s), self._since_s)
        angle = (2.0 * math.pi) * self._random.uniform[:, self._direction_draws]
        speed = torch.where(due, self._speed_m_s, 0.0)
        kick = torch.stack((speed * angle.cos(), speed * angle.sin()), dim=2)  # [N, k, 2]
        self._qvel[:, self._dofs] += (kick[:, self._pushed] * self._way).sum(dim=2).to(self._qvel.dtype)


class MovingBase(Effect):
    """Applies `base_acceleration` and `base_frequency`.

    Raises:
        RandomizationError: for a model in which gravity is switched off.
    """

    order = 50
    _state = ("_amplitude", "_hertz", "_angle")

    def __init__(self, context: EffectContext) -> None:
        self._rng, self._durations, task = context.rng, context.durations, context.task
        self._acceleration, self._frequency = context.index("base_acceleration"), context.index("base_frequency")
        zeros = context.zeros
        self._amplitude, self._hertz, self._angle = zeros(2), zeros(1), zeros(1)  # m/s^2 along x and y; Hz; rad
        if task.model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_GRAVITY):
            raise RandomizationError(f"base_acceleration: {task.id} has gravity switched off, which stands in for it")
        self._gravity = context.model_values("opt.gravity", (0, 1)).live

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the motion of new worlds lam [N, d] in mask [N]; from a random angle on."""
        self._angle = torch.where(mask[:, None], self._take(mask, lam)[:, 1:], self._angle)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take another motion, from the present angle on."""
        self._take(mask, lam)

    def _take(self, mask: Tensor, lam: Tensor) -> Tensor:
        """Take amplitude and frequency of lam [N, d] in mask [N]; returns the episodes' own two angles [N, 2]."""
        rows = mask[:, None]
        u = (2.0 * math.pi) * self._rng.episode_uniform("moving_base", 2)
        way = torch.stack((u[:, 0].cos(), u[:, 0].sin()), dim=1)
        self._amplitude = torch.where(rows, self._acceleration.of(lam) * way, self._amplitude)
        self._hertz = torch.where(rows, self._frequency.or_nominal(lam), self._hertz)
        return u

    def on_step(self) -> None:
        """Tilt gravity for this control step, as the acceleration in its middle has it."""
        turn = (2.0 * math.pi) * self._hertz * self._durations.period_s
        level = self._gravity[:, :2] - self._amplitude * torch.sin(self._angle + 0.5 * turn)
        self._gravity[:, :2] = level.to(self._gravity.dtype)
        self._angle = torch.remainder(self._angle + turn, 2.0 * math.pi)
