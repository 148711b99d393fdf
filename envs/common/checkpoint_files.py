"""Files of tensors and plain data: safetensors, with everything that is no tensor as JSON in the header.

Reading runs nothing and never holds more than the file has bytes. A checksum over all of it tells a disk that failed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from envs.common.messages import warn_once
from envs.common.safe_yaml import FileError, one_line

_LARGEST_HEADER, _LARGEST_CONTENT = 8_000_000, 2_000_000  # bytes; a usual checkpoint has 20,000
_TENSOR = "$tensor"  # the one key of a mapping that stands for the tensor of that name
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(file: IO[bytes], content: Mapping[str, Any]) -> None:
    """Write nested mappings and lists of tensors, text, numbers, truth values and None.

    The library's own writer puts the file under a name of its own choice, or needs all of it in memory a second time.

    Raises:
        OSError: as `file` does.
        TypeError: something else in it.
        ValueError: more than can be read again.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_without_tensors(content, "", tensors))
    metadata = {"content": plain, "crc32": _checksum(plain, tensors)}
    header: dict[str, Any] = {"__metadata__": metadata}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # all begin where their type may
    size = 0
    for name, tensor in ordered:
        offsets = [size, size := size + tensor.nbytes]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > _LARGEST_HEADER or len(plain) > _LARGEST_CONTENT:
        raise ValueError(f"its description has {len(raw):,} bytes, expected at most {_LARGEST_HEADER:,}")
    file.write(len(raw).to_bytes(8, "little") + raw)
    for _, tensor in ordered:
        file.write(_bytes(tensor))


def read_tensors(path: Path) -> dict[str, Any]:
    """What `write_tensors` wrote, tensors on the CPU; tuples come back as lists, keys as text.

    Raises:
        FileError: not such a file, or damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(b"PK"):
            raise FileError("written by an earlier version of simreal: use that version, or train anew")
        if int.from_bytes(start, "little") > _LARGEST_HEADER:
            raise FileError(f"not a safetensors file, or one whose header has more than {_LARGEST_HEADER} bytes")
        with safe_open(path, "pt", backend="pread") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if "content" not in metadata or len(metadata["content"]) > _LARGEST_CONTENT:
                raise FileError("its header holds no content of simreal's")
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(metadata["content"], tensors) != metadata.get("crc32"):
            raise FileError("damaged: its checksum is not the one stated")
        if any(t.dtype == torch.bool and t.numel() and int(t.view(torch.uint8).max()) > 1 for t in tensors.values()):
            raise FileError("damaged: a tensor of truth values holds others")
        content = json.loads(
            metadata["content"],
            object_hook=lambda mapping: tensors[mapping[_TENSOR]] if mapping.keys() == {_TENSOR} else mapping,
        )
    except FileError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"damaged: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise FileError(f"expected a mapping, got {type(content).__name__}")
    return content


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints step_N.safetensors of a folder, oldest first; step_N.pt of earlier versions too, to name them."""
    return sorted([*folder.glob("step_*.safetensors"), *folder.glob("step_*.pt")], key=lambda path: path.stem)


def read_newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint step_N.safetensors of a folder that can be read, and its content.

    Raises:
        FileError: none can be read; names the newest.
    """
    reasons: list[str] = []
    for path in reversed(checkpoint_files(folder)):
        try:
            content = read_tensors(path)
        except FileError as error:
            reasons.append(f"{path}: {error}")
            continue
        for reason in reasons:
            warn_once(f"{reason}; {path.name} is used")
        return path, content
    raise FileError(reasons[0] if reasons else f"{folder}: has no checkpoint")


def _without_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value with its tensors moved into `tensors`, each named by its path."""
    if isinstance(value, Tensor):
        name = path if path not in tensors else f"{path} {len(tensors)}"  # a key may hold a slash
        tensors[name] = value.detach().cpu().contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {
            key: _without_tensors(item, f"{path}/{key}" if path else str(key), tensors) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_tensors(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _checksum(content: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of the plain content and of names, types, shapes and values of the tensors."""
    crc = zlib.crc32(content.encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(_bytes(tensor), crc)
    return f"{crc:08x}"
