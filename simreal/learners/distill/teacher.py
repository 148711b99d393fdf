"""A finished run's policy, asked in the environments of a student what it would do."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from envs.environment import Observed
from simreal.learners.base import GivenPolicy, LearnerSpec
from simreal.learners.history import HistoryPolicy
from simreal.learners.privileged import PrivilegedView


class Teacher:
    """Follows N environments, whoever acts in them.

    It reads what it read in its own training: the policy group as the student's sensors show it and, where it was
    trained so, the privileged group and the world, which are as they are.

    Args:
        given: the policy.
        spec: of the student's environments.

    Raises:
        ValueError: they show other values than those that it learnt in.
    """

    def __init__(self, given: GivenPolicy, spec: LearnerSpec) -> None:
        theirs, name = given.spec, given.run
        privileged = given.options.reads_privileged
        self.name = name
        sizes = [("values of the policy group", theirs.observation_size, spec.observation_size)]
        if privileged:
            there, here = (s.privileged_size - len(s.parameters) for s in (theirs, spec))
            sizes.append(("privileged values of the task", there, here))
        sizes.append(("actions", theirs.action_size, spec.action_size))
        for what, there, here in sizes:
            if there != here:
                raise ValueError(f"{name}: was trained with {there} {what}, here there are {here}")
        self._view = PrivilegedView(theirs.parameters, spec.parameters) if privileged else None
        self._module: Any = given.module.to(spec.device).eval().requires_grad_(False)
        self._initial: Tensor | None = None
        if hasattr(self._module, "initial_state"):
            self._initial = self._module.initial_state(spec.num_envs).to(spec.device)
        self.state = torch.zeros(spec.num_envs, 0, device=spec.device) if self._initial is None else self._initial
        self._next, self._seen = self.state, self.state

    def digest(self) -> str:
        """A fingerprint of its policy: a run that goes on with another teacher is another run."""
        made = hashlib.sha256()
        for tensor in self._module.state_dict().values():
            made.update(tensor.detach().cpu().numpy().tobytes())
        return made.hexdigest()

    @torch.no_grad()
    def action(self, observed: Observed) -> Tensor:
        """What it would do [N, A], in [-1, 1]."""
        self._seen = (observed.policy if self._view is None else self._view(observed)).to(self.state.device).float()
        if self._initial is None:
            return self._module(self._seen).clamp(-1.0, 1.0)
        action, self._next = self._module(self._seen, self.state)
        return action.clamp(-1.0, 1.0)

    @torch.no_grad()
    def advance(self, action: Tensor, done: Tensor) -> None:
        """Take in what was done [N, A] after the last `action`, and which episodes ended with it [N]."""
        if self._initial is None:
            return
        if isinstance(self._module, HistoryPolicy):  # it remembers what was done, which is not what it would have done
            seen = self._module.normalizer(self._seen)
            self._next = self._module.layout.after(self.state, seen, action)
        rows = done.view(-1, *[1] * (self.state.dim() - 1))
        self.state = torch.where(rows, self._initial, self._next)
