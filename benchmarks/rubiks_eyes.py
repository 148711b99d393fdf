"""How far off an estimator is about the faces of a Rubik's Cube, by where in the hand a face is.

    python -m benchmarks.rubiks_eyes RUN [--look nominal trained held_out] [--frames 2000] [--mixing 30] [--json FILE]

The face on the palm is seen by no camera, those at the sides are behind fingers. So errors are told for the side of the
palm that a face points to (x towards the fingers, z up), all of them and those of which the estimator says that it is
sure: whose claimed interval of 90 % reaches no further than the configured error. An error of a quarter turn or more is
one of the black piece, or of which face it is; "aligned" is the error up to quarter turns, that of the seams.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import simreal  # noqa: F401 - chooses the renderer before MuJoCo is imported
from envs.manipulation.rubiks.marks import by_side
from simreal.vision.datasets.maker import ChunkMaker
from simreal.vision.estimator.assess import resampled
from simreal.vision.estimator.loading import Estimator, load_estimator
from simreal.vision.estimator.looks import find_look
from simreal.vision.estimator.targets import wrapped

_SIDES = ("x+", "x-", "y+", "y-", "up", "down")
_QUARTER = np.pi / 2.0
Array = NDArray[np.float64]


def read(estimator: Estimator, kind: str, frames: int, mixing: int) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """Fresh pictures of a look: episodes [n]; errors [n, 6] of the faces by side, rad; half widths of the claimed
    intervals [n, 6]; errors of the orientation [n], rad."""
    look, config = find_look(kind, estimator.config, estimator.looks), estimator.config
    plan = config.plan()
    plan = replace(
        plan, seed=config.evaluate.seed, looks="episode", unseen=look.unseen,
        task_options={**plan.task_options, "mixing": mixing},
    )  # fmt: skip
    faces, orientation = (next(t for t in estimator.readings if t.name == name) for name in ("face_angle", "cube_quat"))
    maker, parts = ChunkMaker(plan, looks=look.sampler), []
    size = maker.chunking.size
    try:
        for number in range(-(-frames // size)):
            chunk = maker.chunk(number, maker.chunking.steps(frames - number * size))
            found = estimator.estimate(chunk.pictures)
            truth, quat = (torch.from_numpy(chunk.states[name]).float() for name in ("face_angle", "cube_quat"))
            (value, std), turned = found["face_angle"], found["cube_quat"][0]
            rows = number * size + np.arange(len(chunk.worlds))
            parts.append((
                np.array([maker.chunking.episode_of(int(row)) for row in rows]),
                by_side(quat, wrapped(value - truth)).double().numpy(),
                by_side(quat, faces.claimed(std)).double().numpy(),
                orientation.error(turned, quat).double().numpy(),
            ))  # fmt: skip
    finally:
        maker.close()
    episode, error, claimed, turn = (np.concatenate(part) for part in zip(*parts, strict=True))
    return episode, error, claimed, turn


def summary(episode: NDArray[np.int64], error: Array, claimed: Array, within: float) -> dict[str, Any]:
    """Of one side, [n] each."""
    off = np.abs(error)
    aligned = np.abs(error - _QUARTER * np.round(error / _QUARTER))
    sure = claimed <= within

    def figures(rows: Any) -> Array:
        certain = off[rows][sure[rows]]
        return np.array([
            np.median(off[rows]), (off[rows] <= within).mean(), np.median(aligned[rows]), sure[rows].mean(),
            (certain <= within).mean() if len(certain) else np.nan,
        ])  # fmt: skip

    names = ("median", "right", "aligned", "sure", "sure_right")
    ends = resampled(episode, figures)
    return {
        name: [float(value), *map(float, ends[:, k])]
        for k, (name, value) in enumerate(zip(names, figures(slice(None)), strict=True))
    }


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(description="Errors about the faces of a Rubik's Cube, by side of the palm.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--look", nargs="+", default=["nominal", "trained", "held_out"])
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--mixing", type=int, default=30, help="random turns that the cubes have been mixed with")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    estimator, found = load_estimator(options.run), []
    within = estimator.config.targets["mark_angle"].within
    for kind in options.look:
        episode, error, claimed, turn = read(estimator, kind, options.frames, options.mixing)
        middle = lambda rows, t=turn: np.quantile(t[rows], (0.5, 0.9))  # noqa: E731
        row: dict[str, Any] = {"look": kind, "frames": len(turn), "episodes": len(np.unique(episode))}
        row["orientation"] = [*middle(slice(None)).tolist(), *resampled(episode, middle)[:, 0].tolist()]
        row["sides"] = {s: summary(episode, error[:, k], claimed[:, k], within) for k, s in enumerate(_SIDES)}
        found.append(row)
        half, most, low, high = row["orientation"]
        print(
            f"{kind}: {len(turn)} pictures; orientation {half:.3f} rad ({low:.3f} to {high:.3f}), 90 % below {most:.3f}"
        )
        for side, figures in row["sides"].items():
            told = (f"{name} {v:.3f} ({low:.3f} to {high:.3f})" for name, (v, low, high) in figures.items())
            print(f"  {side}: {', '.join(told)}", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
