"""Reads what a policy's contract says: its components, their limits and how targets follow from actions.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .files import GOLDEN, Array, BundleError, expect, one_line, open_arrays, open_session, parse_signed, stated_files
from .kinematics import InverseKinematics
from .pictures import PIXELS, Pictures, read_pictures

if TYPE_CHECKING:
    import onnxruntime

FORMAT = "simreal-policy"
SCHEMA_VERSIONS = (1, 2, 3)
"""2: actions may be `relative` or go through `inverse` kinematics; 3: the policy takes `pictures`."""
CONTRACT, GRAPH = "policy.json", "policy.onnx"


@dataclass(frozen=True)
class Part:
    """One component of the observation or action: columns [start, stop) of the flat vector."""

    name: str
    start: int
    stop: int
    elements: tuple[str, ...]
    scale: NDArray[np.float64]  # [size]
    offset: NDArray[np.float64]  # [size]


@dataclass(frozen=True)
class ActionPart(Part):
    """One component of the action: what is sent moves by `smoothing` of the way to the target within its limits.

    Attributes:
        sent: where its targets lie among those of all components; as many as values, but with `inverse`.
        low, high: [sent] of targets.
        initial: [sent] the last command when every episode starts; None where that differs by episode.
        initial_columns: [sent] columns of the flat observation that hold that value at the start of an episode; None
            where `initial` is given or where the observation does not show it.
        unit: of what is sent.
        onto_last: whether targets are added to the last command.
        onto_columns: [sent] columns of the flat observation that targets are added to; None for none.
        inverse: makes steps of joints of the values; None where values are targets.
    """

    sent: slice

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    smoothing: float
    unit: str
    initial: NDArray[np.float64] | None
    initial_columns: NDArray[np.int64] | None
    onto_last: bool
    onto_columns: NDArray[np.int64] | None
    inverse: InverseKinematics | None


@dataclass(frozen=True)
class Layout:
    """What running a policy takes of its contract."""

    observation: tuple[Part, ...]
    action: tuple[ActionPart, ...]
    initial_state: Array | None  # [*shape]
    files: dict[str, tuple[int, str]]  # size and sha256
    pictures: Pictures | None = None

    @property
    def observation_size(self) -> int:
        """Values of the flat observation."""
        return self.observation[-1].stop if self.observation else 0


def parse_contract(raw: bytes) -> dict[str, Any]:
    """policy.json, if it is of this format and nobody edited it."""
    return parse_signed(raw, FORMAT, SCHEMA_VERSIONS)


def read_layout(contract: dict[str, Any]) -> Layout:
    """The part of a contract that running the policy needs. Raises BundleError naming the key that is wrong."""
    period = contract.get("control_period_s")
    expect(_is_number(period, above=0.0), f"control_period_s: expected a positive number, got {period!r}")
    try:
        pictures = read_pictures(contract.get("pictures"), "pictures") if contract["schema_version"] >= 3 else None
    except ValueError as error:
        raise BundleError(str(error)) from None
    return Layout(*read_parts(contract), _initial(contract), stated_files(contract, (GRAPH, GOLDEN)), pictures)


def read_parts(contract: dict[str, Any]) -> tuple[tuple[Part, ...], tuple[ActionPart, ...]]:
    """The components of a contract's observation and action. Raises BundleError naming what is wrong."""
    observation, action = _parts(contract, "observation"), list[ActionPart]()
    for number, part in enumerate(_parts(contract, "action")):
        start = action[-1].sent.stop if action else 0
        action.append(_action_part(part, contract["action"][number], f"action[{number}]", observation, start))
    return observation, tuple(action)


def _action_part(
    part: Part, entry: dict[str, Any], where: str, observation: tuple[Part, ...], start: int
) -> ActionPart:  # fmt: skip
    """How targets of a component are limited and smoothed; a bundle that does not say so does neither."""
    inverse, size, unit = None, len(part.scale), entry.get("unit")
    if entry.get("inverse") is not None:
        try:
            inverse = InverseKinematics(entry["inverse"], size)
        except ValueError as error:
            raise BundleError(f"{where}.inverse: {error}") from None
        size, unit = inverse.joints, entry["inverse"].get("unit")
    low, high = _limits(entry.get("target_limits"), size, f"{where}.target_limits")
    smoothing = entry.get("smoothing", 1.0)
    expect(_is_number(smoothing, above=0.0) and smoothing <= 1, f"{where}.smoothing: expected a number in (0, 1]")
    initial, columns = _initial_target(entry.get("initial_target"), size, f"{where}.initial_target", observation)
    relative = entry.get("relative")
    expect(inverse is None or relative is not None, f"{where}.relative: expected what steps of joints are added to")
    onto = None
    if relative not in (None, "target"):
        what = f"{where}.relative"
        expect(isinstance(relative, dict), f"{what}: expected 'target', a component of the observation, or null")
        onto = _shown_columns(relative, size, what, observation)
    return ActionPart(
        **vars(part), sent=slice(start, start + size), low=low, high=high, smoothing=float(smoothing),
        unit=unit if isinstance(unit, str) else "?", initial=initial, initial_columns=columns,
        onto_last=relative == "target", onto_columns=onto, inverse=inverse,
    )  # fmt: skip


