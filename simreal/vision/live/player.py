"""Plays one simulation of a policy's task, and lets somebody change the world, the command and the policy meanwhile."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from envs.common.step_records import Mark, Observed, StepResult
from envs.engines.cpu import CpuEngine
from envs.task import Component
from randomization.randomizer import DomainRandomizer
from simreal.training.run_directory import LoadedPolicy
from simreal.vision.live.dials import Dial, steerable
from simreal.vision.live.history import History
from simreal.vision.live.steering import find_steering

Points = NDArray[np.float64]
_KEPT_S = 10.0  # of plots


@dataclass
class Push:
    """A force on a body.

    Attributes:
        body: its index.
        force: [3] N, in the world's axes, at the body's centre of mass.
        steps: control steps that it acts for, from now on.
    """

    body: int
    force: Points
    steps: int


@dataclass(frozen=True)
class Contacts:
    """What touches: places [k, 3] m and forces [k, 3] N, in the world's axes."""

    places: Points
    forces: Points


class Player:
    """One simulation. All methods are to be called from one thread.

    Args:
        policy: what plays.
        dials: the world's quantities.
        seed: of episodes.

    Attributes:
        environment: of one simulation.
        layer: its randomization; `layer.lam` [1, d] is the world that it is in.
        dials: in the order of lam.
        steering: what can be commanded; None where nothing can.
        rewards, observations: of the last seconds; `rewards` begins with the reward itself.
        episode: its number, from 1.
        time_s: since it began.
        total: reward since then.
        ended: how the last episode ended, in words.
        played: control steps so far, of all episodes.
        pushes: that act now.
        model, data: to look at, with the present poses after `look`.
    """

    def __init__(self, policy: LoadedPolicy, dials: Sequence[Dial], seed: int) -> None:
        self.policy, self.dials = policy, list(dials)
        self._held, sampler = steerable(self.dials)
        self.environment = policy.make_environment(1, sampler, seed)
        assert isinstance(self.environment.layer, DomainRandomizer)
        self.layer = self.environment.layer
        self._place = {dial.label: i for i, dial in enumerate(self.dials)}
        task = self.environment.task
        self._rows = max(2, round(_KEPT_S / task.control_period_s))
        self.components = [*task.components("policy"), *task.components("privileged")]
        self.observations = History(tuple(name for c in self.components for name in value_names(c)), self._rows)
        self.rewards = History((), self._rows)
        self.pushes: list[Push] = []
        self.episode, self.time_s, self.total, self.ended, self.played = 0, 0.0, 0.0, "", 0
        self.model = copy.copy(self.environment.engine.model)
        self.data = mujoco.MjData(self.model)
        self.steering = find_steering(policy, self.environment)
        self._result: StepResult | None = None
        self.reset()

    @property
    def body_names(self) -> list[str]:
        """Of all bodies; numbers where there is no name."""
        return [self.model.body(i).name or f"body {i}" for i in range(self.model.nbody)]

    def play(self, policy: LoadedPolicy) -> None:
        """Go on with another policy of the same task, from the next step on."""
        self.policy = policy
        self._read = policy.reader(self.environment)
        policy.reset(torch.ones(1, dtype=torch.bool))

    def reset(self) -> None:
        """Begin the next episode."""
        self.pushes.clear()
        self._observed = self.environment.reset()
        self.play(self.policy)
        self._begun()

    def _begun(self) -> None:
        self.episode, self.time_s, self.total = self.episode + 1, 0.0, 0.0
        if self.steering is not None:
            self.steering.write(self._observed)
        self.observations.clear()
        self.rewards.clear()

    def set(self, label: str, value: float) -> None:
        """Give a quantity a value: from the next control step on, or from the next episode where it cannot change
        within one (`Dial.fixed`)."""
        place = self._place[label]
        low, high = self.dials[place].parameter.limits
        self._held.values[place] = min(max(value, low), high)
        if not self.dials[place].fixed:
            lam = self.layer.lam.clone()
            for i, dial in enumerate(self.dials):
                if not dial.fixed:
                    lam[0, i] = self._held.values[i]
            self.layer.steer(lam)

    def wanted(self, label: str) -> float:
        """The value that a quantity was given last."""
        return float(self._held.values[self._place[label]])

    def push(self, body: int, force: Points, duration_s: float) -> None:
        """Push a body with a force [3], N, for a time, rounded up to control steps."""
        steps = max(1, round(duration_s / self.environment.task.control_period_s))
        self.pushes.append(Push(body, np.asarray(force, dtype=float), steps))

    def step(self) -> StepResult:
        """One control step; an episode that ends is followed by the next."""
        self._apply_pushes()
        action = self.policy.act(self._read(self._observed).cpu())
        result = self.environment.step(action)
        self._observed = result.observed
        self.time_s += self.environment.task.control_period_s
        self.played += 1
        self.total += float(result.reward[0])
        self._note(result)
        if bool(result.done[0]):
            self.ended = _how(result)
            self.policy.reset(result.done.cpu())
            self.pushes.clear()
            self._begun()
        elif self.steering is not None:
            self.steering.write(self._observed)
        return result

    def _apply_pushes(self) -> None:
        """Write what pushes bodies in this control step, and nothing where a push has ended."""
        if not self.pushes:
            return
        applied = self.environment.engine.data("xfrc_applied")
        for push in self.pushes:
            applied[0, push.body] = 0.0
        for push in self.pushes:
            if push.steps > 0:
                applied[0, push.body, :3] += torch.as_tensor(push.force).to(applied)
            push.steps -= 1
        self.pushes = [push for push in self.pushes if push.steps >= 0]  # those that have ended write zeros once

    def _note(self, result: StepResult) -> None:
        final = result.final
        groups = [final.policy] if final.privileged is None else [final.policy, final.privileged]
        shown = torch.cat([group[0].cpu().double() for group in groups])[: len(self.observations.names)]
        self.observations.add(self.time_s, shown.numpy())
        names = ("reward", *result.terms)
        if self.rewards.names != names:
            self.rewards = History(names, self._rows)
        values = [float(result.reward[0]), *(float(value[0]) for value in result.terms.values())]
        self.rewards.add(self.time_s, np.array(values))

    def look(self) -> Sequence[Mark]:
        """Bring `model` and `data` to the present poses, the goal's among them; returns marks that show a goal."""
        engine = self.environment.engine
        if isinstance(engine, CpuEngine):
            for _ in engine.poses([0], self.model, self.data):
                pass
        else:
            self.model, self.data = engine.export_to_mujoco(0)
        return self.environment.task.draw_goal(self.model, self.data, 0) or ()

    def contacts(self) -> Contacts:
        """What touches now, and how hard."""
        model, data = self.environment.engine.export_to_mujoco(0)
        places, forces, force = np.zeros((data.ncon, 3)), np.zeros((data.ncon, 3)), np.zeros(6)
        for i in range(data.ncon):
            mujoco.mj_contactForce(model, data, i, force)
            places[i] = data.contact.pos[i]
            forces[i] = data.contact.frame[i].reshape(3, 3).T @ force[:3]  # on the second geom
            if not int(model.body_weldid[model.geom_bodyid[max(int(data.contact.geom[i][1]), 0)]]):
                forces[i] *= -1.0  # which stands still: show what the other one feels
        return Contacts(places, forces)

    @property
    def observed(self) -> Observed:
        """What the policy is about to act on."""
        return self._observed


def value_names(component: Component) -> tuple[str, ...]:
    """A name for each value of a component."""
    if component.size == 1:
        return (component.name,)
    elements = component.elements or tuple(map(str, range(component.size)))
    return tuple(f"{component.name} {element}" for element in elements)


def _how(result: StepResult) -> str:
    """How an episode ended."""
    if bool(result.diverged[0]):
        return "the simulation became unstable"
    end = "terminated" if bool(result.terminated[0]) else "time was up"
    steps, total = int(result.episode_steps[0]), float(result.episode_return[0])
    success = ", success" if bool(result.success[0]) else ""
    return f"{end} after {steps} steps{success}, return {total:.3g}"
