"""What costs FetchPush its successes in held-out worlds: policies in one difference at a time, and pushers by hand.

    python benchmarks/fetch_push_worlds.py OUT.json [RUN ...] [--episodes 200] [--worlds NAME ...] [--steps 50]

A pusher goes behind the block and pushes it to the goal. `knows` is told where gripper and block are, and `slow` is
too, and pushes slowly: what they reach can be reached in a world, by whoever knows it. `sees` takes the last reading of
the sensors as it is, and `filters` averages readings along the velocities that it is shown. A table goes to the
terminal, all figures to OUT.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mujoco
import torch
from torch import Tensor

from envs.environment import Environment
from envs.registry import make_task
from envs.task import id_of
from randomization.parameters import build_parameters
from randomization.samplers.base import Manual
from simreal.evaluation.evaluate import evaluate
from simreal.evaluation.intervals import wilson
from simreal.evaluation.worlds import World, find_world
from simreal.training.run_directory import LoadedPolicy, load_policy

TASK = "FetchPush-v4"
_POSITIONS = ["grip_pos", "object_pos"]


def _delay(ms: float) -> dict[str, Any]:
    return {"action_delay": {"range": [ms, ms]}}


def _noise(m: float, of: Sequence[str] = _POSITIONS) -> dict[str, Any]:
    return {"observation_noise": {"of": list(of), "range": [m, m]}}


def _bias(m: float, of: Sequence[str] = _POSITIONS) -> dict[str, Any]:
    return {"observation_bias": {"of": list(of), "range": [m, m]}}


def _friction(factor: float) -> dict[str, Any]:
    return {"geom_friction": {"range": [factor, factor]}}


def _mass(factor: float) -> dict[str, Any]:
    return {"body_mass": {"of": "object0", "range": [factor, factor]}}


WORLDS: dict[str, dict[str, Any]] = {
    "nominal": {},
    "delay 60 ms": _delay(60),
    "delay 120 ms": _delay(120),
    "delay 160 ms": _delay(160),
    "noise 1 cm": _noise(0.01),
    "noise 1.5 cm": _noise(0.015),
    "bias 0.5 cm": _bias(0.005),
    "bias 1 cm": _bias(0.01),
    "bias 1.5 cm": _bias(0.015),
    "bias 1 cm, block": _bias(0.01, ["object_pos"]),
    "bias 1 cm, gripper": _bias(0.01, ["grip_pos"]),
    "friction 0.4": _friction(0.4),
    "friction 2": _friction(2.0),
    "mass 0.25": _mass(0.25),
    "mass 4": _mass(4.0),
    "noise and bias 1 cm": _noise(0.01) | _bias(0.01),
    "120 ms, noise 1 cm": _delay(120) | _noise(0.01),
    "120 ms, bias 1 cm": _delay(120) | _bias(0.01),
    "120 ms, noise, bias": _delay(120) | _noise(0.01) | _bias(0.01),
    "issue: 0.4, 160 ms, bias": _friction(0.4) | _delay(160) | _bias(0.01),
    "0.4, 160 ms": _friction(0.4) | _delay(160),
}

_LOW_M, _HIGH_M = 0.0, 0.08  # of the fingers above the block's middle: to push, and to pass over it
_STANDOFF_M, _CONTACT_M, _ASIDE_M = 0.065, 0.03, 0.02
_SEED = 1_000_003
_REACH_M = 0.05  # of an action of 1


@dataclass
class Pusher:
    """Goes behind the block, and pushes it along the line to the goal.

    Args:
        reads: "truth", "filtered" or "last".
        step_m: by which it pushes at most in a control step.
    """

    reads: str
    step_m: float = 0.05
    environments: list[Environment] = field(default_factory=list)
    _count: Tensor = field(default_factory=lambda: torch.zeros(0))
    _grip: Tensor = field(default_factory=lambda: torch.zeros(0))
    _block: Tensor = field(default_factory=lambda: torch.zeros(0))
    _moved: Tensor = field(default_factory=lambda: torch.zeros(0))

    def policy(self, name: str, steps: int | None) -> LoadedPolicy:
        """It, to be evaluated in episodes of so many steps (None: the task's)."""
        return _Playing(name, TASK, self.act, self.reset, [], None, None, playing=self.environments, steps=steps)

    def reset(self, mask: Tensor) -> None:
        """Forget what was measured in the episodes of mask [N]."""
        if len(self._count) != len(mask):
            self._count = torch.zeros(len(mask), 1, dtype=torch.float64)
            self._grip, self._block = (torch.zeros(len(mask), 3, dtype=torch.float64) for _ in range(2))
            self._moved = torch.zeros(len(mask), 6, dtype=torch.float64)
        self._count[mask] = 0.0

    def where(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Gripper and block [N, 3], m."""
        env = self.environments[0]
        if self.reads == "truth":
            at, model = env.engine.data("site_xpos"), env.task.model
            grip, block = (id_of(model, mujoco.mjtObj.mjOBJ_SITE, name) for name in ("robot0:grip", "object0"))
            return at[:, grip].clone(), at[:, block].clone()
        parts = env.task.slices("policy")
        grip, block = seen[:, parts["grip_pos"]], seen[:, parts["object_pos"]]
        if self.reads == "last":
            return grip, block
        speed = torch.cat((seen[:, parts["grip_velp"]], seen[:, parts["object_velp"]] + seen[:, parts["grip_velp"]]), 1)
        step = torch.where(self._count > 0, 0.5 * (speed + self._moved), 0.0)
        self._moved, self._count = speed, (self._count + 1.0).clamp(max=15.0)
        self._grip = self._grip + step[:, :3]
        self._block = self._block + step[:, 3:]
        self._grip += (grip - self._grip) / self._count
        self._block += (block - self._block) / self._count
        return self._grip, self._block

    def act(self, observation: Tensor) -> Tensor:
        """Observation [N, nobs] -> action [N, 4]."""
        seen, env = observation.double(), self.environments[0]
        grip, block = self.where(seen)
        goal = seen[:, env.task.slices("policy")["desired_goal"]]
        way = goal[:, :2] - block[:, :2]
        left = way.norm(dim=1, keepdim=True)
        way = way / left.clamp(min=1e-6)
        relative = grip[:, :2] - block[:, :2]
        along = (relative * way).sum(dim=1, keepdim=True)
        aside = relative - along * way
        behind = block[:, :2] - _STANDOFF_M * way
        to_behind = behind - grip[:, :2]
        height = grip[:, 2:] - goal[:, 2:]
        ready = (along < -_CONTACT_M) & (aside.norm(dim=1, keepdim=True) < _ASIDE_M)
        ready &= (along > -_STANDOFF_M - 0.03) & (height < 0.025)
        # how near the straight way to the place behind the block comes to it
        share = (
            -(relative * to_behind).sum(1, keepdim=True) / to_behind.pow(2).sum(1, keepdim=True).clamp(min=1e-9)
        ).clamp(0, 1)
        near = (relative + share * to_behind).norm(dim=1, keepdim=True) < 0.055
        there = to_behind.norm(dim=1, keepdim=True) < 0.015
        lift = near & ~there & (relative.norm(dim=1, keepdim=True) < 0.085) & (height < _HIGH_M - 0.025)
        wanted_height = torch.where(ready | there | ~near, _LOW_M, _HIGH_M)
        approach = torch.where(lift, torch.zeros_like(to_behind), to_behind)
        push = way * (0.7 * left + 0.008).clamp(max=self.step_m) - 0.7 * aside
        level = torch.where(ready, push, approach)
        level = torch.where(left < 0.012, torch.zeros_like(level), level)
        move = torch.cat((level, wanted_height - height), dim=1) / _REACH_M
        return torch.cat((move, torch.zeros_like(left)), dim=1).clamp(-1.0, 1.0).float()


PUSHERS = {"knows": ("truth",), "slow": ("truth", 0.02), "filters": ("filtered",), "sees": ("last",)}


@dataclass(frozen=True)
class _Playing(LoadedPolicy):
    """A policy that is told which environments it plays, and may be given more time than the task gives."""

    playing: list[Environment] = field(default_factory=list)
    steps: int | None = None

    def make_environment(self, *args: Any, **kwargs: Any) -> Environment:
        environment = super().make_environment(*args, **kwargs)
        environment.max_episode_steps = self.steps or environment.max_episode_steps
        self.playing[:] = [environment]
        return environment


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS))
    parser.add_argument("--pushers", nargs="*", default=list(PUSHERS))
    parser.add_argument("--steps", type=int, default=None, help="another time limit than 50 control steps")
    options = parser.parse_args()
    policies = [Pusher(*PUSHERS[name]).policy(name, options.steps) for name in options.pushers]
    policies += [_Playing(**vars(load_policy(run)), steps=options.steps) for run in options.runs]
    print(f"{'':26}" + "".join(f"{name:>14}" for name in [*(p.name for p in policies), "knows or slow"]), flush=True)
    rows: dict[str, dict[str, Any]] = {}
    for name in options.worlds:
        world = _world(name, policies[0])
        rows[name] = _row(policies, world, options.episodes)
        print(f"{name:26}" + "".join(f"{found['success']:14.3f}" for found in rows[name].values()), flush=True)
        options.out.write_text(json.dumps({"episodes": options.episodes, "worlds": rows}, indent=1))


def _world(name: str, policy: LoadedPolicy) -> World:
    """One of WORLDS, or one that `simreal evaluate` knows."""
    if name not in WORLDS:
        return find_world(name, policy)
    return World(name, Manual(build_parameters(make_task(TASK), WORLDS[name])))


def _row(policies: Sequence[LoadedPolicy], world: World, episodes: int) -> dict[str, Any]:
    """Success of every policy with its interval, and of whoever would know at which speed to push."""
    found = {p.name: evaluate(p, [world], episodes, None, _SEED)["worlds"][0] for p in policies}
    row = {name: {"success": r["success_rate"], "ci95": r["success_ci95"]} for name, r in found.items()}
    if {"knows", "slow"} <= found.keys():
        pairs = zip(*(found[name]["samples"]["success"] for name in ("knows", "slow")), strict=True)
        either = sum(map(any, pairs))
        row["knows or slow"] = {"success": either / episodes, "ci95": list(wilson(either, episodes))}
    return row


if __name__ == "__main__":
    main()
