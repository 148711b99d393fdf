"""Ranges that logs of a robot narrowed, in place of those that somebody guessed (`randomization.from: FILE`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.common.messages import near_file
from envs.common.safe_yaml import FileError, read_yaml
from envs.task import Task
from randomization.parameters import Parameter, RandomizationError, build_parameters

Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Found:
    """What a file says of a robot.

    Attributes:
        path: of the file.
        block: its `randomization:` block, as it stands there.
        asked: by label, the range that was believed before there was a log.
    """

    path: Path
    block: Mapping[str, Any]
    asked: Mapping[str, tuple[float, float]]


def read_found(source: str) -> Found:
    """A YAML file with a `randomization:` block, as `simreal identify` writes it.

    Raises:
        RandomizationError: there is none, or it holds something else.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        raise RandomizationError(
            f"randomization.from: {path}: is a folder; expected a YAML file with ranges, or 'sampler: frozen' for a "
            "run or a bundle"
        )
    if not path.is_file():
        raise RandomizationError(f"randomization.from: {path}: no such file{near_file(path)}")
    try:
        document = read_yaml(path)
    except FileError as error:
        raise RandomizationError(f"randomization.from: {path}: {error}") from None
    block, asked = document.get("randomization"), document.get("asked", {})
    if not isinstance(block, Mapping) or not block.get("parameters"):
        raise RandomizationError(f"randomization.from: {path}: has no 'randomization:' block with parameters")
    if block.get("from") is not None or block.get("source") is not None:
        raise RandomizationError(f"randomization.from: {path}: takes its ranges from elsewhere itself, expected ranges")
    if not isinstance(asked, Mapping):
        raise RandomizationError(f"randomization.from: {path}: asked: expected ranges by label, got {asked!r}")
    return Found(path, block, {str(label): _ends(path, label, ends) for label, ends in asked.items()})


def _ends(path: Path, label: Any, ends: Any) -> tuple[float, float]:
    numbers = [end for end in ends if isinstance(end, (int, float))] if isinstance(ends, (list, tuple)) else []
    if len(numbers) != 2 or not numbers[0] <= numbers[1]:
        raise RandomizationError(f"randomization.from: {path}: asked.{label}: expected [lower, upper], got {ends!r}")
    return float(numbers[0]), float(numbers[1])


def informed(task: Task, own: Entries, found: Found, widens: bool) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """A configuration's entries with those of a file in their place, for what the file speaks of.

    Args:
        task: whose objects entries name.
        own: the configuration's.
        found: the file.
        widens: whether ranges are those that a curriculum may widen to. Then it begins at the file's nominal values and
            may go as far as the configuration, the file's `asked` or the file allows, whichever is widest; else ranges
            are the file's.

    Returns:
        The entries, and the labels that those of the file have among them.

    Raises:
        RandomizationError: an entry is wrong; it is named with its file.
    """
    given: Entries = found.block["parameters"]
    try:
        known = build_parameters(task, given)
    except RandomizationError as error:
        raise RandomizationError(f"randomization.from: {found.path}: {error}") from None
    guessed = build_parameters(task, own)
    entries: dict[str, dict[str, Any]] = {}
    for mine in guessed:
        left = _not_in(mine, known)
        if left is not None:
            entries[mine.name] = {**own[mine.name], **({"of": list(left)} if left else {})}
    labels: dict[str, str] = {}
    for parameter in known:
        label = parameter.name if parameter.name not in entries else f"{parameter.name} (identified)"
        labels[parameter.name] = label
        entry = {**given[parameter.name], "quantity": parameter.quantity}
        if widens:
            spans = [p.limits for p in guessed if _common(p, parameter)]
            spans += [parameter.limits, found.asked.get(parameter.name, parameter.limits)]
            entry["range"] = [min(low for low, _ in spans), max(high for _, high in spans)]
            entry["nominal"] = parameter.nominal
            for fixed in ("distribution", "group"):
                entry.pop(fixed, None)
        entries[label] = entry
    return entries, labels


def _common(a: Parameter, b: Parameter) -> bool:
    """Whether two parameters are of the same quantity of something."""
    return a.quantity == b.quantity and (bool({*a.targets} & {*b.targets}) or not a.targets)


def _not_in(mine: Parameter, known: list[Parameter]) -> tuple[str, ...] | None:
    """What a parameter is of beside others: () where it has no targets, None where nothing is left of it."""
    same = [parameter for parameter in known if _common(mine, parameter)]
    if not same:
        return mine.targets
    spoken = {target for parameter in same for target in parameter.targets}
    return tuple(target for target in mine.targets if target not in spoken) or None
