"""Losses of PPO and its family, and the rules by which a KL moves a step size or a penalty: functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.common.deterministic_ops import sum_all

TINY = 1e-37  # nearly the smallest float32 whose inverse is one
_ROUNDING = 1e-6  # equal values differ by less of their size, after the sums that gave them


def shares(weight: Tensor) -> Tensor:
    """Weights [...] of steps, 0 or 1, scaled to sum to 1 (to 0 if no step is valid)."""
    return weight / weight.sum().clamp(min=1.0)


def mean(value: Tensor, share: Tensor) -> Tensor:
    """Mean [] of values [...] over the valid steps; `share` as `shares` gives it."""
    return sum_all(value * share)


def standardized(value: Tensor, share: Tensor) -> Tensor:
    """Values [...] with mean 0 and standard deviation 1 over the valid steps, in any unit; all 0 if all are equal."""
    value = value / (value.abs() * (share > 0)).amax().clamp(min=TINY)  # squares of large or small ones leave float32
    centred = value - mean(value, share)
    deviation = mean(centred.square(), share).sqrt()
    return centred * torch.where(deviation > _ROUNDING, 1.0 / deviation, 0.0)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor, share: Tensor) -> Tensor:
    """-mean log pi A. Williams 1992; Sutton and Barto 2018, eq. 13.11, with a baseline in A."""
    return -mean(log_prob * advantage, share)


def surrogate_loss(ratio: Tensor, advantage: Tensor, share: Tensor) -> Tensor:
    """-mean rho A. Schulman et al. 2015, eq. 14."""
    return -mean(ratio * advantage, share)


def clipped_loss(ratio: Tensor, advantage: Tensor, share: Tensor, clip: float) -> Tensor:
    """-mean min(rho A, clip(rho, 1 - clip, 1 + clip) A). Schulman et al. 2017, eq. 7."""
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    return -mean(torch.minimum(ratio * advantage, clipped * advantage), share)


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, share: Tensor, clip: float | None) -> Tensor:
    """mean (V - target)^2; with `clip` the larger of it and that of V_old + clip(V - V_old, -clip, clip)."""
    loss = (value - target).square()
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        loss = torch.maximum(loss, (near - target).square())
    return mean(loss, share)


def bound_loss(mu: Tensor, share: Tensor) -> Tensor:
    """mean sum_i max(|mu_i| - 1, 0)^2 of mean actions [..., A]: how far they lie beyond what is not clipped.

    Noise around a mean far out is clipped away: the policy no longer explores, whatever its std and entropy are.
    """
    return mean((mu.abs() - 1.0).clamp(min=0.0).square().sum(dim=-1), share)


def kl_adapted_lr(lr: float, kl: float, desired: float, limits: tuple[float, float]) -> float:
    """The step size after a minibatch with `kl`: 1.5 times smaller above 2 desired, larger below desired / 2."""
    if kl > 2.0 * desired:
        lr /= 1.5
    elif 0.0 < kl < desired / 2.0:
        lr *= 1.5
    return min(max(lr, limits[0]), limits[1])


def kl_adapted_beta(beta: float, kl: float, desired: float) -> float:
    """The weight of the penalty after an update with `kl`. Schulman et al. 2017, section 4."""
    if kl < desired / 1.5:
        return beta / 2.0
    return beta * 2.0 if kl > desired * 1.5 else beta
