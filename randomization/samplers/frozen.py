"""Ranges of an earlier run, for another one: they no longer move."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.common.checkpoint_files import checkpoint_files, read_newest
from envs.common.safe_yaml import FileError, read_json, read_yaml
from randomization.parameters import Parameter, RandomizationError
from randomization.samplers.base import Manual, Sampler


class Frozen(Manual):
    """The distribution that another sampler had reached: its ranges, which stay."""


def frozen_parameters(sampler: Sampler) -> list[Parameter]:
    """A sampler's parameters with its present ranges as their limits."""
    result = []
    for i, parameter in enumerate(sampler.parameters):
        low, high = float(sampler.lower[i]), float(sampler.upper[i])
        nominal = min(max(parameter.nominal, low), high)
        fields = {**vars(parameter), "limits": (low, high), "nominal": nominal}
        if low <= 0 and parameter.distribution.startswith("log"):
            fields["distribution"] = "uniform"
        result.append(Parameter(**fields))
    return result


def entries_of(parameters: list[Parameter]) -> dict[str, dict[str, Any]]:
    """The entries of a configuration's `parameters` that give these parameters again."""
    entries: dict[str, dict[str, Any]] = {}
    for p in parameters:
        entry: dict[str, Any] = {"quantity": p.quantity, "range": list(p.limits), "distribution": p.distribution}
        if p.targets:
            entry["of"] = list(p.targets)
        if p.group:
            entry["group"] = p.group
        entries[p.name] = entry
    return entries


def contract_entries(path: Path) -> dict[str, dict[str, Any]]:
    """The entries that a bundle's policy.json states. Raises RandomizationError."""
    try:
        block = read_json(path)["randomization"] or {}
        parameters = [
            Parameter(
                p["name"], quantity=p["quantity"], targets=tuple(p["targets"]), limits=(p["lower"], p["upper"]),
                nominal=p["lower"], distribution=p["distribution"], group=p.get("group", ""),
            )
            for p in block.get("parameters", [])
        ]  # fmt: skip
    except (KeyError, TypeError, AttributeError, ValueError):
        raise RandomizationError(f"{path}: states no randomization; expected a bundle of `simreal export`") from None
    return entries_of(parameters)


def read_run(run: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The `randomization:` block of a run directory and its newest sampler state. Raises RandomizationError."""
    if not checkpoint_files(run / "checkpoints") or not (run / "config.yaml").is_file():
        raise RandomizationError(f"{run}: expected the directory of a run (config.yaml, checkpoints) or of a bundle")
    try:
        block = read_yaml(run / "config.yaml")["randomization"]
    except (FileError, KeyError) as error:
        raise RandomizationError(f"{run / 'config.yaml'}: {error}, expected what `simreal train` wrote") from None
    try:
        newest, content = read_newest(run / "checkpoints")
    except FileError as error:
        raise RandomizationError(str(error)) from None
    try:
        state = content["environment"]["layer"]["sampler"]
    except (KeyError, TypeError):
        raise RandomizationError(f"{newest}: holds no sampler, expected a checkpoint of `simreal train`") from None
    return block, state
