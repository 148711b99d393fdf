"""Where MuJoCo keeps what delayed actuators and sensors (`delay`, `nsample`) were given and measured.

`mjData.history` holds, for each of them: [a slot of its own, cursor, times (nsample), samples (nsample * size)]. A
reset sets the times before 0 and all samples to 0: a servo would be pulled to 0 rad, a quaternion would read 0 0 0 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

_HEADER = 2  # numbers before the times


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
    """Of actuators, which take from `ctrl`."""
    parts = zip(
        model.actuator_historyadr, model.actuator_history[:, 0], model.actuator_ctrladr, model.actuator_ctrlnum,
        strict=True,
    )  # fmt: skip
    return _samples([tuple(map(int, part)) for part in parts], device)


def sensor_samples(model: mujoco.MjModel, device: torch.device) -> Samples:
    """Of sensors, which write to `sensordata`."""
    parts = zip(model.sensor_historyadr, model.sensor_history[:, 0], model.sensor_adr, model.sensor_dim, strict=True)
    return _samples([tuple(map(int, part)) for part in parts], device)


def _samples(parts: list[tuple[int, ...]], device: torch.device) -> Samples:
    """Of parts (address in the history or -1, nsample, address of the values, their number)."""
    places: list[int] = []
    sources: list[int] = []
    for address, count, source, size in parts:
        if address >= 0 and count > 0:
            start = address + _HEADER + count
            places += range(start, start + count * size)
            sources += [source + k for _ in range(count) for k in range(size)]
    return Samples(*(torch.tensor(numbers, dtype=torch.int64, device=device) for numbers in (places, sources)))
