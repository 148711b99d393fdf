"""Files of bundles: read, and refused where they are incomplete, altered, or could do more than answer.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    import onnxruntime

GOLDEN = "golden.npz"
UNSIGNED = "0" * 64  # stands in the contract for its own digest while that digest is computed
GOLDEN_TOLERANCE = 1e-4  # ten times what export allows: another processor rounds differently
_MAX_BYTES = {".json": 16 << 20, ".onnx": 1 << 30}
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


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Put the file's name before the message of a BundleError."""
    try:
        yield
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def expect(ok: bool, message: str) -> None:
    """Raise BundleError with the message unless `ok`."""
    if not ok:
        raise BundleError(message)


def read_file(path: Path) -> bytes:
    """A file of a bundle, unless it is too large or leads elsewhere."""
    if not path.is_file():
        raise BundleError("no such file; the bundle is incomplete")
    expect(path.resolve().parent == path.parent.resolve(), "leads out of the bundle; expected a file, not a link")
    most = _MAX_BYTES.get(path.suffix, _MAX_BYTES_OTHER)
    try:
        size = path.stat().st_size
        expect(size <= most, f"has {size} bytes; expected {most} at most")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}") from None


def check_sha256(raw: bytes, size: int, digest: str) -> None:
    """Raise BundleError unless the bytes of a file are as many as its contract states, with this sha256."""
    actual = hashlib.sha256(raw).hexdigest()
    expect(
        len(raw) == size and actual == digest, f"altered after the export; expected {size} bytes with sha256 {digest}"
    )


def parse_signed(raw: bytes, form: str, versions: Sequence[int]) -> dict[str, Any]:
    """A contract, if it is of this format, of one of these versions, and nobody edited it."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not a whole JSON document: {one_line(error)}") from None
    expect(isinstance(document, dict), "expected a JSON object")
    expect(document.get("format") == form, f"format: expected {form!r}, got {document.get('format')!r}")
    version = document.get("schema_version")
    known = " or ".join(map(str, versions))
    expect(type(version) is int and version in versions, f"schema_version: expected {known}, got {version!r}")
    digest = document.get("contract_sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise BundleError("contract_sha256: expected a sha256")
    actual = hashlib.sha256(raw.replace(digest.encode(), UNSIGNED.encode())).hexdigest()
    expect(actual == digest, "altered after the export; its sha256 is not the one it states")
    return document


def stated_files(contract: Mapping[str, Any], needed: Collection[str]) -> dict[str, tuple[int, str]]:
    """Size and sha256 of every other file of a bundle, as its contract states them."""
    files = contract.get("files")
    if not isinstance(files, dict) or not files.keys() >= set(needed):
        raise BundleError(f"files: expected at least {' and '.join(needed)}")
    for name, entry in files.items():
        expect(bool(_PLAIN_NAME.fullmatch(name)), f"files: expected plain file names, got {name!r}")
        good = isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
        expect(good, f"files.{name}: expected its size in bytes and its sha256")
    return {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}


def open_session(
    raw: bytes, inputs: Mapping[str, list[int]], outputs: Mapping[str, list[int]], pictures: str = ""
) -> onnxruntime.InferenceSession:
    """A session on one thread, if the graph is whole and has these inputs and outputs per row, all float32 but for the
    input `pictures`, whose bytes are uint8."""
    session = load_graph(raw)
    sides = (("inputs", session.get_inputs(), inputs), ("outputs", session.get_outputs(), outputs))
    for kind, nodes, expected in sides:
        found = {node.name: list(node.shape[1:]) for node in nodes}
        expect(found == expected, f"{kind} per row: expected {dict(expected)}, got {found}")
        types = {node.name: "tensor(uint8)" if node.name == pictures else "tensor(float)" for node in nodes}
        dynamic = all(not isinstance(node.shape[0], int) and node.type == types[node.name] for node in nodes)
        expect(dynamic, f"{kind}: expected float32 (of pictures uint8) with a free batch size")
    return session


def load_graph(raw: bytes) -> onnxruntime.InferenceSession:
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
        expect(place not in _REFUSED_FIELDS, f"has {_REFUSED_FIELDS.get(place)}")
        text = bytes(value[:40]).decode(errors="replace") if isinstance(value, memoryview) else "?"
        foreign = place == ("node", 7) and text not in ("", "ai.onnx")
        refused = place == ("node", 4) and _REFUSED_OPERATORS.fullmatch(text)
        expect(not foreign and not refused, f"has an operator that no policy needs ({text})")
        if place in _PARTS and isinstance(value, memoryview):
            _check_message(value, _PARTS[place], budget)


def _fields(raw: memoryview, budget: list[int]) -> Iterator[tuple[int, Any]]:
    """Numbers and contents of the fields of a protobuf message; `budget` counts down."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            expect(at < len(raw) and shift < 70, _NO_GRAPH)
            byte, at = raw[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(raw):
        budget[0], key = budget[0] - 1, varint()
        kind = key & 7
        expect(budget[0] > 0 and kind in (0, 1, 2, 5), _NO_GRAPH)
        size = 0 if kind == 0 else varint() if kind == 2 else {1: 8, 5: 4}[kind]
        expect(at + size <= len(raw), _NO_GRAPH)
        yield key >> 3, varint() if kind == 0 else raw[at : at + size]
        at += size


def open_arrays(
    raw: bytes, kinds: Mapping[str, tuple[tuple[int, ...], DTypeLike]], more: Mapping[str, Any] | None = None
) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz file: shapes of their rows and types by name, all with as many rows, at least one.

    Args:
        raw: the file.
        kinds: what has to be there.
        more: likewise, what may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        expect(unpacked <= _MAX_BYTES_OTHER, f"unpacks to {unpacked} bytes; expected {_MAX_BYTES_OTHER} at most")
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            kinds = {**kinds, **{name: kind for name, kind in (more or {}).items() if name in arrays}}
            found = {name: np.asarray(arrays[name]) for name in kinds}
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds
        raise BundleError(f"cannot be read: {one_line(error)}") from None
    first = next(iter(found.values()))
    count = len(first) if first.ndim else 0
    for name, (shape, dtype) in kinds.items():
        array, expected, kind = found[name], (count, *shape), np.dtype(dtype)
        good = count > 0 and array.shape == expected and array.dtype == kind
        expect(good, f"{name}: expected {kind} of shape {expected}, got {array.dtype} of {array.shape}")
    return found


def one_line(error: BaseException) -> str:
    """An exception's message in one short line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def unknown_name(what: str, name: str, known: list[str], whose: str = "this policy") -> str:
    """What is said of a name that does not exist."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{what} {name!r}{hint}; {whose} takes: {', '.join(known)}"
