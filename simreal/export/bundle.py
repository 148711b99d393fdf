"""Writes a trained policy as a bundle: a directory that a robot loads without torch and MuJoCo.

`docs/deploy.md` says what a bundle holds, `simreal.deploy.Policy` loads it. A bundle appears under its name only
after ONNX Runtime, loading it as a robot would, has answered as torch does.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import math
import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import Message
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.registry import TaskError
from envs.task import ActionComponent, Component, Task
from envs.validation.contract_probe import look
from envs.validation.contract_start import stated_start
from randomization.samplers.base import Sampler
from simreal.common.atomic_files import new_folder
from simreal.common.json_io import to_json
from simreal.common.version import __version__
from simreal.deploy.bundle_reader import (
    CONTRACT,
    FORMAT,
    GOLDEN,
    GRAPH,
    UNSIGNED,
    BundleError,
    read_parts,
    relative_error,
)
from simreal.deploy.policy import Policy
from simreal.deploy.targets import Targets
from simreal.export.action_entry import relative_entry
from simreal.export.example_loop import NAME, kept_or_new
from simreal.learners.normalizer import Normalizer

EXPORT_TOLERANCE = 1e-5
"""Largest |ONNX Runtime - torch| / max(1, |torch|), over every action and state, for observations as in training.

Both get the same float32 observations. Actions lie in [-1, 1], so for them it is a share of half the range."""

# Far outside training activations are large and so is float32's rounding; a missing clip would be off by far more.
_EXTREME_TOLERANCE, _EXTREME_WIDTH = 1e-3, 10.0
_GOLDEN_ROWS, _CHECK_ROWS = 64, 256
_IR_VERSION = 9  # ONNX Runtime 1.17, which JetPack ships, refuses later ones; opset 20 needs no later one
_RANGE_STDS = 3.0  # the training range is mean +- this many standard deviations

Array = NDArray[np.float32]


class ExportError(ValueError):
    """A policy that cannot be exported, or a place that cannot be written; nothing was changed."""


class _Step(nn.Module):
    """One control step: observation [B, nobs] and, with memory, state [B, *shape] -> action [B, A] and next state."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.policy(*inputs)
        action, *state = outputs if isinstance(outputs, tuple) else (outputs,)
        return action.float().clamp(-1.0, 1.0), *(s.float() for s in state)  # clipped as the environment does it


