"""`simreal render`: pictures of a task in sampled worlds, with what they show, in a folder."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from envs.registry import make_task
from randomization.config import randomization_config
from simreal.common.atomic_files import owned
from simreal.common.errors import UserError
from simreal.common.trusted_code import module_of, trust
from simreal.training.monitoring.progress import Progress
from simreal.training.run_directory import is_empty
from simreal.training.trainer import Interrupted, SignalHandler
from simreal.vision.datasets.folder import CONTENT, PROGRESS, FolderWriter
from simreal.vision.datasets.plan import RANDOM, PicturePlan, check_cameras, check_size
from simreal.vision.datasets.workers import ChunkSource
from simreal.vision.rendering.contact_sheet import visual_block
from simreal.vision.rendering.mounts import Mount, mounted

USUAL = "visual"  # everything visual that a task has, in its usual ranges ...
_DEAR = ("light_shadow", "material_reflectance")  # ... but these, which take several times as long as all the rest
_SAVED_EVERY_S = 5.0


def parse_pixels(text: str) -> tuple[int, int]:
    """Width and height from "128x96" or "96". Raises UserError."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    if found is None:
        raise UserError(f"--size: expected WIDTHxHEIGHT, as 128x96, or one number for both, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


def parse_mounts(texts: Sequence[str]) -> dict[str, Mount]:
    """Cameras from NAME=X,Y,Z:X,Y,Z:FOVY, the last part of which may be left out. Raises UserError."""
    found = {}
    for text in texts:
        name, _, rest = text.partition("=")
        try:
            parts = [tuple(float(value) for value in part.split(",")) for part in rest.split(":")]
            more = {"fovy": parts[2][0]} if len(parts) == 3 and len(parts[2]) == 1 else {}
            if not name or len(parts) != 2 + len(more):
                raise ValueError
            found[name] = Mount.model_validate({"pos": parts[0], "lookat": parts[1], **more})
        except (ValueError, IndexError):
            raise UserError(f"--mount: expected NAME=X,Y,Z:X,Y,Z:FOVY, got {text!r}") from None
    return found


def make_plan(
    task: str,
    states: str,
    cameras: list[str],
    size: tuple[int, int],
    seed: int,
    randomization: str | None,
    mounts: Mapping[str, Mount],
) -> PicturePlan:
    """A plan from what a user says, checked.

    Args:
        task, states, cameras, seed, mounts: see `PicturePlan`.
        size: width and height, pixels.
        randomization: a YAML file, "visual", or None for the nominal world.

    Raises:
        UserError, RandomizationError, TaskError: naming what is wrong.
    """
    if module_of(task) is not None:
        trust(task)
    with mounted(mounts):
        made = make_task(task)
    check_size(*size)
    found = check_cameras(made, cameras)
    if states != RANDOM and not Path(states).expanduser().is_dir():
        raise UserError(f"--states: {states}: no such run or bundle; expected one, or 'random'")
    block = {} if randomization is None else {"sampler": "manual", "parameters": {}}
    if randomization == USUAL:
        for camera in found:
            usual = visual_block(made, camera)["parameters"].items()
            for label, entry in ((name, entry) for name, entry in usual if name not in _DEAR):
                name = f"{label}_{camera}" if "of" in entry else label
                block["parameters"][name] = {"quantity": label} | entry
    elif randomization is not None:
        if not Path(randomization).is_file():
            raise UserError(f"--randomization: {randomization}: no such file; expected one, or 'visual'")
        config = randomization_config(randomization).resolved(made)
        block = config.model_dump(mode="json", by_alias=True)
    return PicturePlan(task, found, *size, seed, states, mounts=mounts, randomization=block)


def render_command(
    plan: PicturePlan, frames: int, output: Path, resume: bool, workers: int | None, out: Console
) -> None:
    """Render frames into a folder. Raises UserError before anything is written; Interrupted after saving."""
    if (output / CONTENT).exists():
        raise UserError(f"{output}: holds finished pictures; name another --output")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: exists and is no folder")
    begun = (output / PROGRESS).is_file()
    if output.is_dir() and not is_empty(output) and not (resume and (begun or _only_ours(output))):
        why = "has frames; go on with --resume, or" if begun else "exists and is not empty;"
        raise UserError(f"{output}: {why} name another --output")
    if resume and not output.is_dir():
        raise UserError(f"{output}: nothing to resume")
    trusted = plan.task if module_of(plan.task) is not None else None
    source = ChunkSource(plan, workers, trusted)
    try:
        if source.maker.worlds.looks.parameters and hasattr(source.maker.worlds.looks, "buffer_size"):
            raise UserError("randomization.sampler: ranges that widen are an estimator's; expected manual or frozen")
        with owned(output, keep_empty=False):
            _render(source, frames, output, out)
    finally:
        source.close()


def _only_ours(folder: Path) -> bool:
    """Whether a folder holds nothing but what a process that was killed early has begun."""
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    return all(name.endswith(".tmp") or name.startswith(".") for name in names)


def _render(source: ChunkSource, frames: int, output: Path, out: Console) -> None:
    plan, chunking = source.maker.plan, source.maker.chunking
    writer = FolderWriter(output, plan, frames, chunking, [p.name for p in source.maker.worlds.parameters])
    at = writer.done
    text = f", from frame {at:,}" if at else ""
    out.print(f"Rendering {frames:,} frames of {plan.task} at {plan.width} x {plan.height} in {output}{text}")
    saved = time.monotonic()
    with SignalHandler().listening() as stop, Progress(frames, at, out, adr=False, unit="frames") as progress:
        for chunk in source.frames(at, frames):
            kept = chunk.head(frames - at)
            writer.write(at, kept)
            at += len(kept.worlds)
            progress.update(at, f"{len(plan.cameras)} camera{'s' * (len(plan.cameras) > 1)}", 0.0)
            if stop.requested or time.monotonic() > saved + _SAVED_EVERY_S:
                writer.save()
                saved = time.monotonic()
            if stop.requested:
                raise Interrupted(f"interrupted at frame {at:,}; to continue, give the same command and --resume")
    writer.finish()
    out.print(f"{output}: {frames:,} frames; {CONTENT} says what is in it")
