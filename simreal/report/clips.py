"""Pictures and short videos of a policy's best and worst episodes, drawn once and kept beside the run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import torch

from envs.environment import Environment
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import Episodes, run_episodes
from simreal.evaluation.metrics import RETURN, SUCCESS, metric_of
from simreal.evaluation.worlds import GROUPS, World, find_world
from simreal.report.records import Run
from simreal.report.summary import value
from simreal.training.checkpoint import policy_file
from simreal.training.run_directory import LoadedPolicy, load_policy
from simreal.vision.rendering.offscreen import Image
from simreal.vision.rendering.scene import Scene, write_video
from simreal.vision.rendering.viewer import Progress

_EPISODES = 50  # of every world, from which best and worst are chosen
_WIDTH, _HEIGHT, _STILLS = 400, 320, 4
_FRAMES, _FPS = 100, 25.0  # at most, per video
LARGEST_VIDEO = 900_000  # bytes; a larger one is left out


@dataclass(frozen=True)
class Clip:
    """One episode to show."""

    title: str
    text: str
    stills: Path  # JPEG, moments of the episode side by side
    poster: Path  # JPEG, one of them
    video: Path | None  # MP4


def find_clips(run: Run, draw: bool, say: Callable[[str], object] = lambda text: None) -> tuple[list[Clip], str]:
    """The clips of a run, drawn if need be, and a sentence for the reader where something is missing."""
    found = policy_file(run.path)
    if found is None:
        return [], f"{run.name}: no pictures, because it has no checkpoint."
    seed, best_by = run.config.evaluate.seed, run.measure.name
    wanted = {"checkpoint": found.name, "worlds": _worlds(run), "seed": seed, "best_by": best_by}
    folder = run.path / "footage"
    kept = _kept(folder, wanted)
    if kept or not draw:
        return kept, "" if kept else f"{run.name}: no pictures were asked for."
    try:
        return _draw(run, folder, wanted, say), ""
    except UserError as error:
        return [], f"{run.name}: no pictures ({error})."
    except OSError as error:
        return [], f"{run.name}: no pictures, because they cannot be written to {folder} ({error.strerror})."


def _worlds(run: Run) -> list[str]:
    """Where the best and the worst episode are looked for: the nominal world, and the evaluated world with the lowest
    score."""
    worlds = [] if run.evaluation is None else list(run.evaluation.worlds)
    worlds.sort(key=lambda w: (value(w, run.measure), w.return_mean))
    return ["nominal", worlds[0].name if worlds else "nominal"]


def _kept(folder: Path, wanted: dict[str, Any]) -> list[Clip]:
    try:
        notes = json.loads((folder / "footage.json").read_text())
        if notes["wanted"] != wanted:
            return []
        clips = [
            Clip(
                c["title"],
                c["text"],
                folder / c["stills"],
                folder / c["poster"],
                folder / c["video"] if c["video"] else None,
            )
            for c in notes["clips"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    complete = all(file is None or file.is_file() for c in clips for file in (c.stills, c.poster, c.video))
    return clips if complete else []


def _draw(run: Run, folder: Path, wanted: dict[str, Any], say: Callable[[str], object]) -> list[Clip]:
    policy = load_policy(run.path)
    folder.mkdir(exist_ok=True)
    clips, notes = [], []
    played: dict[str, Episodes] = {}  # often the nominal world is also the worst
    for kind, name in zip(("best", "worst"), wanted["worlds"], strict=True):
        world = _find(name, policy, run)
        if name not in played:
            say(f"{run.name}: playing {_EPISODES} episodes in world {world.name}")
            environment = world.make_environment(policy, _EPISODES, run.config.evaluate.seed)
            played[name] = run_episodes(policy, environment, _EPISODES)
        score, number = _extreme(policy, played[name], kind == "best")
        say(f"{run.name}: drawing the {kind}, episode {number}")
        frames, fps = _film(policy, world, number, run.config.evaluate.seed, say)
        stills, poster, video = (folder / f"{kind}{end}" for end in ("-stills.jpg", ".jpg", ".mp4"))
        imageio.imwrite(stills, _side_by_side(frames), quality=80)
        imageio.imwrite(poster, frames[len(frames) // 2], quality=70)
        write_video(video, frames, fps)
        small = video.stat().st_size <= LARGEST_VIDEO
        title = f"{kind.capitalize()} of {_EPISODES} episodes in world {world.name}"
        clips.append(Clip(title, f"{run.name}, episode {number}: {score}", stills, poster, video if small else None))
        files = {"stills": stills.name, "poster": poster.name, "video": video.name if small else None}
        notes.append({**vars(clips[-1]), **files})
    (folder / "footage.json").write_text(json.dumps({"wanted": wanted, "clips": notes}, indent=2) + "\n")
    return clips


def _find(name: str, policy: LoadedPolicy, run: Run) -> World:
    """An evaluated world by its name in the evaluation; the nominal one if it cannot be had any more."""
    for asked in (name, *(world for world in run.config.evaluate.worlds if world not in GROUPS)):
        try:
            world = find_world(asked, policy)
        except UserError:
            continue
        if world.name == name:
            return world
    return find_world("nominal", policy)


def _extreme(policy: LoadedPolicy, episodes: Episodes, best: bool) -> tuple[str, int]:
    """What the best or worst of the first episodes came to, and its number."""
    measure = metric_of(policy.make_task())
    order = list(zip(episodes.samples[measure.name].tolist(), episodes.returns.tolist(), strict=True))
    chosen = (max if best else min)(range(_EPISODES), key=lambda k: order[k])
    reached, total = order[chosen]
    said = f"return {RETURN.page.value(total)}"
    if measure is SUCCESS:
        said = f"{'success' if reached else 'failure'}, {said}"
    elif measure is not RETURN:
        said = f"{reached} {measure.name}, {said}"
    return said, chosen


def _film(
    policy: LoadedPolicy, world: World, episode: int, seed: int, say: Callable[[str], object]
) -> tuple[list[Image], float]:
    """Frames of the end of one episode, and how many make a second."""
    length = _end_of_interest(policy, world, episode, seed)
    replay = itertools.islice(_replay(policy, world, episode, seed), length + 1)
    environment = next(replay)[0]
    period = environment.task.control_period_s
    stride = max(1, round(1.0 / (_FPS * period)))
    scene, progress = Scene(environment, _WIDTH, _HEIGHT, daylight=True), Progress(say)
    try:
        frames = [scene.picture(0)] if length <= _FRAMES * stride else []
        for step, _ in enumerate(replay, start=1):
            if (length - step) % stride == 0 and length - step < _FRAMES * stride:
                frames.append(scene.picture(0))
            progress.at(step, length - step)
    finally:
        scene.close()
    return frames, 1.0 / (stride * period)


def _end_of_interest(policy: LoadedPolicy, world: World, episode: int, seed: int) -> int:
    """The step up to which an episode is shown: half a second after success came to stay, else its end."""
    length = arrived = 0
    rest = 0
    for environment, success in _replay(policy, world, episode, seed):
        rest = round(0.5 / environment.task.control_period_s)
        arrived = arrived if success else length + 1
        length += 1
    return min(length - 1, arrived + rest)


def _replay(policy: LoadedPolicy, world: World, episode: int, seed: int) -> Iterator[tuple[Environment, bool]]:
    """The environment at the start of episode `episode` and after each of its steps, and whether success holds then."""
    environment = world.make_environment(policy, 1, seed)
    environment.autoreset = False  # its end is to be seen
    environment.rng.episode = torch.tensor([episode - 1])  # the reset goes on to the next
    observed = environment.reset()
    policy.reset(torch.ones(1, dtype=torch.bool))
    read = policy.reader(environment)
    yield environment, False
    done = False
    while not done:
        result = environment.step(policy.act(read(observed)))
        observed, done = result.observed, bool(result.done[0])
        yield environment, bool(result.success[0])


def _moments(frames: list[Image]) -> list[int]:
    """Frames at equal shares of all that changes in the pictures: not many of a robot that has arrived and rests."""
    small = [frame[::4, ::4].astype(np.float32) for frame in frames]
    change = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(small)]
    progress = np.concatenate(([0.0], np.cumsum(change)))
    if progress[-1] <= 0.0:
        progress = np.arange(len(frames), dtype=float)
    shares = np.linspace(0.0, float(progress[-1]), _STILLS)
    return [min(int(np.searchsorted(progress, share)), len(frames) - 1) for share in shares]


def _side_by_side(frames: list[Image]) -> Image:
    chosen = _moments(frames)
    margin = (_WIDTH - _HEIGHT) // 2
    return np.concatenate([frames[k][:, margin : margin + _HEIGHT] for k in chosen], axis=1)