def _limits(limits: Any, size: int, where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest targets; infinite where none is stated."""
    low, high = np.full(size, -np.inf), np.full(size, np.inf)
    if limits is None:
        return low, high
    good = isinstance(limits, list) and [isinstance(side, list) and len(side) for side in limits] == [size] * 2
    expect(good, f"{where}: expected null, or {size} lowest and {size} highest targets")
    good = all(value is None or _is_number(value) for side in limits for value in side)
    expect(good, f"{where}: expected numbers, or null for none")
    for bound, side in zip((low, high), limits, strict=True):
        known = np.array([value is not None for value in side])
        bound[known] = [value for value in side if value is not None]
    expect(bool((low <= high).all()), f"{where}: expected lowest before highest targets")
    return low, high


def _initial_target(
    value: Any, size: int, where: str, observation: tuple[Part, ...]
) -> tuple[NDArray[np.float64] | None, NDArray[np.int64] | None]:
    """Where an episode starts: numbers, or columns of the flat observation; neither where that is not known."""
    if value is None:
        return None, None
    if isinstance(value, list):
        expect(len(value) == size and all(map(_is_number, value)), f"{where}: expected {size} numbers")
        return np.array(value, dtype=np.float64), None
    expect(isinstance(value, dict), f"{where}: expected numbers, a component of the observation, or null")
    return None, _shown_columns(value, size, where, observation)


def _shown_columns(
    value: dict[str, Any], size: int, where: str, observation: tuple[Part, ...]
) -> NDArray[np.int64]:  # fmt: skip
    """Columns of the flat observation that a component and places in it name."""
    source = next((part for part in observation if part.name == value.get("component")), None)
    if source is None:
        raise BundleError(f"{where}.component: expected a component of the observation, got {value.get('component')!r}")
    index, count = value.get("index"), source.stop - source.start
    good = isinstance(index, list) and len(index) == size and all(type(i) is int and 0 <= i < count for i in index)
    expect(good, f"{where}.index: expected {size} places among the {count} values of {source.name!r}")
    return source.start + np.array(index, dtype=np.int64)


def _parts(contract: dict[str, Any], group: str) -> tuple[Part, ...]:
    entries = contract.get(group)
    if entries == [] and group == "observation" and contract.get("pictures"):
        return ()
    if not isinstance(entries, list) or not entries:
        raise BundleError(f"{group}: expected a list of components")
    parts: list[Part] = []
    for number, entry in enumerate(entries):
        where, start = f"{group}[{number}]", parts[-1].stop if parts else 0
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise BundleError(f"{where}: expected a named component")
        expect(entry["name"] not in [p.name for p in parts], f"{where}.name: {entry['name']!r} appears twice")
        scale = entry.get("scale")
        size = len(scale) if isinstance(scale, list) else 0
        for key in ("scale", "offset"):
            values = entry.get(key)
            good = isinstance(values, list) and len(values) == size > 0 and all(map(_is_number, values))
            expect(good, f"{where}.{key}: expected a finite number for every value")
        for key, expected in (("shape", [size]), ("index", [start, start + size])):
            expect(entry.get(key) == expected, f"{where}.{key}: expected {expected}, got {entry.get(key)!r}")
        elements = entry.get("elements", [])
        good = isinstance(elements, list) and len(elements) in (0, size) and all(isinstance(e, str) for e in elements)
        expect(good, f"{where}.elements: expected {size} names or none")
        numbers = (np.array(entry[key], dtype=np.float64) for key in ("scale", "offset"))
        parts.append(Part(entry["name"], start, start + size, tuple(elements), *numbers))
    return tuple(parts)


def _initial(contract: dict[str, Any]) -> Array | None:
    """The state at the start of an episode."""
    entry = contract.get("recurrent_state")
    if entry is None:
        return None
    try:
        initial = np.array(entry["initial"], dtype=np.float32)
        if list(initial.shape) == entry["shape"] and initial.size and np.isfinite(initial).all():
            return initial
    except (TypeError, KeyError, ValueError, OverflowError):
        pass
    raise BundleError("recurrent_state: expected null, or a shape and initial values of that shape")


def open_graph(raw: bytes, layout: Layout) -> onnxruntime.InferenceSession:
    """A session on one thread, if the graph is whole and has the inputs and outputs that the contract states."""
    inputs: dict[str, list[int]] = {"observation": [layout.observation_size]} if layout.observation else {}
    outputs: dict[str, list[int]] = {"action": [layout.action[-1].stop]}
    if layout.initial_state is not None:
        inputs["state"] = outputs["next_state"] = list(layout.initial_state.shape)
    if layout.pictures is not None:
        inputs[PIXELS] = [layout.pictures.stack, *layout.pictures.shape]
    return open_session(raw, inputs, outputs, PIXELS)


def open_golden(raw: bytes, layout: Layout) -> dict[str, NDArray[Any]]:
    """Arrays of golden.npz, with shapes as the contract has them."""
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {
        "observations": ((layout.observation_size,), np.float32),
        "actions": ((layout.action[-1].stop,), np.float32),
    }
    if layout.initial_state is not None:
        kinds["states"] = (layout.initial_state.shape, np.float32)
    if layout.pictures is not None:
        kinds[PIXELS] = ((layout.pictures.stack, *layout.pictures.shape), np.uint8)
    # Bundles of earlier versions have no targets, nor those that do not know the first.
    return open_arrays(raw, kinds, {"targets": ((layout.action[-1].sent.stop,), np.float64)})


def _is_number(value: Any, above: float = -1e300) -> bool:
    """Whether `value` is a finite number of sensible size."""
    return type(value) in (int, float) and above < value < 1e300


def as_float32(value: ArrayLike, what: str) -> Array:
    """`value` as float32; too large numbers become infinite. Raises ValueError naming `what` it is."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value).astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: expected numbers: {one_line(error)}") from None
