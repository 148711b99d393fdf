"""The equations of a motor with its gear, as functions of tensors. Torques and speeds are those at the joint.

A DC motor (or a brushless one under field-oriented control) at a share s of its nominal voltage exerts at most

    stall * (s - speed / no_load)        against or along positive speeds, and likewise towards negative torque

(torque constant k, resistance R: torque = k (s V - k speed) / R, so stall = k V / R and no_load = V / k). Driven faster
than its no-load speed it brakes.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNLIMITED = 1e6  # rad/s: a no-load speed that is none
FOLDBACK = 0.2  # of the allowed temperature rise: where drives begin to take torque back


def slopes(stall: Tensor, no_load: Tensor, inertia: Tensor, timestep_s: Tensor) -> tuple[Tensor, Tensor]:
    """Torque that a motor has per rad/s below its no-load speed, and per rad/s beyond it [N, m].

    The second is no more than ends the excess within a physics step: a motor brakes no harder, or steep curves would
    not settle. Where the no-load speed is UNLIMITED nothing is limited.

    Args:
        stall: torque at rest, N m [N, m].
        no_load: speed without torque, rad/s [N, m].
        inertia: that the motor feels where nothing else is held, kg m^2 [m].
        timestep_s: of a physics step [N, 1].
    """
    below = torch.where(no_load < UNLIMITED, stall / no_load, UNLIMITED)
    return below, torch.minimum(below, inertia / timestep_s)


def torque_limits(speed: Tensor, reach: Tensor, below: Tensor, beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest torque [N, m] that the voltage allows.

    Args:
        speed: rad/s [N, m].
        reach: no-load speed at the present voltage, rad/s [N, m].
        below, beyond: see `slopes`.
    """
    left, right = reach - speed, reach + speed
    return -torch.maximum(below * right, beyond * right), torch.maximum(below * left, beyond * left)


def electrical_power(torque: Tensor, speed: Tensor, copper: Tensor) -> Tensor:
    """Power that a motor draws, W [N, m]: what it does, and what heats its winding. Below 0 where it generates.

    Args:
        torque, speed: N m, rad/s.
        copper: no-load speed / stall torque, which is R / k^2, W / (N m)^2.
    """
    return torque * torch.addcmul(speed, torque, copper)


def voltage_share(power: Tensor, sag: Tensor) -> Tensor:
    """Share of its open voltage V that a supply with resistance R has under a load of `power` W [N, 1].

    Args:
        sag: R / V^2, 1/W [N, 1]. From P = U I and U = V - R I: U / V = (1 + sqrt(1 - 4 sag P)) / 2. It cannot give
            more than V^2 / 4R, at half of the voltage.
    """
    return 0.5 * (1.0 + (1.0 - 4.0 * sag * power.clamp(min=0.0)).clamp(min=0.0).sqrt())


def warmed(heat: Tensor, torque: Tensor, continuous: Tensor, share: Tensor) -> Tensor:
    """Temperature after a physics step, as a share of the allowed rise [N, m].

    One body that cools into its surroundings: T dh/dt = (torque / continuous)^2 - h.

    Args:
        heat: before.
        torque: N m, that held during the step.
        continuous: torque that leads to the allowed rise in the end, N m.
        share: 1 - exp(-timestep / T) [N, 1].
    """
    return heat + ((torque / continuous).square() - heat) * share


def derated(peak: Tensor, continuous: Tensor, heat: Tensor) -> Tensor:
    """The largest torque that a drive allows [N, m]: the peak until FOLDBACK below the allowed temperature rise, from
    there less, and at that rise what the motor bears for ever."""
    left = ((1.0 - heat) / FOLDBACK).clamp(0.0, 1.0)
    return torch.lerp(continuous, peak, left)


def gear_loss(
    torque: Tensor, speed: Tensor, held: Tensor, lost_driving: Tensor, lost_back: Tensor, still: float
) -> Tensor:
    """Friction torque of a gear [N, m], against the motion.

    Where the motor drives, (1 - lost_driving) * torque reaches the joint; where the joint drives the motor, it takes
    (1 + lost_back) * torque to move it. At rest that is decided by what the joint would do if friction did not hold it.

    Args:
        torque: of the motor, N m.
        speed: rad/s.
        held: torque of friction (and other constraints) on the joint: where it helps the motor, a load is held.
        lost_driving, lost_back: 1 - efficiency, and 1 / efficiency - 1 of the other direction.
        still: rad/s, below which a joint is at rest.
    """
    towards = torque.sign()
    back = torch.where(speed.abs() < still, towards * held > 0, towards * speed < 0)
    return torque.abs() * torch.where(back, lost_back, lost_driving)


def stribeck(speed: Tensor, stiction: Tensor, stribeck_speed: Tensor) -> Tensor:
    """What friction at rest has more than Coulomb's, and loses with speed: stiction * exp(-(speed / v_s)^2), N m [N, m]
    (Armstrong-Helouvry et al., Automatica 30 (1994), eq. 2)."""
    return stiction * torch.exp(-(speed / stribeck_speed).square())
