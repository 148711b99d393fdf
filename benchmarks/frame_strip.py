"""A strip of frames of one successful episode: python benchmarks/frame_strip.py RUN OUTPUT.png [SEED [FRAMES [EDGE]]].

EDGE: pixels of whole frames; where it is left out, the part of a frame that shows a Fetch arm's gripper.
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np

import simreal  # noqa: F401 - chooses the renderer before MuJoCo is imported
from simreal.evaluation.worlds import find_world
from simreal.training.run_directory import load_policy
from simreal.vision.rendering.viewer import film


def main(run: str, output: str, seed: int = 11, count: int = 6, edge: int = 0) -> None:
    """`count` moments of the first episode of a seed, closer together at its beginning."""
    policy = load_policy(Path(run))
    frames, _ = film(policy, find_world("nominal", policy), 1, seed, size=(edge or 720, edge or 720))
    last = len(frames) - 2  # the final frame shows the next episode
    chosen = [round(last * (i / (count - 1)) ** 1.5) for i in range(count)]
    part = np.s_[:, :] if edge else np.s_[200:540, 150:490]
    imageio.imwrite(output, np.concatenate([frames[i][part] for i in chosen], axis=1))


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 6 or "--help" in sys.argv:
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv else 2)
    main(sys.argv[1], sys.argv[2], *(int(a) for a in sys.argv[3:6]))
