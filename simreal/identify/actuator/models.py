"""Descriptions of an actuator that are fitted to its log, beside the network: an ideal PD and a DC motor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from simreal.learners.adam import Adam

_STEPS, _MOST, _RATE = 600, 6000, 0.05
_AT_REST = 0.05  # rad/s over which Coulomb friction turns its sign


def ideal_pd(
    error: Tensor, speed: Tensor, torque: Tensor
) -> tuple[Callable[[Tensor, Tensor], Tensor], dict[str, float]]:
    """The PD that fits best: torque = kp error - kd speed, by least squares.

    Args:
        error, speed, torque: [T] rad, rad/s, N m.
    """
    gains = torch.linalg.lstsq(torch.stack((error, -speed), dim=1), torque[:, None]).solution[:, 0]
    kp, kd = float(gains[0]), float(gains[1])
    return lambda e, v: kp * e - kd * v, {"kp": kp, "kd": kd}


def dc_motor(
    error: Tensor, speed: Tensor, torque: Tensor
) -> tuple[Callable[[Tensor, Tensor], Tensor], dict[str, float]]:
    """A DC motor under a PD: torques that the PD asks for, within what the voltage allows at that speed, less Coulomb
    and viscous friction. Six numbers, fitted by gradients from the best PD on.

    Args:
        error, speed, torque: [T] rad, rad/s, N m.
    """
    _, start = ideal_pd(error, speed, torque)
    largest, fastest = float(torque.abs().max()), float(speed.abs().max())
    names = ("kp", "kd", "stall", "no_load", "coulomb", "viscous")
    values = [max(start["kp"], 1e-3), max(start["kd"], 1e-3), largest, 3.0 * fastest, 0.02 * largest, 1e-3]
    logs = nn.Parameter(torch.tensor(values).clamp(min=1e-6).log())
    step = max(1, len(torque) // _MOST)
    e, v, t = (x[::step].float() for x in (error, speed, torque))
    optimizer = Adam([logs], lr=_RATE)
    for i in range(_STEPS):
        optimizer.lr = _RATE * (1.0 - i / _STEPS)
        optimizer.zero_grad()
        loss = (_dc(logs.exp(), e, v) - t).square().mean()
        loss.backward()
        optimizer.step()
    fitted = logs.detach().double().exp()
    return lambda e, v: _dc(fitted, e, v), dict(zip(names, fitted.tolist(), strict=True))


def _dc(parameters: Tensor, error: Tensor, speed: Tensor) -> Tensor:
    kp, kd, stall, no_load, coulomb, viscous = parameters
    share = speed / no_load
    asked = kp * error - kd * speed
    torque = torch.maximum(torch.minimum(asked, stall * (1.0 - share)), -stall * (1.0 + share))
    return torque - coulomb * torch.tanh(speed / _AT_REST) - viscous * speed