@dataclass(frozen=True)
class _Source:
    """What is exported."""

    step: _Step
    task: Task
    size: int  # of the observation
    normalizer: Normalizer | None
    initial: Tensor | None  # [*shape] state at the start of an episode

    def draw(self, count: int, width: float, seed: int) -> Tensor:
        """Observations [count, size] float32: normal, `width` times as wide as in training."""
        noise = torch.randn(count, self.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        n = self.normalizer
        return (width * noise if n is None else n.mean + n.deviation() * width * noise).float()


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

    Returns `output`.

    Raises:
        ExportError: the policy does not fit the task, cannot be translated, or ONNX Runtime differs from torch by
            more than `EXPORT_TOLERANCE`; or `output` holds something else. Then nothing is written.
    """
    if task.export_obstacle is not None:
        raise ExportError(f"{task.id}: {task.export_obstacle}")
    target = Path(output).resolve()
    about = {"randomization": randomization, "evaluation": evaluation, "envelope": envelope, "run": run}
    try:
        _refuse_foreign(target)
        source = _prepare(policy, task)
        contract = _contract(source, task_name or task.id) | {k: _plain(v, k) for k, v in about.items()}
        golden = _golden(source, source.draw(_GOLDEN_ROWS, 1.0, seed=0) if observations is None else observations)
        golden |= _golden_targets(contract, golden)
        graph, arrays = _translate(source), io.BytesIO()
        _verify(graph, source, golden)
        np.savez(arrays, **golden)  # pyright: ignore[reportArgumentType]
        files = {GRAPH: graph, GOLDEN: arrays.getvalue()}
        loop = kept_or_new(target, contract).encode(errors="surrogateescape")
        _write_bundle(target, files | {CONTRACT: _signed(contract, files), NAME: loop})
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror}") from None
    return Path(output)


def _write_bundle(target: Path, files: Mapping[str, bytes]) -> None:
    """Put a bundle's files in place together, once they can be loaded. Raises ExportError and OSError."""
    with new_folder(target) as folder:
        for name, raw in files.items():
            _write(folder / name, raw)
        try:
            Policy.load(folder)
        except BundleError as error:
            said = str(error).replace(str(folder), str(target))
            raise ExportError(f"the bundle cannot be loaded: {said}") from None
        _refuse_foreign(target)


def describe_randomization(sampler: Sampler) -> dict[str, Any]:
    """The present ranges of a sampler as a contract states them."""
    keys = ("name", "quantity", "targets", "unit", "mode", "distribution", "group", "nominal", "limits")
    parameters = [
        {key: getattr(p, key) for key in keys} | {"lower": float(sampler.lower[i]), "upper": float(sampler.upper[i])}
        for i, p in enumerate(sampler.parameters)
    ]
    name, entropy = (type(sampler).__name__.lower(), sampler.entropy()) if parameters else ("none", None)
    return _plain({"sampler": name, "entropy_npd": entropy, "parameters": parameters}, "randomization")


def _prepare(policy: nn.Module, task: Task) -> _Source:
    """A copy of the policy, if it fits the task."""
    step = _Step(copy.deepcopy(policy).cpu().eval().requires_grad_(False))
    size, begin = sum(c.size for c in task.components("policy")), getattr(step.policy, "initial_state", None)
    try:
        states = None if begin is None else begin(3).float()
        inputs = (torch.zeros(3, size),) if states is None else (torch.zeros(3, size), states)
        action, *after = step(*inputs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"the policy does not take {task.id}'s observations [B, {size}]: {_line(error)}") from None
    if action.shape != (3, task.action_size):
        raise ExportError(f"action: expected shape [3, {task.action_size}] for 3 rows, got {list(action.shape)}")
    normalizer = getattr(step.policy, "normalizer", None)
    source = _Source(step, task, size, normalizer if isinstance(normalizer, Normalizer) else None, None)
    if states is None:
        return source
    if len(states) != 3 or not torch.equal(states, states[:1].expand_as(states)):
        raise ExportError("initial_state(batch): expected [batch, ...] with equal rows")
    if len(after) != 1 or after[0].shape != states.shape:
        raise ExportError(f"next state: expected shape {list(states.shape)}, got {[list(a.shape) for a in after]}")
    return replace(source, initial=states[0].clone())


def _golden(source: _Source, given: Tensor | NDArray[Any]) -> dict[str, Array]:
    """What torch answers: `observations` [K, nobs], `actions` [K, A]; with memory, `states` [K, *shape] after each."""
    observations = torch.as_tensor(given).detach().cpu().float()
    if observations.ndim != 2 or observations.shape[1] != source.size or not len(observations):
        raise ExportError(f"observations: expected shape [K, {source.size}], got {list(observations.shape)}")
    if not observations.isfinite().all():
        raise ExportError("observations: expected finite float32 values")
    golden = {"observations": observations}
    if source.initial is None:
        golden["actions"] = source.step(observations)[0]
    else:
        steps = [(torch.empty(0), source.initial[None])]
        for observation in observations.split(1):
            steps.append(source.step(observation, steps[-1][1]))
        golden["actions"], golden["states"] = (torch.cat(values) for values in zip(*steps[1:], strict=True))
    if not all(bool(value.isfinite().all()) for value in golden.values()):
        raise ExportError("the policy puts out NaN or infinity; its weights or its normalizer are broken")
    return {name: value.numpy() for name, value in golden.items()}


def _golden_targets(contract: dict[str, Any], golden: dict[str, Array]) -> dict[str, NDArray[np.float64]]:
    """`targets` [K, A] float64: what is sent for the golden actions, as steps of one episode; nothing where only the
    robot knows from where it starts."""
    try:
        observation, action = read_parts(contract)
    except BundleError as error:
        raise ExportError(f"the contract cannot be written: {error}") from None
    targets = Targets(action, observation)
    return {"targets": targets.replay(golden["observations"], golden["actions"])} if targets.complete else {}


def _translate(source: _Source) -> bytes:
    """The policy as an ONNX file with its weights inside. Raises ExportError if torch cannot translate it."""
    inputs, outputs, example = ["observation"], ["action"], [torch.zeros(2, source.size)]
    if source.initial is not None:
        inputs, outputs = [*inputs, "state"], [*outputs, "next_state"]
        example.append(source.initial.expand(2, *source.initial.shape).clone())
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.onnx.export(
                source.step, tuple(example), dynamo=True, verbose=False, input_names=inputs, output_names=outputs,
                dynamic_shapes={"inputs": tuple({0: batch} for _ in inputs)},
            )  # fmt: skip
            model = program.model_proto  # pyright: ignore[reportOptionalMemberAccess]
            _forget_origin(model)
            del model.graph.value_info[:]
            model.ir_version = min(model.ir_version, _IR_VERSION)
            onnx.checker.check_model(model)
            return model.SerializeToString(deterministic=True)
    except Exception as error:  # the exporter raises whatever its many layers raise
        raise ExportError(f"torch.onnx cannot translate the policy: {_line(error)}") from error


def _line(error: Exception) -> str:
    """The first line of a message."""
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


def _forget_origin(message: Message) -> None:
    """Remove stack traces, which name files of this machine and make equal policies differ."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if isinstance(value, Message) else value:
                _forget_origin(child)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence prints, warnings and logs; what goes wrong is raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _contract(source: _Source, name: str) -> dict[str, Any]:
    """policy.json as far as task and policy determine it, unsigned."""
    task, normalizer, initial = source.task, source.normalizer, source.initial
    names = ("torch", "mujoco", "numpy", "onnx", "onnxscript", "onnxruntime")
    state = None if initial is None else {"shape": list(initial.shape), "initial": initial.tolist()}
    # The lowest version that says all: robots with an older runtime refuse what it would not do.
    newer = any(part.relative is not None or part.inverse is not None for part in task.action)
    return {
        "format": FORMAT,
        "schema_version": 2 if newer else 1,
        "contract_sha256": UNSIGNED,
        "task": name,
        "control_period_s": float(task.control_period_s),
        "observation": _observation_entries(source),
        "observation_clip": None if normalizer is None else _plain(normalizer.clip, "observation_clip"),
        "action": _action_entries(task),
        "recurrent_state": state,
        "tolerance": EXPORT_TOLERANCE,
        "versions": {"simreal": __version__, "python": platform.python_version()} | {n: version(n) for n in names},
    }


def _observation_entries(source: _Source) -> list[dict[str, Any]]:
    task, normalizer = source.task, source.normalizer
    offset, scale, trained = torch.zeros(source.size), torch.ones(source.size), None
    if normalizer is not None:
        offset, scale = normalizer.offset(), normalizer.scale()
        if float(normalizer.count) > 0:
            spread = _RANGE_STDS * normalizer.var.sqrt()
            trained = {"lower": normalizer.mean - spread, "upper": normalizer.mean + spread}
    keys = ("elements", "joints", "bodies", "measured", "derived_from", "limits")
    entries = []
    for order, part in enumerate(task.components("policy")):
        where = task.slices()[part.name]
        seen = None if trained is None else {side: values[where] for side, values in trained.items()}
        numbers = {"offset": offset[where], "scale": scale[where], "training_range": seen}
        entries.append(_entry(part, order, where.start, keys) | numbers)
    return _plain(entries, "observation")


def _action_entries(task: Task) -> list[dict[str, Any]]:
    """The action's components, with what only shows when the task is run: see `envs.validation.contract_probe`.

    Raises:
        ExportError: the task does not do what its components say.
    """
    keys = ("elements", "joints", "actuators", "offset", "scale", "target_limits", "smoothing", "afterwards",
            "stiffness", "damping", "effort_limit")  # fmt: skip
    entries: list[dict[str, Any]] = []
    try:
        found = look(task)
        for order, part in enumerate(task.action):
            begin = entries[-1]["index"][1] if entries else 0
            entry = _entry(part, order, begin, keys) | {"limits": [-1.0, 1.0], "initial_target": None}
            sent, start = found.get(part.name), stated_start(task, part)
            if sent is not None:
                entry["target_limits"], start = sent.limits, sent.start or start
            if start is not None and (part.smoothing < 1.0 or part.relative == "target"):
                seen = {"component": start.component, "index": start.index}
                entry["initial_target"] = seen if start.values is None else start.values
            entries.append(entry | relative_entry(task, part))
    except TaskError as error:
        raise ExportError(str(error)) from None
    return _plain(entries, "action")


def _entry(part: Component | ActionComponent, order: int, start: int, keys: tuple[str, ...]) -> dict[str, Any]:
    place = {"name": part.name, "order": order, "index": [start, start + part.size], "shape": [part.size]}
    return place | {key: getattr(part, key) for key in ("unit", "frame", "description", *keys)}


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON has it; NaN and infinity become null. Raises ExportError naming what JSON cannot hold."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise ExportError(f"{where}: expected numbers, text, lists or mappings, got {type(value).__name__}")


def _signed(contract: dict[str, Any], contents: dict[str, bytes]) -> bytes:
    """policy.json with the sizes and digests of the other files, and its own."""
    files = {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in contents.items()}
    text = to_json(contract | {"files": files})
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(UNSIGNED, digest, 1).encode()


def _verify(graph: bytes, source: _Source, golden: Mapping[str, NDArray[Any]]) -> None:
    """Raise ExportError unless ONNX Runtime answers as torch does, in a batch and row by row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise ExportError(f"ONNX Runtime cannot load the translated policy: {_line(error)}") from None
    usual = torch.cat((torch.from_numpy(golden["observations"]), source.draw(_CHECK_ROWS, 1.0, seed=1)))
    extreme = source.draw(_CHECK_ROWS, _EXTREME_WIDTH, seed=2)
    for rows, most in ((usual, EXPORT_TOLERANCE), (extreme, _EXTREME_TOLERANCE)):
        feeds = {"observation": rows}
        if source.initial is not None:
            before = torch.cat((source.initial[None], torch.from_numpy(golden["states"])))
            feeds["state"] = before[torch.arange(len(rows)) % len(before)]
        expected = [value.numpy() for value in source.step(*feeds.values())]
        for count in (len(rows), 1):
            parts = [{k: v[i : i + count].numpy() for k, v in feeds.items()} for i in range(0, len(rows), count)]
            answers = zip(*(session.run(None, part) for part in parts), strict=True)
            for name, answer, torch_answer in zip(["action", "state"][: len(feeds)], answers, expected, strict=True):
                error = relative_error(np.concatenate(answer), torch_answer)
                if not error <= most:
                    raise ExportError(
                        f"ONNX Runtime's {name} differs from torch's by {error:.1e}, expected at most {most:g}: the "
                        f"policy does what ONNX does differently, or its weights are so large that rounding shows"
                    )


def _refuse_foreign(target: Path) -> None:
    """Raise ExportError unless `target` is free, empty, or holds a bundle and nothing else."""
    if target.is_dir():
        names, contract = sorted(entry.name for entry in target.iterdir()), target / CONTRACT
        foreign = [name for name in names if name not in (CONTRACT, GRAPH, GOLDEN, NAME)]
        ours = contract.is_file() and f'"format": "{FORMAT}"'.encode() in contract.read_bytes()[:200]
        if foreign or (names and not ours):
            raise ExportError(f"{target}: holds {(foreign or names)[0]!r} and is no bundle; name another directory")
    elif target.exists():
        raise ExportError(f"{target}: is a file; name a directory to write the bundle to")


def _write(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
