"""MuJoCo's own delays of actuators and sensors (`delay`, `nsample`), and the histories that they read from.

`mjData.history` holds, for each of them: [a slot of its own, cursor, times (nsample), samples (nsample * size)]. A
reset sets the times before 0 and all samples to 0: a servo would be pulled to 0 rad, a quaternion would read 0 0 0 0.
`Samples` fills them.

MuJoCo keeps a delay in seconds and the history that it reads from in samples, one per physics step (a sensor with an
interval: one per interval). With shorter steps the same samples reach back less far, and MuJoCo then takes the oldest
one: 0.02 s with 10 samples become 0.005 s at a quarter of the step (MuJoCo's manual, Modeling, Delays). `KeepDelays`
lengthens the histories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import mujoco
import numpy as np
import torch
from torch import Tensor

Kind = Literal["actuator", "sensor"]
_OBJECTS = {"actuator": mujoco.mjtObj.mjOBJ_ACTUATOR, "sensor": mujoco.mjtObj.mjOBJ_SENSOR}
_ROUNDING = 1e-6  # of a sample
_HEADER = 2  # numbers of a history before its times


@dataclass(frozen=True)
class Delay:
    """A delayed actuator or sensor.

    Attributes:
        index: which actuator or sensor.
        seconds: the delay as it is at the model's own timestep.
        samples: that its history keeps.
        interval_s: between two samples, where that is longer than a physics step.
    """

    kind: Kind
    index: int
    seconds: float
    samples: int
    interval_s: float = 0.0

    def samples_at(self, timestep_s: float) -> int:
        """Samples that reach back by the delay."""
        return math.ceil(self.seconds / max(timestep_s, self.interval_s) - _ROUNDING)


def delays(model: mujoco.MjModel) -> list[Delay]:
    """What a model delays."""
    found: list[Delay] = []
    kinds: list[tuple[Kind, np.ndarray]] = [
        ("actuator", np.zeros(model.nactuator)), ("sensor", model.sensor_interval[:, 0])
    ]  # fmt: skip
    for kind, intervals in kinds:
        histories = getattr(model, f"{kind}_history")[:, 0]
        for i, (stated, samples) in enumerate(zip(getattr(model, f"{kind}_delay"), histories, strict=True)):
            if stated > 0 and samples > 0:
                spacing = max(float(intervals[i]), float(model.opt.timestep))
                # a delay beyond the oldest sample is as long as the history
                seconds = min(float(stated), int(samples) * spacing)
                found.append(Delay(kind, i, seconds, int(samples), float(intervals[i])))
    return found


def shortened_delay(model: mujoco.MjModel, timestep_s: float) -> str | None:
    """What says that physics steps of `timestep_s` would cut a delay short; None where they would not."""
    for delay in delays(model):
        needed = delay.samples_at(timestep_s)
        if needed > delay.samples:
            name = mujoco.mj_id2name(model, _OBJECTS[delay.kind], delay.index) or f"number {delay.index}"
            reach_s = delay.samples * max(timestep_s, delay.interval_s)
            return (
                f"{delay.kind} {name} is delayed by {delay.seconds:g} s, and with physics steps of {timestep_s:g} s "
                f"its history of {delay.samples} samples reaches back {reach_s:g} s: give it nsample={needed}"
            )
    return None


def state_delays(model: mujoco.MjModel, found: Sequence[Delay]) -> None:
    """Write delays as they are: one beyond its history would grow with a longer timestep."""
    for delay in found:
        getattr(model, f"{delay.kind}_delay")[delay.index] = delay.seconds


@dataclass(frozen=True)
class KeepDelays:
    """An edit of a specification that lengthens histories; see `editing_specs`."""

    delays: tuple[Delay, ...]

    @classmethod
    def of(cls, model: mujoco.MjModel, timestep_s: float) -> KeepDelays:
        """What a model's delays need with physics steps of `timestep_s` and with its own."""
        return cls(tuple(replace(d, samples=max(d.samples, d.samples_at(timestep_s))) for d in delays(model)))

    def __call__(self, spec: mujoco.MjSpec) -> None:
        lists: dict[str, Any] = {"actuator": spec.actuators, "sensor": spec.sensors}
        for delay in self.delays:
            target = lists[delay.kind][delay.index]
            target.nsample, target.delay = delay.samples, delay.seconds


@dataclass(frozen=True)
class Samples:
    """Samples of a history, and what the reset state has for each.

    Attributes:
        places: [k] where they are in `history`.
        sources: [k] in `ctrl`, or in `sensordata`.
    """

    places: Tensor
    sources: Tensor

    def fill(self, history: Tensor, values: Tensor, mask: Tensor) -> None:
        """Set the samples in history [N, nhistory] to values [N, size] in the simulations of mask [N]."""
        present = history[:, self.places]
        history[:, self.places] = torch.where(mask[:, None], values[:, self.sources].to(history.dtype), present)


def control_samples(model: mujoco.MjModel, device: torch.device) -> Samples:
    """The samples of delayed actuators, which come from `ctrl`."""
    m = model
    return _samples(m.actuator_historyadr, m.actuator_history[:, 0], m.actuator_ctrladr, m.actuator_ctrlnum, device)


def sensor_samples(model: mujoco.MjModel, device: torch.device) -> Samples:
    """The samples of delayed sensors, which come from `sensordata`."""
    return _samples(model.sensor_historyadr, model.sensor_history[:, 0], model.sensor_adr, model.sensor_dim, device)


def _samples(
    addresses: np.ndarray, counts: np.ndarray, starts: np.ndarray, sizes: np.ndarray, device: torch.device
) -> Samples:
    """Of histories at `addresses` (-1 for none) of `counts` samples, each of `sizes` values from `starts` on."""
    places: list[int] = []
    sources: list[int] = []
    for parts in zip(addresses, counts, starts, sizes, strict=True):
        address, count, source, size = map(int, parts)
        if address >= 0 and count > 0:
            start = address + _HEADER + count
            places += range(start, start + count * size)
            sources += [*range(source, source + size)] * count
    return Samples(*(torch.tensor(numbers, dtype=torch.int64, device=device) for numbers in (places, sources)))
