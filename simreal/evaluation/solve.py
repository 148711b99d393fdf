"""`simreal solve`: the whole line for one Rubik's Cube, from a scramble over a plan and its subgoals to what a policy
makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import torch
from rich.console import Console

from envs.manipulation.rubiks.notation import Move, inverse, parse_moves, random_scramble, to_text
from envs.manipulation.rubiks.planner import Subgoal, solution, subgoals
from envs.manipulation.rubiks.state import SOLVED, after, from_string, to_string
from envs.manipulation.rubiks.task import RubiksCube
from simreal.common.atomic_files import write_text
from simreal.common.errors import UserError
from simreal.common.json_io import to_json, write_target
from simreal.evaluation.worlds import find_world
from simreal.training.run_directory import LoadedPolicy, load_policy
from simreal.vision.rendering.scene import VIDEOS, Scene, write_video
from simreal.vision.rendering.viewer import parse_size

_PICTURES = (".png", ".jpg", ".jpeg")
_STRIP = 8  # moments in a strip


@dataclass
class Outcome:
    """What became of a cube.

    Attributes:
        scramble: moves that it was scrambled with.
        plan: moves that solve it.
        subgoals: what the hand was to do.
        reached: how many of them it did, one after another; more where a face slipped and a plan was made anew.
        end: "solved", "dropped", "gave up" (no success for too long), or "unstable" (the simulation).
        facelets: string of the cube in the end.
        seconds: of simulated time.
        frames: pictures, where they were asked for.
    """

    scramble: list[Move]
    plan: list[Move]
    subgoals: list[Subgoal]
    reached: int = 0
    end: str = ""
    facelets: str = ""
    seconds: float = 0.0
    frames: list[np.ndarray] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "scramble": to_text(self.scramble), "plan": to_text(self.plan), "subgoals": len(self.subgoals),
            "reached": self.reached, "end": self.end, "facelets": self.facelets, "seconds": self.seconds,
        }  # fmt: skip


def solving(policy: LoadedPolicy, scramble: list[Move]) -> LoadedPolicy:
    """A policy on the task of solving a cube after a scramble. Raises UserError where it is of another task."""
    if not isinstance(policy.make_task(), RubiksCube):
        raise UserError(f"{policy.name}: is of {policy.task_id}, expected a policy of RubiksCube-v0")
    options = {"goals": "solve", "turning": "all", "scramble": to_text(scramble)}
    return replace(policy, task_options=policy.task_options | options)


def play(
    policy: LoadedPolicy,
    scramble: list[Move],
    world: str = "nominal",
    seed: int = 7,
    size: tuple[int, int] | None = None,
    every: int = 1,
) -> Iterator[Outcome]:
    """Have a policy solve a cube; yields what has become of it after every control step.

    Args:
        policy: of RubiksCube-v0.
        scramble: moves that the cube is scrambled with.
        world: name or YAML file.
        seed: of the episode.
        size: of pictures, pixels; None draws none.
        every: control steps from picture to picture.
    """
    plan = solution(after(SOLVED, scramble))
    told = Outcome(scramble, plan, subgoals(plan))
    if not plan:
        told.end, told.facelets = "solved", to_string(SOLVED)
        yield told
        return
    policy = solving(policy, scramble)
    environment = find_world(world, policy).make_environment(policy, 1, seed)
    task = environment.task
    assert isinstance(task, RubiksCube)
    environment.autoreset = False
    observed, read = environment.reset(), policy.reader(environment)
    policy.reset(torch.ones(1, dtype=torch.bool))
    scene = None if size is None else Scene(environment, *size, daylight=True)
    ended = False
    while not ended:
        result = environment.step(policy.act(read(observed)))
        observed, ended = result.observed, bool(result.done[0])
        told.reached = int(result.episode_successes[0])
        told.seconds = int(result.episode_steps[0]) * task.control_period_s
        told.facelets = to_string(task.mechanism.labels[0].cpu().numpy())
        if ended:
            solved = bool(result.terms["solved"][0]) and not bool(result.terminated[0])
            fell = "unstable" if bool(result.diverged[0]) else "dropped"
            told.end = "solved" if solved else fell if bool(result.terminated[0]) else "gave up"
        if scene is not None and (ended or int(result.episode_steps[0]) % every == 1 % every):
            words = f"{told.reached} of {len(told.subgoals)} subgoals{', ' + told.end if told.end else ''}"
            told.frames.append(scene.picture(0, label=words))
        yield told
    if scene is not None:
        scene.close()


def strip(frames: list[np.ndarray], count: int = _STRIP) -> np.ndarray:
    """Evenly spaced frames beside each other, [height, count * width, 3]."""
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return np.concatenate([frames[i] for i in chosen], axis=1)


def _scramble(text: str | None, facelets: str | None, seed: int, moves: int) -> list[Move]:
    """The moves that a command asks for. Raises CubeError."""
    if text is not None and facelets is not None:
        raise UserError("--scramble and --facelets say the same thing; give one of them")
    if facelets is not None:
        return inverse(solution(from_string(facelets)))
    return random_scramble(seed, moves) if text is None else parse_moves(text)


def _target(path: Path | None, endings: tuple[str, ...]) -> None:
    """Raise UserError unless pictures can be written there."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise UserError(f"{path}: expected a file name that ends in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")


def solve_command(
    path: Path,
    asked: tuple[str | None, str | None, int, int],
    world: str,
    files: tuple[Path | None, Path | None, Path | None],
    size: str,
    out: Console,
) -> None:
    """`simreal solve`.

    Args:
        path: of the run or bundle.
        asked: moves of a scramble, or a facelet string, or else seed and number of moves.
        world: name or YAML file.
        files: of a video, of a strip of pictures and of figures, to be written.
        size: of pictures.
        out: where it is told.

    Raises:
        UserError, CubeError: before anything is played.
    """
    video, film_strip, json_file = files
    shape = parse_size(size)
    _target(video, VIDEOS)
    _target(film_strip, _PICTURES)
    target = None if json_file is None else write_target(json_file, ".json")
    scramble, seed = _scramble(*asked), asked[2]
    out.print(f"{path}: loading ...")
    policy = load_policy(path)
    solving(policy, scramble)
    out.print(f"scramble ({len(scramble)} moves): {to_text(scramble)}")
    told: Outcome | None = None
    reached = -1
    for told in play(policy, scramble, world, seed, shape if video or film_strip else None):
        if reached < 0:
            out.print(f"plan ({len(told.plan)} moves, {len(told.subgoals)} subgoals): {to_text(told.plan)}")
        if told.reached != reached and told.reached < len(told.subgoals):
            reached = told.reached
            out.print(f"{told.seconds:6.1f} s  {reached + 1} of {len(told.subgoals)}: {told.subgoals[reached]}")
        reached = max(reached, 0)
    assert told is not None  # what became of it
    out.print(f"{told.end} after {told.reached} of {len(told.subgoals)} subgoals, {told.seconds:.1f} s")
    if video is not None and told.frames:
        write_video(video, told.frames, 1.0 / policy.make_task().control_period_s)
        out.print(f"{video}: {len(told.frames)} frames")
    if film_strip is not None and told.frames:
        imageio.imwrite(film_strip, strip(told.frames))
        out.print(f"{film_strip}: {min(_STRIP, len(told.frames))} moments")
    if target is not None:
        write_text(target, to_json(told.document()))
