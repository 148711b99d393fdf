"""What a person may command in place of a task: velocities, goals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.common.step_records import Observed
from envs.environment import Environment
from envs.task import Component
from randomization.samplers.base import Manual
from simreal.training.build import make_environment
from simreal.training.run_directory import LoadedPolicy

_GOALS = 64  # that are drawn to see where goals are


class Steering:
    """One component of the observation that says what is wanted of the policy.

    Args:
        environment: of one simulation.
        component: of the policy group.
        tensor: of the task, [1, k], where it is kept; written to.
        low, high: [k] ends of sliders.

    Attributes:
        wanted: [k] what is commanded; None leaves it to the task.
    """

    def __init__(
        self, environment: Environment, component: Component, tensor: str, low: Sequence[float], high: Sequence[float]
    ) -> None:
        self.component, self._tensor, self._task = component, tensor, environment.task
        self._where = environment.task.slices("policy")[component.name]
        self.low, self.high = tuple(low), tuple(high)
        self.wanted: list[float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """One for each value."""
        c = self.component
        return c.elements or tuple(f"{c.name} {i}" for i in range(c.size))

    @property
    def present(self) -> list[float]:
        """[k] what holds now."""
        return self._live()[0].tolist()

    def _live(self) -> Tensor:
        return getattr(self._task, self._tensor)

    def write(self, observed: Observed) -> None:
        """Command what is wanted, in the task and in what the policy is about to read, where it is not so yet."""
        if self.wanted is None:
            return
        live = self._live()
        live.copy_(torch.tensor([self.wanted], dtype=live.dtype, device=live.device))
        observed.policy[:, self._where] = live.to(observed.policy)
        if self._tensor == "goal" and observed.desired_goal is not None:
            observed.desired_goal.copy_(live)


def find_steering(policy: LoadedPolicy, environment: Environment) -> Steering | None:
    """What of a policy can be steered: a command that its task names (`Task.steered`), or a goal that is a place."""
    task = environment.task
    components = {c.name: c for c in task.components("policy")}
    for name, (tensor, most) in task.steered.items():
        limits = [float(value) for value in most]
        return Steering(environment, components[name], tensor, [-value for value in limits], limits)
    if not task.goal_size or {part.strip() for part in task.components("policy")[-1].unit.split(",")} != {"m"}:
        return None
    options = policy.task_options  # an environment that the policy does not get to know
    drawn = make_environment(policy.task_id, _GOALS, sampler=Manual([]), engine="cpu", task_options=options)
    goals = drawn.reset().desired_goal
    assert goals is not None
    low, high = goals.amin(dim=0).tolist(), goals.amax(dim=0).tolist()
    return Steering(environment, task.components("policy")[-1], "goal", low, high)
