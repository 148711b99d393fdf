"""What a bundle's policy.json states of a policy and its task: names, units, order, scales, limits, gains, period."""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.parts.actuator_network import ActuatorNetwork
from envs.registry import TaskError
from envs.task import ActionComponent, Component, Task
from envs.validation.contract_probe import look
from envs.validation.contract_start import stated_start
from randomization.samplers.base import Sampler
from simreal.common.version import __version__
from simreal.deploy.bundle_reader import FORMAT
from simreal.deploy.files import UNSIGNED
from simreal.export.action_entry import relative_entry
from simreal.export.source import EXPORT_TOLERANCE, ExportError, Source

_RANGE_STDS = 3.0  # the training range is mean +- this many standard deviations


def contract_of(source: Source, name: str) -> dict[str, Any]:
    """policy.json as far as task and policy determine it, unsigned."""
    task, normalizer, initial = source.task, source.normalizer, source.initial
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
        "observation_clip": None if normalizer is None else plain(normalizer.clip, "observation_clip"),
        "action": _action_entries(task),
        "recurrent_state": state,
        "tolerance": EXPORT_TOLERANCE,
        "versions": versions(),
    } | ({} if task.actuator is None else {"actuator": plain(_actuator(task.actuator), "actuator")})


def _actuator(network: ActuatorNetwork) -> dict[str, Any]:
    """What stood for the actuators in training; the network itself is in the run's configuration."""
    return {
        "kind": "network", "joints": network.joints, "period_s": network.period_s, "history": network.history,
        "sha256": network.packed()["sha256"], "about": network.about,
    }  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
    """What writes the bundle."""
    names = ("torch", "mujoco", "numpy", "onnx", "onnxscript", "onnxruntime")
    return {"simreal": __version__, "python": platform.python_version()} | {name: version(name) for name in names}


def describe_randomization(sampler: Sampler) -> dict[str, Any]:
    """The present ranges of a sampler as a contract states them."""
    keys = ("name", "quantity", "targets", "unit", "mode", "distribution", "group", "nominal", "limits")
    parameters = [
        {key: getattr(p, key) for key in keys} | {"lower": float(sampler.lower[i]), "upper": float(sampler.upper[i])}
        for i, p in enumerate(sampler.parameters)
    ]
    name, entropy = (type(sampler).__name__.lower(), sampler.entropy()) if parameters else ("none", None)
    return plain({"sampler": name, "entropy_npd": entropy, "parameters": parameters}, "randomization")


def _observation_entries(source: Source) -> list[dict[str, Any]]:
    task, normalizer = source.task, source.normalizer
    offset, scale, trained = torch.zeros(source.size), torch.ones(source.size), None
    if normalizer is not None:
        offset, scale = normalizer.offset(), normalizer.scale()
        if float(normalizer.count) > 0:
            spread = _RANGE_STDS * normalizer.var.sqrt()
            trained = {"lower": normalizer.mean - spread, "upper": normalizer.mean + spread}
    keys = ("elements", "joints", "bodies", "measured", "derived_from", "limits")
    entries = []
    stop = 0
    for order, part in enumerate(part for part in task.components("policy") if part.name in source.read):
        where = slice(stop, stop := stop + part.size)
        seen = None if trained is None else {side: values[where] for side, values in trained.items()}
        numbers = {"offset": offset[where], "scale": scale[where], "training_range": seen}
        stance = {"relative_to": part.relative_to} if part.relative_to else {}
        entries.append(_entry(part, order, where.start, keys) | stance | numbers)
    return plain(entries, "observation")


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
    return plain(entries, "action")


def _entry(part: Component | ActionComponent, order: int, start: int, keys: tuple[str, ...]) -> dict[str, Any]:
    place = {"name": part.name, "order": order, "index": [start, start + part.size], "shape": [part.size]}
    return place | {key: getattr(part, key) for key in ("unit", "frame", "description", *keys)}


def plain(value: Any, where: str) -> Any:
    """`value` as JSON has it; NaN and infinity become null. Raises ExportError naming what JSON cannot hold."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise ExportError(f"{where}: expected numbers, text, lists or mappings, got {type(value).__name__}")
