"""Pictures that a policy or an estimator takes: what its contract says of them, and whether given ones are such.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bytes = NDArray[np.uint8]
PIXELS = "pixels"  # key of an observation, and name of a graph's input
_MOST_EDGE, _MOST_STACK = 4096, 64


@dataclass(frozen=True)
class Pictures:
    """Pictures of one camera, as its driver gives them: [height, width, 3] in bytes.

    Attributes:
        camera: its name.
        height, width: pixels.
        colours: "rgb" or "bgr", their order in a pixel.
        stack: how many are looked at: the present one and those of the control steps before it.
    """

    camera: str
    height: int
    width: int
    colours: str
    stack: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one picture."""
        return self.height, self.width, 3

    def checked(self, given: ArrayLike, what: str = PIXELS) -> Bytes:
        """Pictures [..., height, width, 3] with at most one dimension before those. Raises ValueError naming `what`."""
        pictures = np.asarray(given)
        if pictures.dtype != np.uint8:
            raise ValueError(
                f"{what}: expected bytes (uint8) in the order {self.colours}, as the camera gives them, got "
                f"{pictures.dtype}"
            )
        if pictures.shape[-3:] != self.shape or pictures.ndim not in (3, 4) or not len(pictures):
            raise ValueError(
                f"{what}: expected pictures [{', '.join(map(str, self.shape))}] (height, width, colours) or a batch of "
                f"them, got {list(pictures.shape)}"
            )
        return pictures


def read_pictures(entry: Any, where: str) -> Pictures:
    """The pictures that an entry of a contract states. Raises ValueError naming what is wrong."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: expected what is said of a camera, got {type(entry).__name__}")
    shape, stack, camera = entry.get("shape"), entry.get("stack", 1), entry.get("camera")
    sizes: list[Any] = shape if isinstance(shape, list) else []
    if len(sizes) != 3 or not all(type(n) is int and 0 < n <= _MOST_EDGE for n in sizes) or sizes[2] != 3:
        raise ValueError(f"{where}.shape: expected height, width and 3 colours, got {shape!r:.80}")
    if entry.get("dtype") != "uint8":
        raise ValueError(f"{where}.dtype: expected 'uint8', got {entry.get('dtype')!r:.80}")
    if entry.get("colours") not in ("rgb", "bgr"):
        raise ValueError(f"{where}.colours: expected 'rgb' or 'bgr', got {entry.get('colours')!r:.80}")
    if type(stack) is not int or not 1 <= stack <= _MOST_STACK:
        raise ValueError(f"{where}.stack: expected 1 to {_MOST_STACK}, got {stack!r:.80}")
    if not isinstance(camera, str):
        raise ValueError(f"{where}.camera: expected a name, got {camera!r:.80}")
    return Pictures(camera, sizes[0], sizes[1], entry["colours"], stack)


class Stack:
    """The last K pictures of B robots, oldest first; at the beginning of an episode all are its first.

    Args:
        count: K.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: Bytes | None = None  # [B, K, height, width, 3]
        self._begins: NDArray[np.bool_] | None = None  # [B] whose next picture is an episode's first; None: all

    def reset(self, mask: NDArray[np.bool_] | None) -> None:
        """Episodes begin in the rows of mask [B]; None: in all. Raises ValueError for another number of rows."""
        if mask is None or self._begins is None:
            self._begins = None
        elif len(mask) != len(self._begins):
            raise ValueError(f"mask: expected [{len(self._begins)}], as in the calls before, got shape {mask.shape}")
        else:
            self._begins = self._begins | mask

    def after(self, pictures: Bytes) -> Bytes:
        """The stacks [B, K, ...] with the present pictures [B, ...]. Raises ValueError for another number of rows."""
        new = pictures[:, None]
        whole = np.repeat(new, self._count, axis=1)
        if self._held is None or self._begins is None:
            return whole
        if len(self._held) != len(new):
            raise ValueError(f"{PIXELS}: {len(new)} rows after {len(self._held)} in one episode; call reset() first")
        longer = np.concatenate((self._held[:, 1:], new), axis=1)
        return np.where(self._begins.reshape(-1, 1, 1, 1, 1), whole, longer)

    def keep(self, stacks: Bytes) -> None:
        """Remember stacks that `after` gave."""
        self._held, self._begins = stacks, np.zeros(len(stacks), dtype=bool)
