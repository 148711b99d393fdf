"""Adam (Kingma and Ba 2015, arXiv 1412.6980) over torch's fused step.

`torch.optim.Adam` does the same arithmetic, but the first one that is made imports torch's compiler: about three
seconds before a run's first step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Adam:
    """Optimizer of float32 parameters; steps equal those of `torch.optim.Adam(fused=True)` bit for bit.

    Args:
        parameters: all are changed by every `step`, in place, and need a gradient then.
        lr: step size; may be set between steps.
        eps: added to the root of the second moment.

    Attributes:
        lr: the present step size.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self.lr, self._eps = lr, eps
        self._first = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        self._second = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        # One number for each parameter, counted up at once: one by one they would cost as much as the moments.
        device = self._parameters[0].device
        self._counts = torch.zeros(len(self._parameters), dtype=torch.float32, device=device)
        self._steps = list(self._counts.unbind())

    def tensors(self) -> list[Tensor]:
        """All that a step changes beside the parameters; live."""
        return [*self._first, *self._second, self._counts]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, gradients: list[Tensor] | None = None) -> None:
        """Move the parameters against these gradients, or else their own. Raises ValueError where one has none."""
        if gradients is None:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
        if len(gradients) != len(self._parameters):
            raise ValueError("a parameter has no gradient")
        self._counts += 1.0
        torch._fused_adam_(
            self._parameters, gradients, self._first, self._second, [], self._steps,
            lr=self.lr, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=self._eps, amsgrad=False, maximize=False,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """As torch's Adam has it."""
        moments = zip(self._steps, self._first, self._second, strict=True)
        state = {i: {"step": s, "exp_avg": m, "exp_avg_sq": v} for i, (s, m, v) in enumerate(moments)}
        return {"state": state, "param_groups": [{"lr": self.lr}]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes torch's too; one that has made no step has no moments."""
        kept = {int(index): moments for index, moments in state["state"].items()}
        if kept and sorted(kept) != list(range(len(self._parameters))):
            raise ValueError(f"optimizer: expected moments of {len(self._parameters)} parameters, got {len(kept)}")
        for i, (step, first, second) in enumerate(zip(self._steps, self._first, self._second, strict=True)):
            for own, name in ((step, "step"), (first, "exp_avg"), (second, "exp_avg_sq")):
                if kept:
                    own.copy_(kept[i][name])
                else:
                    own.zero_()
        self.lr = float(state["param_groups"][0]["lr"])
