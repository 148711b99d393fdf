"""Reads files that `torch.save` wrote, without an unpickler.

Such a file is a zip archive: one record describes the content in pickle's instructions, the others are the bytes of
tensors. torch's own restricted unpickler runs no foreign code, but it can be made to allocate any amount of memory
and does not verify checksums. The reader here knows numbers, text, lists, mappings and tensors, and no instruction
beyond those that build them. It never holds more than the file has bytes, and refuses a record whose checksum is
not the one stated: a disk that failed shows.
"""

from __future__ import annotations

import logging
import math
import pickletools
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randomization.untrusted import FileError, one_line

_log = logging.getLogger("simreal")
_LARGEST_DESCRIPTION = 4_000_000  # bytes; that of a usual checkpoint has 20,000
_MOST_VALUES, _DEEPEST = 1_000_000, 40
_CHUNK = 1 << 22
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MAPPING, _TENSOR = object(), object()  # what GLOBAL may name besides a kind of storage
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Storage:
    """The flat content of a record."""

    values: Tensor


def read_tensors(path: Path) -> dict[str, Any]:
    """The mapping that `torch.save(mapping, path)` wrote, tensors on the CPU.

    Raises:
        FileError: not such a file, damaged, or holding anything but tensors and plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _Reader(archive, path.stat().st_size).read()
    except FileError:
        raise
    except Exception as error:  # zipfile, pickletools and struct raise many kinds for malformed input
        raise FileError(f"damaged: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise FileError(f"expected a mapping, got {type(content).__name__}")
    _refuse_foreign(content, 0, [0])
    return content


def read_newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint step_N.pt of a folder that can be read, and its content.

    Raises:
        FileError: none can be read; names the newest.
    """
    reasons: list[str] = []
    for path in sorted(folder.glob("step_*.pt"), reverse=True):
        try:
            content = read_tensors(path)
        except FileError as error:
            reasons.append(f"{path}: {error}")
            continue
        for reason in reasons:
            _log.warning("warning: %s; %s is used", reason, path.name)
        return path, content
    raise FileError(reasons[0] if reasons else f"{folder}: has no checkpoint")


class _Reader:
    """Interprets the description of one archive."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int) -> None:
        self._archive = archive
        entries = archive.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise FileError("damaged: two records of one name")
        if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
            raise FileError("holds compressed records, expected what torch.save writes")
        if sum(entry.file_size for entry in entries) > file_size:
            raise FileError("damaged: its records are larger than the file")
        descriptions = [name for name in self._entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(descriptions) != 1:
            raise FileError("not a file that torch.save wrote")
        self._prefix = descriptions[0].removesuffix("data.pkl")
        self._storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []

    def read(self) -> Any:
        order = self._prefix + "byteorder"
        if order in self._entries and self._archive.read(order) != sys.byteorder.encode():
            raise FileError("written on a machine of another byte order")
        if self._entries[self._prefix + "data.pkl"].file_size > _LARGEST_DESCRIPTION:
            raise FileError(f"its description has more than {_LARGEST_DESCRIPTION} bytes")
        memo: dict[Any, Any] = {}
        stack = self._stack
        for operation, argument, _ in pickletools.genops(self._archive.read(self._prefix + "data.pkl")):
            name = operation.name
            if name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "STOP":
                break
            elif name != "PROTO":
                self._build(name, argument)
        (content,) = stack
        return content

    def _build(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_marked()))
        elif name in ("APPEND", "APPENDS"):
            values = self._pop(1) if name == "APPEND" else self._pop_marked()
            self._top(list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._pop(2) if name == "SETITEM" else self._pop_marked())
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            stack.append(_called(function, arguments))
        elif name == "BUILD":  # what torch notes of a module besides its tensors
            stack.pop()
            self._top(dict)
        else:
            raise FileError(f"holds more than tensors and plain data ({name})")

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise FileError("damaged: its description makes no sense")
        return self._stack[-1]

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise FileError("damaged: its description makes no sense")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _pop_marked(self) -> list[Any]:
        return self._pop(len(self._stack) - self._marks.pop())

    def _set(self, items: list[Any]) -> None:
        mapping = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise FileError("holds a key that is neither text nor a number")
            mapping[key] = value

    def _storage(self, reference: Any) -> _Storage:
        """The record that a reference ("storage", kind, record, device, length) names."""
        _, dtype, key, _, length = reference
        if not isinstance(dtype, torch.dtype) or type(key) is not str or type(length) is not int:
            raise FileError("damaged: its description makes no sense")
        if key not in self._storages:
            self._storages[key] = _Storage(self._record(f"{self._prefix}data/{key}", dtype, length))
        storage = self._storages[key]
        if storage.values.dtype != dtype or len(storage.values) != length:
            raise FileError(f"damaged: record {key} is referred to in two ways")
        return storage

    def _record(self, name: str, dtype: torch.dtype, length: int) -> Tensor:
        size = self._entries[name].file_size
        if size != length * dtype.itemsize:
            raise FileError(f"damaged: record {name} has {size} bytes, expected {length} of {dtype}")
        buffer, filled = torch.empty(size, dtype=torch.uint8), 0
        view = buffer.numpy()
        with self._archive.open(name) as record:
            while chunk := record.read(_CHUNK):  # up to the end, where the checksum is compared
                view[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
                filled += len(chunk)
        if filled != size:
            raise FileError(f"damaged: record {name} is cut off")
        if dtype == torch.bool and size and int(buffer.max()) > 1:
            raise FileError(f"damaged: record {name} holds no truth values")
        return buffer.view(dtype)


def _named(argument: str) -> Any:
    """What a GLOBAL instruction may name."""
    module, _, name = argument.partition(" ")
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    if argument == "collections OrderedDict":
        return _MAPPING
    if argument == "torch._utils _rebuild_tensor_v2":
        return _TENSOR
    raise FileError(f"holds more than tensors and plain data ({module}.{name})"[:200])


def _called(function: Any, arguments: Any) -> Any:
    if function is _MAPPING and arguments == ():
        return {}
    if function is not _TENSOR:
        raise FileError("holds more than tensors and plain data")
    storage, offset, size, stride, *_ = arguments
    if not isinstance(storage, _Storage) or not len(size) == len(stride) <= 8:
        raise FileError("damaged: its description makes no sense")
    numbers = (offset, *size, *stride)
    if not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise FileError("damaged: a tensor of impossible shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else 0
    if max(last + 1, math.prod(size)) > len(storage.values) and math.prod(size):
        raise FileError("damaged: a tensor larger than its record")
    return storage.values.as_strided(size, stride, offset) if math.prod(size) else storage.values.new_empty(size)


def _refuse_foreign(value: Any, depth: int, seen: list[int]) -> None:
    """Raise FileError unless `value` is made of tensors and plain data, of bounded depth and number."""
    seen[0] += 1
    if depth > _DEEPEST or seen[0] > _MOST_VALUES:
        raise FileError("nested too deeply or holds too many values")
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_foreign(item, depth + 1, seen)
    elif not (value is None or isinstance(value, (bool, int, float, str, Tensor))):
        raise FileError("holds more than tensors and plain data")
