"""Pictures of past control steps, each kept once, in bytes; stacks are gathered from them."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from simreal.learners.off_policy.replay import HerReplayBuffer, NewGoal
from simreal.learners.off_policy.transitions import ReplayBatch
from simreal.learners.pixels.layout import PixelLayout

_MOST_MEMORY = 0.8  # of the machine's, for pictures


class FrameStore:
    """What the camera showed at the last steps of N environments, beside a replay of as many.

    Step t has the picture that its action was chosen at. Where the episode goes on, the next step has the picture that
    it led to; where it ended, that one is kept apart.

    Args:
        slots: steps whose pictures, and those that they led to, can be asked for.
        num_envs: N.
        layout: what is looked at; so much of a picture is kept.

    Raises:
        ValueError: so many pictures do not fit into this machine's memory.
    """

    def __init__(self, slots: int, num_envs: int, layout: PixelLayout) -> None:
        self._layout, self._num_envs = layout, num_envs
        self._ring = slots + layout.stack  # the past of the oldest step, and what the newest one led to
        shape = (*layout.seen, 3)
        _check_memory(self._ring * num_envs, shape)
        self._frames = torch.empty(self._ring, num_envs, *shape, dtype=torch.uint8)
        self._age = torch.zeros(self._ring, num_envs, dtype=torch.int32)  # steps of the episode before
        self._final_at = torch.full((self._ring, num_envs), -1, dtype=torch.int64)  # where in `_finals`; -1: goes on
        self._finals = torch.empty(0, *shape, dtype=torch.uint8)
        self._free: list[int] = []
        self._present_age = torch.zeros(num_envs, dtype=torch.int32)
        self._time = 0

    def add(self, pictures: Tensor, final: Tensor, done: Tensor) -> None:
        """Keep a step: what it was chosen at and what it led to, [N, h, w, 3], and where the episode ended [N]."""
        slot, after = self._time % self._ring, (self._time + 1) % self._ring
        self._frames[slot], self._frames[after] = pictures, final
        self._age[slot] = self._present_age
        old = self._final_at[slot]
        self._free += old[old >= 0].tolist()
        self._final_at[slot] = -1
        ended = done.nonzero()[:, 0]
        if len(ended):
            places = self._places(len(ended))
            self._finals[places] = final[ended]
            self._final_at[slot, ended] = places
        self._present_age = (self._present_age + 1).masked_fill(done, 0)
        self._time += 1

    def _places(self, count: int) -> Tensor:
        """Free places in `_finals`."""
        if len(self._free) < count:
            size, more = len(self._finals), max(len(self._finals), count, 64)
            self._finals = torch.cat((self._finals, torch.empty(more, *self._finals.shape[1:], dtype=torch.uint8)))
            self._free += range(size, size + more)
        taken = self._free[-count:]
        del self._free[-count:]
        return torch.tensor(taken)

    def stack(self, time: Tensor, env: Tensor) -> Tensor:
        """Stacks [B, K, h, w, 3] at steps [B] of environments [B], oldest first."""
        return self._gathered(time, env, self._age[time % self._ring, env])

    def next_stack(self, time: Tensor, env: Tensor) -> Tensor:
        """Stacks [B, K, h, w, 3] that these steps led to."""
        found = self._gathered(time + 1, env, self._age[time % self._ring, env] + 1)
        final = self._final_at[time % self._ring, env]
        ended = final >= 0
        found[ended, -1] = self._finals[final[ended]]
        return found

    def _gathered(self, time: Tensor, env: Tensor, age: Tensor) -> Tensor:
        back = torch.arange(self._layout.stack - 1, -1, -1)
        steps = time[:, None] - torch.minimum(back, age[:, None])
        places = (steps % self._ring) * self._num_envs + env[:, None]
        return self._frames.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)

    def state_dict(self) -> dict[str, Any]:
        """What is held."""
        held = min(self._time + 1, self._ring)
        final_at = self._final_at[:held]
        return {
            "frames": self._frames[:held], "age": self._age[:held], "ended": final_at >= 0,
            "finals": self._finals[final_at[final_at >= 0]], "present_age": self._present_age, "time": self._time,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises ValueError where it is of other sizes."""
        held = min(state["time"] + 1, self._ring)
        shape = (held, *self._frames.shape[1:])
        if tuple(state["frames"].shape) != shape:
            raise ValueError(f"pictures: expected {list(shape)}, got {list(state['frames'].shape)}")
        self._frames[:held], self._age[:held] = state["frames"], state["age"]
        self._finals, self._free = state["finals"].clone(), []
        self._final_at.fill_(-1)
        self._final_at[:held][state["ended"]] = torch.arange(len(self._finals))
        self._present_age, self._time = state["present_age"].clone(), state["time"]


def _check_memory(pictures: int, shape: tuple[int, ...]) -> None:
    """Raise ValueError for more pictures than fit into memory."""
    size = pictures * torch.Size(shape).numel()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system tells
        return
    if size > _MOST_MEMORY * memory:
        most = int(_MOST_MEMORY * memory * pictures / size)
        raise ValueError(
            f"replay_size: {pictures:,} pictures of {shape[1]} x {shape[0]} take {size / 1e9:.1f} GB; expected at most "
            f"{most:,} on this machine"
        )


class PixelReplay(HerReplayBuffer):
    """A replay whose transitions know their step and environment, and the pictures there.

    Args:
        layout: of the pictures.
        capacity, num_envs, ...: see `HerReplayBuffer`.
    """

    def __init__(self, layout: PixelLayout, capacity: int, num_envs: int, *rest: Any) -> None:
        super().__init__(capacity, num_envs, *rest)
        self.frames = FrameStore(self.slots, num_envs, layout)

    def _batch(
        self, first: Tensor, last: Tensor, time: Tensor, end: Tensor, env: Tensor, new: NewGoal | None
    ) -> ReplayBatch:
        batch = super()._batch(first, last, time, end, env, new)
        return ReplayBatch(**vars(batch) | {"time": time, "env": env})

    def state_dict(self) -> dict[str, Any]:
        """See `HerReplayBuffer.state_dict`; and the pictures."""
        return super().state_dict() | {"frames": self.frames.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        super().load_state_dict(state)
        self.frames.load_state_dict(state["frames"])
