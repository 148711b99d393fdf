"""Reads a bundle's files, and refuses those that are incomplete, altered, or could do more than answer.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .kinematics import InverseKinematics

if TYPE_CHECKING:
    import onnxruntime

FORMAT = "simreal-policy"
SCHEMA_VERSIONS = (1, 2)  # 2: actions may be `relative` or go through `inverse` kinematics; what neither does states 1
CONTRACT, GRAPH, GOLDEN = "policy.json", "policy.onnx", "golden.npz"
UNSIGNED = "0" * 64  # stands in policy.json for its own digest while that digest is computed
GOLDEN_TOLERANCE = 1e-4  # ten times what export allows: another processor rounds differently
_MAX_BYTES = {CONTRACT: 16 << 20, GRAPH: 1 << 30}
_MAX_BYTES_OTHER = 256 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Of ONNX's operators: those that make arrays of a size that a number states, draw, or run another graph.
_REFUSED_OPERATORS = re.compile(
    r".*Window|Bernoulli|Col2Im|ConstantOfShape|DFT|Expand|EyeLike|If|Loop|MaxUnpool|MelWeightMatrix|Multinomial|OneHot|"
    r"Pad|Random.*|Range|Resize|STFT|Scan|SequenceMap|Tile|Upsample"
)
# onnx.proto's field numbers: of messages to look into, and of what is refused.
_PARTS = {("model", 7): "graph", ("graph", 1): "node", ("graph", 5): "tensor", ("node", 5): "attribute"}
_PARTS |= {("attribute", 5): "tensor", ("attribute", 10): "tensor"}
_REFUSED_FIELDS = {
    ("tensor", 13): "weights in another file; expected all of them inside", ("graph", 15): "sparse weights",
    ("attribute", 22): "sparse weights", ("attribute", 23): "sparse weights", ("attribute", 6): "another graph",
    ("attribute", 11): "other graphs", ("model", 20): "training graphs", ("model", 25): "functions of its own",
}  # fmt: skip
_NO_GRAPH = "is no ONNX graph; ONNX Runtime cannot load it"

Array = NDArray[np.float32]


class BundleError(ValueError):
    """A bundle that cannot be trusted; one line that names the file and what was expected."""


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """max |actual - expected| / max(1, |expected|) over all entries; NaN if any entry is."""
    expected = expected.astype(np.float64)
    return float(np.max(np.abs(actual - expected) / np.maximum(1.0, np.abs(expected)), initial=0.0))


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


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Put the file's name before the message of a BundleError."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def _expect(ok: bool, message: str) -> None:
    if not ok:
        raise BundleError(message)


def read_file(path: Path) -> bytes:
    """A file of a bundle, unless it is too large or leads elsewhere."""
    if not path.is_file():
        raise BundleError("no such file; the bundle is incomplete")
    _expect(path.resolve().parent == path.parent.resolve(), "leads out of the bundle; expected a file, not a link")
    most = _MAX_BYTES.get(path.name, _MAX_BYTES_OTHER)
    try:
        size = path.stat().st_size
        _expect(size <= most, f"has {size} bytes; expected {most} at most")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}") from None


def check_sha256(raw: bytes, size: int, digest: str) -> None:
    """Raise BundleError unless the bytes of a file are as many as its contract states, with this sha256."""
    actual = hashlib.sha256(raw).hexdigest()
    _expect(
        len(raw) == size and actual == digest, f"altered after the export; expected {size} bytes with sha256 {digest}"
    )


def parse_contract(raw: bytes) -> dict[str, Any]:
    """policy.json, if it is of this format and nobody edited it."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not a whole JSON document: {one_line(error)}") from None
    _expect(isinstance(document, dict), "expected a JSON object")
    _expect(document.get("format") == FORMAT, f"format: expected {FORMAT!r}, got {document.get('format')!r}")
    version = document.get("schema_version")
    known = " or ".join(map(str, SCHEMA_VERSIONS))
    _expect(type(version) is int and version in SCHEMA_VERSIONS, f"schema_version: expected {known}, got {version!r}")
    digest = document.get("contract_sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise BundleError("contract_sha256: expected a sha256")
    actual = hashlib.sha256(raw.replace(digest.encode(), UNSIGNED.encode())).hexdigest()
    _expect(actual == digest, "altered after the export; its sha256 is not the one it states")
    return document


def read_layout(contract: dict[str, Any]) -> Layout:
    """The part of a contract that running the policy needs. Raises BundleError naming the key that is wrong."""
    period = contract.get("control_period_s")
    _expect(_is_number(period, above=0.0), f"control_period_s: expected a positive number, got {period!r}")
    return Layout(*read_parts(contract), _initial(contract), _stated_files(contract))


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
    _expect(_is_number(smoothing, above=0.0) and smoothing <= 1, f"{where}.smoothing: expected a number in (0, 1]")
    initial, columns = _initial_target(entry.get("initial_target"), size, f"{where}.initial_target", observation)
    relative = entry.get("relative")
    _expect(inverse is None or relative is not None, f"{where}.relative: expected what steps of joints are added to")
    onto = None
    if relative not in (None, "target"):
        what = f"{where}.relative"
        _expect(isinstance(relative, dict), f"{what}: expected 'target', a component of the observation, or null")
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
    _expect(good, f"{where}: expected null, or {size} lowest and {size} highest targets")
    good = all(value is None or _is_number(value) for side in limits for value in side)
    _expect(good, f"{where}: expected numbers, or null for none")
    for bound, side in zip((low, high), limits, strict=True):
        known = np.array([value is not None for value in side])
        bound[known] = [value for value in side if value is not None]
    _expect(bool((low <= high).all()), f"{where}: expected lowest before highest targets")
    return low, high


def _initial_target(
    value: Any, size: int, where: str, observation: tuple[Part, ...]
) -> tuple[NDArray[np.float64] | None, NDArray[np.int64] | None]:
    """Where an episode starts: numbers, or columns of the flat observation; neither where that is not known."""
    if value is None:
        return None, None
    if isinstance(value, list):
        _expect(len(value) == size and all(map(_is_number, value)), f"{where}: expected {size} numbers")
        return np.array(value, dtype=np.float64), None
    _expect(isinstance(value, dict), f"{where}: expected numbers, a component of the observation, or null")
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
    _expect(good, f"{where}.index: expected {size} places among the {count} values of {source.name!r}")
    return source.start + np.array(index, dtype=np.int64)


def _parts(contract: dict[str, Any], group: str) -> tuple[Part, ...]:
    entries = contract.get(group)
    if not isinstance(entries, list) or not entries:
        raise BundleError(f"{group}: expected a list of components")
    parts: list[Part] = []
    for number, entry in enumerate(entries):
        where, start = f"{group}[{number}]", parts[-1].stop if parts else 0
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise BundleError(f"{where}: expected a named component")
        _expect(entry["name"] not in [p.name for p in parts], f"{where}.name: {entry['name']!r} appears twice")
        scale = entry.get("scale")
        size = len(scale) if isinstance(scale, list) else 0
        for key in ("scale", "offset"):
            values = entry.get(key)
            good = isinstance(values, list) and len(values) == size > 0 and all(map(_is_number, values))
            _expect(good, f"{where}.{key}: expected a finite number for every value")
        for key, expected in (("shape", [size]), ("index", [start, start + size])):
            _expect(entry.get(key) == expected, f"{where}.{key}: expected {expected}, got {entry.get(key)!r}")
        elements = entry.get("elements", [])
        good = isinstance(elements, list) and len(elements) in (0, size) and all(isinstance(e, str) for e in elements)
        _expect(good, f"{where}.elements: expected {size} names or none")
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


def _stated_files(contract: dict[str, Any]) -> dict[str, tuple[int, str]]:
    files = contract.get("files")
    if not isinstance(files, dict) or not files.keys() >= {GRAPH, GOLDEN}:
        raise BundleError(f"files: expected at least {GRAPH} and {GOLDEN}")
    for name, entry in files.items():
        _expect(bool(_PLAIN_NAME.fullmatch(name)), f"files: expected plain file names, got {name!r}")
        good = isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
        _expect(good, f"files.{name}: expected its size in bytes and its sha256")
    return {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}


def open_graph(raw: bytes, layout: Layout) -> onnxruntime.InferenceSession:
    """A session on one thread, if the graph is whole and has the inputs and outputs that the contract states."""
    session = open_session(raw)
    inputs: dict[str, list[int]] = {"observation": [layout.observation[-1].stop]}
    outputs: dict[str, list[int]] = {"action": [layout.action[-1].stop]}
    if layout.initial_state is not None:
        inputs["state"] = outputs["next_state"] = list(layout.initial_state.shape)
    sides = (("inputs", session.get_inputs(), inputs), ("outputs", session.get_outputs(), outputs))
    for kind, nodes, expected in sides:
        found = {node.name: list(node.shape[1:]) for node in nodes}
        _expect(found == expected, f"{kind} per row: expected {expected}, got {found}")
        dynamic = all(not isinstance(node.shape[0], int) and node.type == "tensor(float)" for node in nodes)
        _expect(dynamic, f"{kind}: expected float32 with a free batch size")
    return session


def open_session(raw: bytes) -> onnxruntime.InferenceSession:
    """A session on one thread, if the graph is whole and could do no more than answer."""
    import onnxruntime  # a policy that was compiled does without

    _check_message(memoryview(raw), "model", [1_000_000])  # a policy has some hundred fields
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # more make a 10 us step slower and jittery
    options.log_severity_level = 4  # what goes wrong is raised; nothing is to be printed
    try:
        return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} cannot load it: {one_line(error)}") from None


