"""The policy step of TRPO (Schulman et al. 2015, arXiv 1502.05477, appendix C).

maximize  L(theta)  subject to  KL(theta_old || theta) <= bound

With g the gradient of L and F the Hessian of the KL at theta_old (the Fisher matrix):
    x = F^-1 g by conjugate gradients;  step = sqrt(2 bound / x'Fx) x;  halve until L improves within the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from envs.common.deterministic_ops import sum_all
from envs.common.ranks import ALONE, Ranks


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """x [n] with A x = b [n] for a symmetric positive definite A given by x -> A x (Hestenes and Stiefel 1952)."""
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    error = sum_all(residual * residual)
    for _ in range(iterations):
        if float(error) < 1e-20 * max(float(sum_all(b * b)), 1e-30):
            break
        image = product(direction)
        rate = error / sum_all(direction * image)
        x += rate * direction
        residual -= rate * image
        previous, error = error, sum_all(residual * residual)
        direction = residual + (error / previous) * direction
    return x


def fisher_product(
    kl: Tensor, parameters: Sequence[Tensor], damping: float, ranks: Ranks = ALONE
) -> Callable[[Tensor], Tensor]:
    """v [n] -> (F + damping I) v, by differentiating the KL [] at theta_old twice."""
    first = _flat(torch.autograd.grad(kl, parameters, create_graph=True, allow_unused=True), parameters)

    def product(v: Tensor) -> Tensor:
        second = torch.autograd.grad(sum_all(first * v), parameters, retain_graph=True, allow_unused=True)
        image = _flat(second, parameters)
        ranks.sum_(image)
        return image + damping * v

    return product


def trust_region_step(
    surrogate: Callable[[], Tensor],
    divergence: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    bound: float,
    *,
    iterations: int,
    damping: float,
    halvings: int = 10,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """Move the parameters, in place; they stay where they are if no step within the bound improves.

    Args:
        surrogate: L(theta) [] at the present parameters, to be maximized; on many ranks the part that is this one's.
        divergence: KL(theta_old || theta) [] at the present parameters, in nats; likewise.
        parameters: what to move.
        bound: largest KL.
        iterations: of the conjugate gradients.
        damping: added to the diagonal of F.
        halvings: of the step, at most.
        ranks: over which gradients and values are summed.

    Returns:
        kl, improvement, step_scale (0 where nothing was accepted) and grad_norm, to log.
    """
    start = [p.detach().clone() for p in parameters]
    with _twice_differentiable():
        before = surrogate()
        gradient = _flat(torch.autograd.grad(before, parameters, allow_unused=True), parameters)
        before = before.detach()
        ranks.sum_(gradient, before)
        product = fisher_product(divergence(), parameters, damping, ranks)
        direction = conjugate_gradient(product, gradient, iterations)
        curvature = sum_all(direction * product(direction)).clamp(min=1e-12)
        step = torch.sqrt(2.0 * bound / curvature) * direction
        log = {"grad_norm": gradient.norm()}
        with torch.no_grad():
            for i in range(halvings):
                scale = 0.5**i
                _move(parameters, start, scale * step)
                improvement, kl = surrogate(), divergence()
                ranks.sum_(improvement, kl)
                improvement -= before
                if float(improvement) > 0.0 and float(kl) <= bound:
                    return log | {"kl": kl, "improvement": improvement, "step_scale": torch.tensor(scale)}
            _move(parameters, start, torch.zeros_like(step))
    zero = torch.zeros(())
    return log | {"kl": zero, "improvement": zero, "step_scale": zero}


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Without the fused recurrent kernels, which have no second derivative."""
    mkldnn: Any = torch.backends.mkldnn  # its own `flags` warns about an unrelated flag
    before = mkldnn.enabled
    mkldnn.enabled = False
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        mkldnn.enabled = before


def _move(parameters: Sequence[Tensor], start: Sequence[Tensor], step: Tensor) -> None:
    """Set the parameters to `start` plus the flat `step`, in place."""
    parts = step.split([p.numel() for p in parameters])
    for parameter, origin, part in zip(parameters, start, parts, strict=True):
        parameter.copy_(origin + part.view_as(origin))


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """One vector of gradients; what does not depend on a parameter has gradient 0 there."""
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return torch.cat([part.reshape(-1) for part in parts])
