"""Renders pictures a chunk at a time: plays episodes, draws worlds, takes pictures, and notes what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.environment import Environment
from envs.task_state import preserved
from randomization.config import randomization_config
from randomization.samplers.base import Sampler
from randomization.visual.textures import UNSEEN
from simreal.common.errors import UserError
from simreal.training.build import make_environment
from simreal.training.run_directory import load_policy
from simreal.vision.datasets.plan import RANDOM, Chunking, PicturePlan, Worlds, chunk_seed, make, worlds_of
from simreal.vision.rendering.frames import FrameRenderer, Pictures, look_numbers, restart
from simreal.vision.rendering.mounts import mounted

Array = NDArray[np.float64]
_REDRAWN = 0.5  # probability that a random action does not go on: what is held moves things, what jitters does not


@dataclass(frozen=True)
class Chunk:
    """Frames of a chunk, in order.

    Attributes:
        pictures: [F, cameras, height, width, 3].
        states: by name, [F, k] float64: components of the observation, clean; the goal that is reached; qpos.
        worlds: [F, d] lambda, physics and then looks.
        boundary: [F] see `Sampler.draw`, of the looks.
    """

    pictures: Pictures
    states: dict[str, Array]
    worlds: Array
    boundary: NDArray[np.int64]

    def head(self, frames: int) -> Chunk:
        """The first ones."""
        states = {name: values[:frames] for name, values in self.states.items()}
        return Chunk(self.pictures[:frames], states, self.worlds[:frames], self.boundary[:frames])


class ChunkMaker:
    """Renders the chunks of a plan in this process.

    Args:
        plan: what to render.
        looks: of pictures; None: those of the plan.
        trusted: the task's name, where it is code that the user has named.

    Attributes:
        task: of the plan.
        worlds: whose looks may be replaced.
        chunking: of the frames.

    Raises:
        UserError, RandomizationError: naming what is wrong with the plan; or the machine cannot render.
    """

    def __init__(self, plan: PicturePlan, looks: Sampler | None = None, trusted: str | None = None) -> None:
        self.plan, self.task = plan, make(plan)
        block = randomization_config(plan.randomization or None)
        found = worlds_of(self.task, block)
        self.worlds = found if looks is None else Worlds(found.physics, looks)
        self.chunking = Chunking.of(self.task.max_episode_steps, plan.per_episode)
        self._trusted = trusted
        self._environment: Environment | None = None

    def prepare(self) -> None:
        """Make what rendering needs, if that is still to be done; before, nothing is loaded or opened."""
        if self._environment is not None:
            return
        plan, count = self.plan, self.chunking.environments
        with mounted(plan.mounts):
            environment = make_environment(
                plan.task, count, sampler=self.worlds.physics, engine="cpu", seed=plan.seed, threads=1, explore=False,
                task_options=plan.task_options,
            )  # fmt: skip
        environment.reset()
        self._begin, self._act = _actor(plan, environment, self._trusted)
        self._numbers = look_numbers(plan.seed, 0, count)
        self._renderer = FrameRenderer(
            environment, plan.cameras, plan.width, plan.height, self.worlds.parameters, self._numbers,
            patterns=UNSEEN if plan.unseen else 0,
        )  # fmt: skip
        self._environment = environment

    @torch.no_grad()
    def chunk(self, number: int, pictures: int | None = None) -> Chunk:
        """Chunk `number`; with `pictures`, only so many of each environment."""
        self.prepare()
        assert self._environment is not None
        environment, chunking = self._environment, self.chunking
        environment.reset(seed=chunk_seed(self.plan.seed, number))
        self._begin()
        taken: list[tuple[Pictures, dict[str, Tensor], Tensor, Tensor]] = []
        while True:
            taken.append(self._look(number, len(taken)))
            if len(taken) == (pictures or chunking.pictures):
                break
            for _ in range(chunking.every):
                environment.step(self._act())
        images, states, worlds, boundary = zip(*taken, strict=True)
        return Chunk(
            np.concatenate(images),
            {name: torch.cat([one[name] for one in states]).numpy() for name in states[0]},
            torch.cat(worlds).numpy(),
            torch.cat(boundary).numpy(),
        )

    def _look(self, chunk: int, k: int) -> tuple[Pictures, dict[str, Tensor], Tensor, Tensor]:
        """Pictures, states, worlds and boundaries of all environments now, which are the k-th of a chunk."""
        environment, chunking = self._environment, self.chunking
        assert environment is not None
        count, numbers = chunking.environments, self._numbers
        first = chunk * chunking.size + k * count
        if self.plan.looks == "episode":
            restart(numbers, chunk * count, step=k)
        else:
            restart(numbers, first)
        looks = self.worlds.looks
        u = numbers.episode_uniform("lambda", len(looks.parameters))
        seen, boundary = looks.draw(u, numbers.episode_uniform("boundary", 2))
        lam = torch.cat((environment.layer.lam, seen), dim=1)  # pyright: ignore[reportAttributeAccessIssue]
        return self._renderer.take(torch.arange(count), lam), states_of(environment), lam, boundary

    def close(self) -> None:
        """Free the renderer."""
        if self._environment is not None:
            self._renderer.close()
            self._environment = None


def _actor(plan: PicturePlan, environment: Environment, trusted: str | None) -> tuple[Callable[[], Any], Any]:
    """Functions that begin episodes everywhere, and that give the next actions [N, A]. Raises UserError."""
    task, numbers = environment.task, environment.rng
    everywhere = torch.ones(environment.num_envs, dtype=torch.bool)
    if plan.states == RANDOM:
        held = [torch.zeros(environment.num_envs, task.action_size, dtype=torch.float64)]

        def begin() -> None:
            held[0] = 2.0 * numbers.episode_uniform("first action", task.action_size) - 1.0

        def wander() -> Tensor:
            u = numbers.uniform("random action", 1 + task.action_size)
            held[0] = torch.where(u[:, :1] < _REDRAWN, 2.0 * u[:, 1:] - 1.0, held[0])
            return held[0]

        return begin, wander
    policy = load_policy(Path(plan.states).expanduser(), trusted)
    if policy.task_id != plan.task:
        raise UserError(f"states: {plan.states}: is of {policy.task_id}, expected a run of {plan.task}")
    read, over = policy.reader(environment), [everywhere]

    def restarted() -> None:
        policy.reset(everywhere)
        over[0] = torch.zeros_like(everywhere)

    def act() -> Tensor:
        begun = environment.steps == 0
        policy.reset(begun)
        return policy.act(read(environment.observed))

    return restarted, act


def states_of(environment: Environment) -> dict[str, Tensor]:
    """What environments are in, by name, [N, k] float64: the components of both groups, clean; what else
    pictures show; the goal that is reached; the model's positions."""
    task = environment.task
    with preserved(task):
        groups = {"policy": task.observe(), "privileged": task.observe_privileged()}
        found = {
            name: values[:, part]
            for group in ("policy", "privileged")
            if (values := groups[group]) is not None
            for name, part in task.slices(group).items()
        }
        found |= task.observe_pictured()
        if task.goal_size:
            found["achieved_goal"] = task.achieved_goal()
        return {
            name: v.double().cpu().clone() for name, v in (found | {"qpos": environment.engine.data("qpos")}).items()
        }
