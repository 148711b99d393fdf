"""The Rubik's Cube in stages, each from the networks of the one before: python -m benchmarks.rubiks_curriculum FOLDER
[STEPS [KEY=VALUE ...]]

STEPS: of all stages together (12.5 million); KEY=VALUE: settings of `configs/rubiks.yaml` for every stage. Stages are
runs in FOLDER; what is there is kept, what was interrupted goes on: the same line starts and resumes. Then every
stage is evaluated beside random and zero action (FOLDER/STAGE.json), in the ranges of the last one, and that one on the
fixed scramble (FOLDER/scramble.json).
"""

from __future__ import annotations

import sys
from pathlib import Path

import simreal  # noqa: F401 - chooses the renderer before MuJoCo is imported
from simreal.cli.main import main as command
from simreal.training.checkpoint import EVALUATION

_STEPS = 12_500_000
# What is learnt, and its share of the steps. Earlier stages have the nominal world and learn on to their end.
STAGES = {
    "face": ({"goals": "face", "turning": "top_and_bottom"}, 0.175),
    "mixed_reduced": ({"goals": "mixed", "turning": "top_and_bottom"}, 0.26),
    "mixed": ({"goals": "mixed", "turning": "all"}, 0.565),
}
_EARLIER = ("randomization.sampler=none", "learner.lr_schedule=constant")
_WORLDS = ("nominal", "trained", "extremes", "cube_loose_camera")  # the last two: held out, not modelled


def settings(stage: str, steps: int, before: Path | None) -> list[str]:
    """The overrides of a stage."""
    options, share = STAGES[stage]
    rows = [f"task_options.{key}={value}" for key, value in options.items()]
    rows += [f"train.env_steps={round(steps * share)}", *(() if stage == [*STAGES][-1] else _EARLIER)]
    return [*rows, f"train.from={before}"] if before is not None else rows


def main(folder: Path, steps: int = _STEPS, overrides: tuple[str, ...] = ()) -> None:
    """Make what is missing of the stages and of their evaluations."""
    folder.mkdir(parents=True, exist_ok=True)
    before: Path | None = None
    for stage in STAGES:
        run = folder / stage
        if not (run / EVALUATION).is_file():
            resume = ["--resume"] if (run / "config.yaml").is_file() else []
            command(["train", "rubiks", *settings(stage, steps, before), *overrides, "--run-dir", str(run), *resume])
        before = run
    for stage in STAGES:
        _evaluate(folder, stage, f"{stage}.json", [f"--task-option={k}={v}" for k, v in STAGES[stage][0].items()])
    _evaluate(folder, [*STAGES][-1], "scramble.json", [])


def _evaluate(folder: Path, stage: str, name: str, options: list[str]) -> None:
    if not (folder / name).is_file():
        worlds = [f"--world={world}" for world in _WORLDS] + [f"--ranges-of={folder / [*STAGES][-1]}"]
        command(["evaluate", str(folder / stage), "random", "zero", *worlds, *options, "--json", str(folder / name)])


if __name__ == "__main__":
    if len(sys.argv) < 2 or "--help" in sys.argv:
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv else 2)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else _STEPS, tuple(sys.argv[3:]))
