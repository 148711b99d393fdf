"""Motor backlash: a command first takes up the slack of its gears or tendons, then moves the joint.

The model of OpenAI's hand (arXiv 1808.00177, appendix C; 1910.07113, appendix B). Each actuator has a slack s in
[-1, 1]; at s = +1 it pushes, at s = -1 it pulls, in between it moves nothing. A command u whose distance from the
command that would leave the joint where it is, u0, is e = u - u0 moves the slack by

    ds = e * delta_{sign(e)} * dt,    alpha = min(1, |sign(e) - s| / |ds|),    u' = alpha * u0 + (1 - alpha) * u

so alpha is the share of the control step in which the motor only takes up slack. With delta = infinity there is no
backlash. `actuator_backlash` is 1/delta, in seconds per unit of command: 0 for none. Each episode draws delta anew
for each actuator and direction, delta_{+1,-1} = exp(n * delta_0) with n ~ N(1, l^2), where exp(delta_0) is what is
configured and l is `actuator_backlash_spread`. delta is at least 2, as in OpenAI's robogym: less leaves a robot
useless.

u0 is the command at which the actuator's force at rest vanishes: 0 for a motor, the joint's position for a servo.
The same thing as a joint of its own is `backlash_range`, for models that have such joints (MuJoCo's manual, Modeling,
Backlash).
"""

from __future__ import annotations

import mujoco
import numpy as np
import torch
from torch import Tensor

from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.effects.parameter_index import index_of
from randomization.targets.objects import controls_of, outputs_of

_LARGEST_S = 0.5  # 1 / delta, delta = 2
_NONE = 1e200  # delta without backlash
_NOTHING = 1e-100  # a share of the step that is none


class Backlash(Effect):
    """Applies `actuator_backlash` to the controls in a command."""

    order = 30
    _state = ("_down", "_up", "_slack")

    def __init__(self, context: EffectContext) -> None:
        self._rng, self._durations = context.rng, context.durations
        task, engine = context.task, context.engine
        self._gap, self._spread = (context.index(name) for name in ("actuator_backlash", "actuator_backlash_spread"))
        self._actuators = task.model.nactuator
        # delta * dt; float64 on every engine: float32 has no number for none
        self._down = context.zeros(self._gap.size) + _NONE
        self._up = self._down.clone()
        self._slack = torch.zeros_like(self._down)
        model, places, device = task.model, self._gap.places, engine.device
        self._controls = index_of(controls_of(model, places)[0], device)  # one of each
        self._outputs = index_of(outputs_of(model, places)[0], device)
        self._length, self._index = engine.data("actuator_length"), self._gap.index
        zero, slope = (torch.as_tensor(x, dtype=torch.float64, device=device) for x in _rest_command(model, places))
        self._at_zero, self._per_length = zero, slope

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Draw this episode's slack in the worlds lam [N, d] of mask [N]; motors start in the middle of it."""
        self.change(mask, lam)
        self._slack = self._slack.masked_fill(mask[:, None], 0.0)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take the slack of other worlds lam [N, d] in mask [N]; motors are where they are in it."""
        gap, rows, size = self._gap.of(lam), mask[:, None], self._gap.size
        spread = lam.new_zeros(len(lam), self._actuators)
        spread[:, self._spread.index] = self._spread.of(lam)
        spread = spread[:, self._index]
        z = self._rng.episode_normal("actuator_backlash", 2 * size)
        self._down = torch.where(rows, self._delta(gap, spread * z[:, :size]), self._down)
        self._up = torch.where(rows, self._delta(gap, spread * z[:, size:]), self._up)

    def _delta(self, gap_s: Tensor, deviation: Tensor) -> Tensor:
        """delta * dt of one direction, for configured 1/delta [N, size] and n - 1 [N, size]."""
        gap_s = torch.where(gap_s > 0, gap_s ** (1.0 + deviation), 0.0).clamp(max=_LARGEST_S)
        return torch.where(gap_s > 0, self._durations.period_s / gap_s, _NONE).to(self._slack.dtype)

    def on_command(self, command: Tensor) -> Tensor:
        """Command [N, C] -> what the joints feel of it."""
        wanted = command[:, self._controls].double()
        rest = self._at_zero + self._per_length * self._length[:, self._outputs]
        error = wanted - rest
        moved = error * torch.where(error > 0, self._up, self._down)
        share = ((error.sign() - self._slack).abs() / moved.abs().clamp_(min=1e-30)).clamp_(max=1.0)
        self._slack = (self._slack + moved).clamp_(-1.0, 1.0)
        felt = command.clone()
        felt[:, self._controls] = torch.where(share > _NOTHING, wanted - share * error, wanted).to(felt.dtype)
        return felt


def _rest_command(model: mujoco.MjModel, places: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """u0 = zero + slope * length of each actuator, where gain * u0 + bias0 + bias1 * length = 0.

    A PID's gain is -bias1.
    """
    bias = model.actuator_biasprm[places]
    fixed = model.actuator_gaintype[places] == int(mujoco.mjtGain.mjGAIN_FIXED)
    gain = np.where(fixed, model.actuator_gainprm[places, 0], -bias[:, 1])
    gain = np.where(gain == 0.0, 1.0, gain)
    return -bias[:, 0] / gain, -bias[:, 1] / gain