def _check_message(raw: memoryview, kind: str, budget: list[int]) -> None:
    """Refuse a graph that reads other files, or could take unbounded time or memory by design."""
    for number, value in _fields(raw, budget):
        place = (kind, number)
        _expect(place not in _REFUSED_FIELDS, f"has {_REFUSED_FIELDS.get(place)}")
        text = bytes(value[:40]).decode(errors="replace") if isinstance(value, memoryview) else "?"
        foreign = place == ("node", 7) and text not in ("", "ai.onnx")
        refused = place == ("node", 4) and _REFUSED_OPERATORS.fullmatch(text)
        _expect(not foreign and not refused, f"has an operator that no policy needs ({text})")
        if place in _PARTS and isinstance(value, memoryview):
            _check_message(value, _PARTS[place], budget)


def _fields(raw: memoryview, budget: list[int]) -> Iterator[tuple[int, Any]]:
    """Numbers and contents of the fields of a protobuf message; `budget` counts down."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            _expect(at < len(raw) and shift < 70, _NO_GRAPH)
            byte, at = raw[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(raw):
        budget[0], key = budget[0] - 1, varint()
        kind = key & 7
        _expect(budget[0] > 0 and kind in (0, 1, 2, 5), _NO_GRAPH)
        size = 0 if kind == 0 else varint() if kind == 2 else {1: 8, 5: 4}[kind]
        _expect(at + size <= len(raw), _NO_GRAPH)
        yield key >> 3, varint() if kind == 0 else raw[at : at + size]
        at += size


def open_golden(raw: bytes, layout: Layout) -> dict[str, NDArray[Any]]:
    """Arrays of golden.npz, with shapes as the contract has them."""
    shapes: dict[str, tuple[int, ...]] = {
        "observations": (layout.observation[-1].stop,),
        "actions": (layout.action[-1].stop,),
    }
    if layout.initial_state is not None:
        shapes["states"] = layout.initial_state.shape
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        _expect(unpacked <= _MAX_BYTES_OTHER, f"unpacks to {unpacked} bytes; expected {_MAX_BYTES_OTHER} at most")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            if "targets" in arrays:  # bundles of earlier versions have none, nor those that do not know the first
                shapes["targets"] = (layout.action[-1].sent.stop,)
            golden = {name: np.asarray(arrays[name]) for name in shapes}
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds
        raise BundleError(f"cannot be read: {one_line(error)}") from None
    count = len(golden["observations"]) if golden["observations"].ndim else 0
    for name, shape in shapes.items():
        array, expected = golden[name], (count, *shape)
        kind = np.dtype(np.float64 if name == "targets" else np.float32)
        good = count > 0 and array.shape == expected and array.dtype == kind
        _expect(good, f"{name}: expected {kind} of shape {expected}, got {array.dtype} of {array.shape}")
    return golden


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


def one_line(error: BaseException) -> str:
    """An exception's message in one short line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def unknown_name(what: str, name: str, known: list[str]) -> str:
    """What is said of a name that does not exist."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{what} {name!r}{hint}; this policy takes: {', '.join(known)}"
