"""Writes a trained policy as a bundle: a directory that a robot loads without torch and MuJoCo.

`docs/deploy.md` says what a bundle holds, `simreal.deploy.Policy` loads it. A bundle appears under its name only
after ONNX Runtime, loading it as a robot would, has answered as torch does.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.task import Task
from simreal.deploy.bundle_reader import CONTRACT, FORMAT, GRAPH, read_parts
from simreal.deploy.files import GOLDEN, BundleError
from simreal.deploy.policy import Policy
from simreal.deploy.targets import Targets
from simreal.export.c.folder import C_FOLDER, c_texts, refuse_place, refuse_unstated
from simreal.export.contract import contract_of, plain
from simreal.export.contract import describe_randomization as describe_randomization
from simreal.export.example_loop import NAME, kept_or_new
from simreal.export.folders import Kind, signed
from simreal.export.onnx_writer import write_onnx
from simreal.export.pictures.policy import (
    BLIND,
    NO_C,
    PixelSource,
    Sight,
    pixel_contents,
    prepare_pixels,
    with_pictures,
)
from simreal.export.source import ExportError, Source, first_line, golden_answers, prepare
from simreal.export.verify import verify
from simreal.learners.pixels.policy import PixelPolicy
from simreal.vision.sensors.pixels import ObservationConfig

_GOLDEN_ROWS = 64
_BUNDLE = Kind("bundle", (CONTRACT, GRAPH, GOLDEN, NAME), (CONTRACT, f'"format": "{FORMAT}"'))


def export_bundle(
    policy: nn.Module,
    task: Task,
    output: str | os.PathLike[str],
    *,
    task_name: str | None = None,
    randomization: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    envelope: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    observations: Tensor | NDArray[Any] | None = None,
    c: str | os.PathLike[str] | None = None,
    int8_limit: float | None = None,
    sight: Sight = BLIND,
) -> Path:
    """Write a policy as a bundle.

    Args:
        policy: observation [B, nobs] float32 -> action [B, A]; its `normalizer`, if it has one, goes along. A policy
            with memory has `initial_state(batch) -> [B, *shape]`, with equal rows, and takes and returns the state:
            (observation, state) -> (action, state). It is left as it was.
        task: an instance of the task that the policy was trained on.
        output: directory to write; a bundle there is replaced, anything else is refused.
        task_name: as the contract calls the task; `task.id` where left out.
        randomization: final ranges, see `describe_randomization`.
        evaluation: results, as `simreal evaluate --json` gives them.
        envelope: where the policy works, as `simreal evaluate --envelope` writes it.
        run: where the policy comes from (seed, steps, configuration).
        observations: [K, nobs] golden observations; for a policy with memory, consecutive steps of an episode.
            Where left out, draws with the normalizer's mean and standard deviation.
        c: a directory for the policy as C99 too (docs/c.md), if it states its layers; replaced as `output` is.
        int8_limit: weights in C have 8 bits, which changes actions by so much at most. None: they are floats.
        sight: how a policy sees that looks at pictures, or whose estimators do.

    Returns `output`.

    Raises:
        ExportError: the policy does not fit the task, cannot be translated, or ONNX Runtime differs from torch by
            more than `EXPORT_TOLERANCE`; or `output` or `c` holds something else; or C cannot be written of the policy,
            or differs by more than `int8_limit`. Then nothing is written.
    """
    if task.export_obstacle is not None:
        raise ExportError(f"{task.id}: {task.export_obstacle}")
    target, code = Path(output).resolve(), None if c is None else Path(c).resolve()
    about: dict[str, Any] = {"randomization": randomization, "evaluation": evaluation, "envelope": envelope, "run": run}
    try:
        _BUNDLE.refuse_foreign(target)
        if code is not None:
            refuse_place(code, target)
        source = _source(policy, task, sight.camera, code is not None)
        contract = _contract(source, task_name or task.id, about, sight)
        files, golden = _contents(source, contract, observations, sight)
        texts = {} if code is None else c_texts(source, json.loads(files[CONTRACT]), golden, int8_limit)
        _BUNDLE.write(target, files | {NAME: kept_or_new(target, contract)}, lambda folder: _load(folder, target))
        if code is not None:
            C_FOLDER.write(code, texts)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror}") from None
    return Path(output)


def _source(policy: nn.Module, task: Task, camera: ObservationConfig | None, in_c: bool) -> Source:
    """What is exported. Raises ExportError where it does not fit the task, or cannot be written in C and is to be."""
    if isinstance(policy, PixelPolicy):
        if camera is None:
            raise ExportError("sight: expected how pictures are taken, for a policy that looks at some")
        if in_c:
            raise ExportError(NO_C)
        return prepare_pixels(policy, task, camera)
    source = prepare(policy, task)
    if in_c:
        refuse_unstated(source)
    return source


def _contract(source: Source, name: str, about: Mapping[str, Any], sight: Sight) -> dict[str, Any]:
    """policy.json, unsigned."""
    about = {**about, **({"sensors": sight.sensors} if sight.sensors else {})}
    contract = contract_of(source, name) | {key: plain(value, key) for key, value in about.items()}
    return with_pictures(contract, source) if isinstance(source, PixelSource) else contract


def _contents(
    source: Source,
    contract: dict[str, Any],
    observations: Tensor | NDArray[Any] | None,
    sight: Sight,
) -> tuple[dict[str, bytes], dict[str, NDArray[Any]]]:
    """A bundle's files by name, and its golden arrays. Raises ExportError."""
    golden: dict[str, NDArray[Any]]
    arrays, save = io.BytesIO(), np.savez
    if isinstance(source, PixelSource):
        graph, golden = pixel_contents(source, sight)
        golden, save = golden | _golden_targets(contract, golden), np.savez_compressed
    else:
        seen = source.draw(_GOLDEN_ROWS, 1.0, seed=0) if observations is None else observations
        golden = {**golden_answers(source, seen)}
        golden |= _golden_targets(contract, golden)
        graph = _translate(source)
        verify(graph, source, golden)
    save(arrays, **golden)  # pyright: ignore[reportArgumentType]
    files = {GRAPH: graph, GOLDEN: arrays.getvalue()}
    return {**files, CONTRACT: signed(contract, files)}, golden


def _load(folder: Path, target: Path) -> None:
    """Raise ExportError unless the bundle in a folder, which is to become `target`, can be loaded."""
    try:
        Policy.load(folder)
    except BundleError as error:
        said = str(error).replace(str(folder), str(target))
        raise ExportError(f"the bundle cannot be loaded: {said}") from None


def _golden_targets(contract: dict[str, Any], golden: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """`targets` [K, A] float64: what is sent for the golden actions, as steps of one episode; nothing where only the
    robot knows from where it starts."""
    try:
        observation, action = read_parts(contract)
    except BundleError as error:
        raise ExportError(f"the contract cannot be written: {error}") from None
    targets = Targets(action, observation)
    return {"targets": targets.replay(golden["observations"], golden["actions"])} if targets.complete else {}


def _translate(source: Source) -> bytes:
    """The policy as an ONNX file with its weights inside. Raises ExportError if torch cannot translate it."""
    if source.layers is not None:
        return write_onnx(source.layers, source.size, source.task.action_size)
    from simreal.export.tracing import trace  # torch's exporter takes a second to import

    try:
        return trace(source.step, source.size, source.initial)
    except Exception as error:  # the exporter raises whatever its many layers raise
        raise ExportError(f"torch.onnx cannot translate the policy: {first_line(error)}") from error
