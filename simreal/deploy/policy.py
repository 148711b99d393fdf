"""Loads a bundle and runs its policy with NumPy and ONNX Runtime.

Imports nothing else of simreal: this one file, copied to a robot, is enough. `docs/deploy.md` says what a bundle
holds; `simreal.export` writes it.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray

FORMAT, SCHEMA_VERSION = "simreal-policy", 1
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


class Policy:
    """A policy with its contract; `Policy.load` makes one.

    A policy with memory keeps its state between calls: call `reset` when an episode starts.

    Attributes:
        contract: the parsed policy.json.
        control_period_s: time between two actions, s.
        observation_size, action_size: lengths of the flat vectors.
    """

    def __init__(self, contract: dict[str, Any], layout: _Layout, session: onnxruntime.InferenceSession) -> None:
        self.contract = contract
        self.control_period_s = float(contract["control_period_s"])
        self.observation_size = layout.observation[-1].stop
        self.action_size = layout.action[-1].stop
        self._layout, self._session = layout, session
        self._names = [part.name for part in layout.observation]
        self._outputs = ["action"] if layout.initial_state is None else ["action", "next_state"]
        self._state: Array | None = None  # [B, *shape]; None at the start of an episode

    @classmethod
    def load(cls, bundle: str | os.PathLike[str]) -> Policy:
        """Load a bundle; prove that it is whole and computes here what it computed where it was exported.

        Raises:
            BundleError: a file is missing, altered or unreadable, or the golden actions do not come back.
        """
        folder = Path(bundle)
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such bundle; expected a directory with {CONTRACT}, {GRAPH} and {GOLDEN}")
        with _blaming(folder / CONTRACT):
            contract = _parse_contract(_read(folder / CONTRACT))
            layout = _layout(contract)
        contents: dict[str, bytes] = {}
        for name, (size, digest) in layout.files.items():
            with _blaming(folder / name):
                raw = _read(folder / name)
                if len(raw) != size or hashlib.sha256(raw).hexdigest() != digest:
                    raise BundleError(f"altered after the export; expected {size} bytes with sha256 {digest}")
            contents[name] = raw if name in (GRAPH, GOLDEN) else b""
        with _blaming(folder / GRAPH):
            policy = cls(contract, layout, _open_graph(contents[GRAPH], layout))
        with _blaming(folder / GOLDEN):
            policy._replay(_open_golden(contents[GOLDEN], layout))
        return policy

    def reset(self, mask: ArrayLike | None = None) -> None:
        """Forget the episode so far; call it when an episode starts.

        Args:
            mask: [B] bool, in batched use: only these rows start anew. None: all.
        """
        initial = self._layout.initial_state
        if self._state is None or initial is None:
            return
        if mask is None:
            self._state = None
            return
        rows = np.asarray(mask, dtype=bool)
        if rows.shape != self._state.shape[:1]:
            raise ValueError(f"mask: expected [{len(self._state)}], as in the calls before, got shape {rows.shape}")
        self._state[rows] = initial

    def __call__(self, observation: Mapping[str, ArrayLike] | ArrayLike) -> Array:
        """The action for an observation.

        Args:
            observation: in the contract's units, either the flat vector [nobs] or a mapping from the name of
                every component to its values [size]; or a batch of those, [B, nobs] or [B, size].

        Returns:
            Action [A], or [B, A], in [-1, 1]; see `targets`.

        Raises:
            ValueError: a component is unknown, missing, of the wrong size, NaN or infinite; it is named.
            FloatingPointError: the policy put out NaN; the state is left as it was.
        """
        flat = self._join(observation) if isinstance(observation, Mapping) else _float32(observation, "observation")
        size = self.observation_size
        # ONNX Runtime's GRU ends the whole process when it gets an empty batch.
        if flat.ndim not in (1, 2) or flat.shape[-1] != size or not len(flat):
            raise ValueError(f"observation: expected shape [{size}] or [B, {size}], got {list(flat.shape)}")
        if not np.isfinite(flat).all():
            raise ValueError(self._not_finite(flat))
        batch = np.ascontiguousarray(np.atleast_2d(flat))
        action, state = self._run(batch, self._state_of(len(batch)))
        if not np.isfinite(action).all():
            raise FloatingPointError("the policy put out NaN or infinity; stop the robot and reset the policy")
        self._state = state
        return action[0] if flat.ndim == 1 else action

    def targets(self, action: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """What an action [A] or [B, A] asks of the robot: for each action component offset + scale * value, in its
        unit. Raises ValueError for a wrong size."""
        values = np.asarray(action, dtype=np.float64)
        if values.ndim not in (1, 2) or values.shape[-1] != self.action_size:
            size = self.action_size
            raise ValueError(f"action: expected shape [{size}] or [B, {size}], got {list(values.shape)}")
        return {p.name: p.offset + p.scale * values[..., p.start : p.stop] for p in self._layout.action}

    def _run(self, observation: Array, state: Array | None) -> tuple[Array, Array | None]:
        """Action [B, A] and next state [B, *shape] for observations [B, nobs]."""
        feeds = {"observation": observation} if state is None else {"observation": observation, "state": state}
        outputs: list[Any] = list(self._session.run(self._outputs, feeds))
        return outputs[0], None if state is None else outputs[1]

    def _state_of(self, count: int) -> Array | None:
        initial = self._layout.initial_state
        if initial is None:
            return None
        if self._state is None:
            return np.repeat(initial[None], count, axis=0)
        if len(self._state) != count:
            raise ValueError(f"observation: {count} rows after {len(self._state)} in one episode; call reset() first")
        return self._state

    def _join(self, observation: Mapping[str, ArrayLike]) -> Array:
        """The flat vector [nobs] or [B, nobs] of a mapping."""
        takes = f"this policy takes: {', '.join(self._names)}"
        for name in observation:
            if name not in self._names:
                close = difflib.get_close_matches(str(name), self._names, n=1, cutoff=0.4)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ValueError(f"unknown observation component {name!r}{hint}; {takes}")
        values: list[Array] = []
        for part in self._layout.observation:
            what = f"observation component {part.name!r}"
            if part.name not in observation:
                raise ValueError(f"{what} is missing; {takes}")
            value = _float32(observation[part.name], what)
            lead = (values[0] if values else value).shape[:-1]
            expected = (*lead, len(part.scale))
            if value.ndim not in (1, 2) or value.shape != expected:
                raise ValueError(f"{what}: expected shape {list(expected)}, got {list(value.shape)}")
            values.append(value)
        return np.concatenate(values, axis=-1)

    def _not_finite(self, flat: Array) -> str:
        column = int(np.argwhere(~np.isfinite(flat))[0, -1])
        part = next(p for p in self._layout.observation if column < p.stop)
        value = flat[..., column][~np.isfinite(flat[..., column])].flat[0]
        element = part.elements[column - part.start] if part.elements else str(column - part.start)
        return f"observation component {part.name!r}: element {element!r} is {value}, expected a finite float32"

    def _replay(self, golden: dict[str, Array]) -> None:
        """Raise BundleError unless the golden actions (and states) come back."""
        initial = self._layout.initial_state
        before = None if initial is None else np.concatenate((initial[None], golden["states"][:-1]))
        try:
            action, state = self._run(golden["observations"], before)
        except Exception as error:  # see `_open_graph`
            raise BundleError(f"{GRAPH} cannot answer it: {_line(error)}") from None
        pairs = [("action", action, golden["actions"])]
        if state is not None:
            pairs.append(("state", state, golden["states"]))
        for what, actual, expected in pairs:
            error = relative_error(actual, expected)
            if not error <= GOLDEN_TOLERANCE:
                raise BundleError(
                    f"{GRAPH} answers with another {what} on this machine: off by {error:.1e}, "
                    f"expected at most {GOLDEN_TOLERANCE:g}"
                )


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """max |actual - expected| / max(1, |expected|) over all entries; NaN if any entry is."""
    expected = expected.astype(np.float64)
    return float(np.max(np.abs(actual - expected) / np.maximum(1.0, np.abs(expected)), initial=0.0))


@dataclass(frozen=True)
class _Part:
    """One component of the observation or action: columns [start, stop) of the flat vector."""

    name: str
    start: int
    stop: int
    elements: tuple[str, ...]
    scale: NDArray[np.float64]  # [size]
    offset: NDArray[np.float64]  # [size]


@dataclass(frozen=True)
class _Layout:
    """What running a policy takes of its contract."""

    observation: tuple[_Part, ...]
    action: tuple[_Part, ...]
    initial_state: Array | None  # [*shape]
    files: dict[str, tuple[int, str]]  # size and sha256


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Put the file's name before the message of a BundleError."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def _expect(ok: bool, message: str) -> None:
    if not ok:
        raise BundleError(message)


def _read(path: Path) -> bytes:
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


def _parse_contract(raw: bytes) -> dict[str, Any]:
    """policy.json, if it is of this format and nobody edited it."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not a whole JSON document: {_line(error)}") from None
    _expect(isinstance(document, dict), "expected a JSON object")
    _expect(document.get("format") == FORMAT, f"format: expected {FORMAT!r}, got {document.get('format')!r}")
    version = document.get("schema_version")
    _expect(version == SCHEMA_VERSION, f"schema_version: expected {SCHEMA_VERSION}, got {version!r}")
    digest = document.get("contract_sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise BundleError("contract_sha256: expected a sha256")
    actual = hashlib.sha256(raw.replace(digest.encode(), UNSIGNED.encode())).hexdigest()
    _expect(actual == digest, "altered after the export; its sha256 is not the one it states")
    return document


def _layout(contract: dict[str, Any]) -> _Layout:
    period = contract.get("control_period_s")
    _expect(_is_number(period, above=0.0), f"control_period_s: expected a positive number, got {period!r}")
    return _Layout(_parts(contract, "observation"), _parts(contract, "action"), _initial(contract), _files(contract))


def _parts(contract: dict[str, Any], group: str) -> tuple[_Part, ...]:
    entries = contract.get(group)
    if not isinstance(entries, list) or not entries:
        raise BundleError(f"{group}: expected a list of components")
    parts: list[_Part] = []
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
        parts.append(_Part(entry["name"], start, start + size, tuple(elements), *numbers))
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


def _files(contract: dict[str, Any]) -> dict[str, tuple[int, str]]:
    files = contract.get("files")
    if not isinstance(files, dict) or not files.keys() >= {GRAPH, GOLDEN}:
        raise BundleError(f"files: expected at least {GRAPH} and {GOLDEN}")
    for name, entry in files.items():
        _expect(bool(_PLAIN_NAME.fullmatch(name)), f"files: expected plain file names, got {name!r}")
        good = isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
        _expect(good, f"files.{name}: expected its size in bytes and its sha256")
    return {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}


def _open_graph(raw: bytes, layout: _Layout) -> onnxruntime.InferenceSession:
    """A session on one thread, if the graph is whole and has the inputs and outputs that the contract states."""
    _check_message(memoryview(raw), "model", [1_000_000])  # a policy has some hundred fields
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # more make a 10 us step slower and jittery
    options.log_severity_level = 4  # what goes wrong is raised; nothing is to be printed
    try:
        session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} cannot load it: {_line(error)}") from None
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


