"""Notices what must not reach a learner: values of the wrong shape, and NaN or infinity.

A wrong shape is a fault of the task and stops. A value that is not finite belongs to one environment, whose
simulation has left what physics allows: its episode ends, the others go on. Where every environment shows such values
for several steps running it is the task that computes them, and that stops too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import mujoco
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.step_records import Observed
from envs.task import Component, Outcome, Task
from envs.validation.task_contract import check_command, check_goals, check_observed, check_outcome

_MOST_NONFINITE_STEPS = 10  # in a row with no sound environment, before the task is held responsible
_MOST = mujoco.mjMAXVAL  # what is larger, MuJoCo takes for a simulation that has become unstable
_log = logging.getLogger("simreal")


class Checks:
    """Watches one task in N environments.

    Shapes are looked at when they first appear or change (`envs.validation.task_contract`), numbers at every step.

    Args:
        task: its components state the expected shapes.
        num_envs: N.
        sync_allowed: whether results may be copied to the host. A GPU would have to finish its work first: there
            `nonfinite_mask` always returns a mask, and actions are not checked.
    """

    def __init__(self, task: Task, num_envs: int, sync_allowed: bool = True) -> None:
        self.sync_allowed = sync_allowed
        self._task, self._n = task, num_envs
        groups = {group: task.components(group) for group in ("policy", "privileged")}
        self._components: dict[str, tuple[Component, ...]] = groups
        self._shapes: dict[str, object] = {}  # of what was checked at length, once
        self._said: set[str] = set()
        self._nonfinite_steps = 0
        self._command_size = 0

    def observation(self, policy: Tensor, privileged: Tensor | None, achieved_goal: Tensor | None) -> None:
        """The shapes of observations. Raises TaskError, which names the component where one is to blame."""
        shapes = (_shape(policy), _shape(privileged), _shape(achieved_goal))
        if self._shapes.get("observation") != shapes:
            check_observed(self._task, self._n, policy, privileged, achieved_goal)
            if achieved_goal is not None:
                check_goals(self._task, achieved_goal)
            self._shapes["observation"] = shapes

    def derived(self, observation: Tensor, measured: Tensor) -> Tensor:
        """What `derive` made of what was measured. Raises TaskError for another shape."""
        if _shape(observation) != measured.shape:
            raise TaskError(
                f"task: {self._task.id}: derive: expected the observation {list(measured.shape)}, got "
                + (str(list(observation.shape)) if isinstance(observation, Tensor) else type(observation).__name__)
            )
        return observation

    def command(self, command: Tensor, size: int) -> None:
        """The shape of a command of `size` values. Raises TaskError."""
        self._command_size = size
        if self._shapes.get("command") != _shape(command):
            check_command(self._task, self._n, size, command)
            self._shapes["command"] = _shape(command)

    def outcome(self, outcome: Outcome) -> None:
        """Shapes and types of an outcome. Raises TaskError."""
        parts = list(vars(outcome).values()) if isinstance(outcome, Outcome) else [outcome]
        parts += list(outcome.terms.values()) if isinstance(outcome, Outcome) else []
        shapes = [(_shape(part), getattr(part, "dtype", None)) for part in parts]
        if self._shapes.get("outcome") != shapes:
            check_outcome(self._task, self._n, outcome)
            self._shapes["outcome"] = shapes

    def action(self, action: Tensor, steps: Tensor) -> None:
        """Raise ValueError if an action is not a number: the caller's fault, not the task's."""
        if self.sync_allowed and math.isnan(float(action.sum())) and bool(action.isnan().any()):
            i = int(action.isnan().any(dim=1).nonzero()[0])
            column = int(action[i].isnan().nonzero()[0])
            names = [f"{c.name}[{k}]" for c in self._task.action for k in range(c.size)]
            raise ValueError(f"action: environment {i}, step {int(steps[i])}: {names[column]} is nan")

    def sound(self, command: Tensor) -> tuple[Tensor, Tensor | None]:
        """A command as physics may get it, a copy with 0 for NaN, infinity and what MuJoCo takes for that; and, where
        there may have been some, the command as it was, which spoils the step.

        MuJoCo would take all controls of a simulation as 0 for one that is bad, and go on.
        """
        size = command.abs()
        if self.sync_allowed and (not command.numel() or float(size.amax()) <= _MOST):  # never so for NaN
            return command.clone(), None
        good = size <= _MOST
        return torch.where(good, command, 0.0), torch.where(good, command, command * math.inf)

    def say_of_rest(self, command: Tensor) -> None:
        """Warn of the command [N, C] of an action of zero, where it is no number."""
        if self.sync_allowed and not bool(command.isfinite().all()):
            i, column = (int(k) for k in (~command.isfinite()).nonzero()[0])
            name = self._command_element(column)
            self.warn_once(
                f"command {name} at rest",
                f"command {name} of an action of zero is {float(command[i, column])}; it is 0 until a command arrives",
            )

    def nonfinite_mask(
        self, observed: Observed, outcome: Outcome | None, command: Tensor | None, steps: Tensor
    ) -> Tensor | None:
        """Environments [N] (bool) that show NaN or infinity; None if there are none, which costs a few sums to know.

        Args:
            observed: what the environments show.
            outcome: of the step; None for observations that begin episodes.
            command: of the step, where it may not be finite.
            steps: [N] of the episodes, to name the first environment concerned.

        Raises:
            TaskError: no environment has been sound for several steps.
        """
        values: dict[str, Tensor | None] = {
            "command": command, "policy": observed.policy, "privileged": observed.privileged,
            "achieved goal": observed.achieved_goal, "reward": None if outcome is None else outcome.reward,
        }  # fmt: skip
        parts = {name: value for name, value in values.items() if value is not None}
        steps_before = self._nonfinite_steps
        if outcome is not None:  # first observations, of environments that were reset, say nothing of steps
            self._nonfinite_steps = 0
        if self.sync_allowed and math.isfinite(sum(float(value.sum()) for value in parts.values())):
            return None
        rows = {name: ~value.isfinite().view(self._n, -1).all(dim=1) for name, value in parts.items()}
        nonfinite = torch.stack(list(rows.values())).any(dim=0)
        if not self.sync_allowed:
            return nonfinite
        if not bool(nonfinite.any()):  # numbers so large that their sum is not one
            return None
        message = self._describe(parts, rows, outcome, steps)
        if outcome is not None and bool(nonfinite.all()):
            self._nonfinite_steps = steps_before + 1
            if self._nonfinite_steps >= _MOST_NONFINITE_STEPS:
                raise TaskError(f"{message}, and no environment was sound for {_MOST_NONFINITE_STEPS} steps")
        self.warn_once(message.partition(": ")[2], f"{message}; its episode ends, the others go on")
        return nonfinite

    def warn_once(self, kind: str, message: str) -> None:
        """Warn of something the first time that it happens; later `divergences` counts it."""
        if kind not in self._said:
            self._said.add(kind)
            _log.warning("warning: %s: %s", self._task.id, message)

    def _describe(
        self, parts: Mapping[str, Tensor], rows: Mapping[str, Tensor], outcome: Outcome | None, steps: Tensor
    ) -> str:
        """What the first environment concerned shows."""
        name = next(name for name, row in rows.items() if bool(row.any()))
        i = int(rows[name].nonzero()[0])
        values = parts[name].view(self._n, -1)[i]
        column = int((~values.isfinite()).nonzero()[0])
        where = f"environment {i}, step {int(steps[i])}: "
        if name in self._components:
            kind = "observation" if name == "policy" else "privileged"
            return where + f"{kind} component {self._element(name, column)} is {float(values[column])}"
        if name == "command":
            name = f"command {self._command_element(column)}"
        if name == "reward" and outcome is not None:
            terms = [key for key, term in outcome.terms.items() if not math.isfinite(float(term[i]))]
            name += f" ({terms[0]})" if terms else ""
        return where + f"{name} is {float(values[column])}"

    def _command_element(self, column: int) -> str:
        """A value of the command as MuJoCo names it: ctrl[2], mocap_pos[0]."""
        mocap, fields = self._task.model.nmocap, self._task.command_fields
        sizes = {"mocap_quat": 4 * mocap, "mocap_pos": 3 * mocap}
        sizes = {name: size for name, size in sizes.items() if name in fields}
        start = self._command_size
        for name, size in sizes.items():  # the last ones of a command
            start -= size
            if column >= start:
                return f"{name}[{column - start}]"
        return f"ctrl[{column}]"

    def _element(self, group: str, column: int) -> str:
        for part in self._components[group]:
            if column < part.size:
                return f"{part.name}[{part.elements[column] if part.elements else column}]"
            column -= part.size
        return f"[{column}] of what the randomization reveals"


def _shape(value: object) -> object:
    """The shape of a tensor; of anything else its type, which is no shape of a tensor."""
    return getattr(value, "shape", type(value))
