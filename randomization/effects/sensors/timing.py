"""When a sensor's values arrive: late, sometimes not at all, or frozen for a while.

Each component of the observation is one sensor: its values are late or lost together. A reading is
`observation_delay` old, rounded to control steps, plus jitter; no reading overtakes an earlier one, so a sensor never
shows something older than before. With probability `observation_dropout` nothing arrives in a step and what was shown
last stays; at a rate of `observation_freeze` per second nothing arrives for a second (marker drop-out, arXiv
1808.00177, appendix C). An episode's first reading always arrives, and is shown until a later one does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect
from randomization.effects.parameter_index import ParameterIndex, index_of

_FREEZE_S = 1.0
_LARGEST_JITTER = 3.0  # standard deviations
_TIMING = ("delay", "delay_jitter", "dropout", "freeze")


class SensorTiming(Effect):
    """Applies `observation_delay`, `_delay_jitter`, `_dropout` and `_freeze` to the policy group."""

    order = 10
    _state = (
        "_history", "_newest", "_age", "_steps", "_sigma_steps", "_p_lost", "_p_freeze", "_freeze_steps", "_shown",
        "_frozen",
    )  # fmt: skip

    def __init__(self, context: EffectContext) -> None:
        self._random, self._durations, device = context.random, context.durations, context.engine.device
        slices, parameters, zeros = context.task.slices("policy"), context.parameters, context.zeros
        targets = {t for p in parameters if p.quantity.removeprefix("observation_") in _TIMING for t in p.targets}
        sensors = [name for name in slices if name in targets]
        k = len(sensors)
        numbered = {name: [i] for i, name in enumerate(sensors)}
        self._delay, self._jitter, self._dropout, self._freeze = (
            ParameterIndex(f"observation_{name}", parameters, numbered, device) for name in _TIMING
        )
        self._late = bool(self._delay.size or self._jitter.size)
        self._losing = bool(self._dropout.size or self._freeze.size)
        self._jitters = context.random.reserve_normal(k if self._jitter.size else 0)
        self._dropouts = context.random.reserve_uniform(k if self._dropout.size else 0)
        self._freezes = context.random.reserve_uniform(k if self._freeze.size else 0)
        owners = [(p, i) for i, name in enumerate(sensors) for p in range(slices[name].start, slices[name].stop)]
        self._places = index_of([place for place, _ in owners], device)
        self._owner = torch.tensor([i for _, i in owners], dtype=torch.int64, device=device)
        usual_ms, jitter_ms = context.longest("observation_delay"), context.longest("observation_delay_jitter")
        longest_ms = usual_ms + _LARGEST_JITTER * jitter_ms
        slots = 1 + context.durations.most_control_steps(1e-3 * longest_ms) if self._late else 0
        self._history = zeros(slots, len(owners) if self._late else 0)
        self._newest = 0
        self._age = zeros(k).long()  # of what is shown, control steps
        self._steps, self._sigma_steps = zeros(k), zeros(k)  # the delay's mean and deviation, control steps
        self._wanted: Tensor | None = None  # the delay of this step, in whole control steps
        self._p_lost, self._p_freeze, self._freeze_steps = zeros(k), zeros(k), zeros(1)
        self._shown = zeros(len(owners) if self._losing else 0)
        self._frozen = zeros(k)  # steps for which a sensor is still frozen, this one included

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Take the timing of new worlds lam [N, d] in mask [N]."""
        rows, period_s, self._wanted = mask[:, None], self._durations.period_s, None
        self._freeze_steps = torch.where(rows, (_FREEZE_S / period_s).round().clamp(min=1.0), self._freeze_steps)
        self._steps = self._taken(rows, self._delay, 1e-3 * self._delay.of(lam) / period_s, self._steps)
        self._sigma_steps = self._taken(rows, self._jitter, 1e-3 * self._jitter.of(lam) / period_s, self._sigma_steps)
        self._p_lost = self._taken(rows, self._dropout, self._dropout.of(lam), self._p_lost)
        # at least one event of a Poisson process
        p_freeze = -torch.expm1(-self._freeze.of(lam) * period_s)
        self._p_freeze = self._taken(rows, self._freeze, p_freeze, self._p_freeze)

    def change(self, mask: Tensor, lam: Tensor) -> None:
        """Take another timing; readings that are on their way arrive."""
        self.reset(mask, lam)

    def _taken(self, rows: Tensor, columns: ParameterIndex, values: Tensor, present: Tensor) -> Tensor:
        """Present values [N, sensors] with those of `columns` replaced in rows [N, 1]."""
        if not columns.size:
            return present
        taken = present.clone()
        taken[:, columns.index] = torch.where(rows, values, present[:, columns.index])
        return taken

    def on_arrival(self, measured: Tensor, first: Tensor | None) -> None:
        """Replace what sensors measure now [N, nobs] by what they show now, in place.

        Args:
            first: episodes [N] that begin; the sensors of others do not advance and show what they did. None: all
                sensors advance.
        """
        values = measured[:, self._places].to(self._history.dtype)
        begins = None if first is None else first[:, None]
        if self._late:
            values = self._delayed(values, begins)
        if self._losing:
            values = self._received(values, begins)
        measured[:, self._places] = values.to(measured.dtype)

    def _delayed(self, values: Tensor, begins: Tensor | None) -> Tensor:
        """Values [N, k] measured now -> the ones that have arrived."""
        slots = self._history.shape[1]
        if begins is None:
            self._newest = (self._newest + 1) % slots
            self._history[:, self._newest] = values
            if self._jitter.size:
                normal = self._random.normal[:, self._jitters].clamp(-_LARGEST_JITTER, _LARGEST_JITTER)
                self._wanted = self._whole(torch.addcmul(self._steps, self._sigma_steps, normal))
            elif self._wanted is None:
                self._wanted = self._whole(self._steps)
            self._age = torch.minimum(self._wanted, self._age + 1)
        else:
            # The line is full of the first reading, so that whatever the age is, it is what is shown.
            self._history = torch.where(begins[:, :, None], values[:, None], self._history)
        slot = (self._newest - self._age) % slots
        return self._history.gather(1, slot[:, self._owner][:, None])[:, 0]

    def _whole(self, steps: Tensor) -> Tensor:
        """A delay [N, sensors] in control steps, as far as the history goes."""
        return steps.round().clamp_(0.0, self._history.shape[1] - 1.0).long()

    def _received(self, values: Tensor, begins: Tensor | None) -> Tensor:
        """Values [N, k] that have arrived, or the last ones where nothing came through."""
        if begins is None:
            self._shown = torch.where(self._missing()[:, self._owner], self._shown, values)
        else:
            self._shown = torch.where(begins, values, self._shown)
            self._frozen = self._frozen.masked_fill(begins, 0.0)
        return self._shown

    def _missing(self) -> Tensor:
        """Sensors [N, sensors] from which nothing comes in this step."""
        uniform = self._random.uniform
        if not self._freeze.size:
            return uniform[:, self._dropouts] < self._p_lost
        left = (self._frozen - 1.0).clamp_(min=0.0)
        begins = (uniform[:, self._freezes] < self._p_freeze) & (left == 0)
        self._frozen = torch.where(begins, self._freeze_steps, left)
        missing = self._frozen > 0
        return missing | (uniform[:, self._dropouts] < self._p_lost) if self._dropout.size else missing

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        super().load_state_dict(state)
        self._wanted = None