def _open_golden(raw: bytes, layout: _Layout) -> dict[str, Array]:
    """Arrays of golden.npz, with shapes as the contract has them."""
    shapes = {"observations": (layout.observation[-1].stop,), "actions": (layout.action[-1].stop,)}
    if layout.initial_state is not None:
        shapes["states"] = layout.initial_state.shape
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        _expect(unpacked <= _MAX_BYTES_OTHER, f"unpacks to {unpacked} bytes; expected {_MAX_BYTES_OTHER} at most")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            golden = {name: np.asarray(arrays[name]) for name in shapes}
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds
        raise BundleError(f"cannot be read: {_line(error)}") from None
    count = len(golden["observations"]) if golden["observations"].ndim else 0
    for name, shape in shapes.items():
        array, expected = golden[name], (count, *shape)
        good = count > 0 and array.shape == expected and array.dtype == np.float32
        _expect(good, f"{name}: expected float32 of shape {expected}, got {array.dtype} of {array.shape}")
    return golden


def _is_number(value: Any, above: float = -1e300) -> bool:
    """Whether `value` is a finite number of sensible size."""
    return type(value) in (int, float) and above < value < 1e300


def _float32(value: ArrayLike, what: str) -> Array:
    """`value` as float32; too large numbers become infinite. Raises ValueError naming `what` it is."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value).astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: expected numbers: {_line(error)}") from None


def _line(error: BaseException) -> str:
    """An exception's message in one short line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
