"""Warp kernels of the GPU engine, and CUDA graphs of what it runs often."""

# Kernels are Warp's language in Python's clothes.
# pyright: reportMissingImports=false, reportInvalidTypeForm=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import warp as wp

_LARGEST = wp.constant(1.0e10)  # mjMAXVAL: beyond it MuJoCo calls a simulation unstable


@wp.kernel
def check_worlds(
    qpos0: wp.array2d[float],
    time: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    act: wp.array2d[float],
    ctrl: wp.array2d[float],
    qacc: wp.array2d[float],
    qacc_warmstart: wp.array2d[float],
    qfrc_applied: wp.array2d[float],
    failed: wp.array[bool],
):
    """Reset the worlds that became unstable, as mj_step does (mj_checkPos, mj_checkVel, mj_checkAcc), and mark them."""
    world = wp.tid()
    sound = bool(True)  # noqa: UP018  # a variable, for Warp
    for i in range(qpos.shape[1]):
        if not (wp.abs(qpos[world, i]) <= _LARGEST):  # false for NaN as well
            sound = False
    for i in range(qvel.shape[1]):
        if not (wp.abs(qvel[world, i]) <= _LARGEST and wp.abs(qacc[world, i]) <= _LARGEST):
            sound = False
    if sound:
        return
    failed[world] = True
    time[world] = 0.0
    for i in range(qpos.shape[1]):
        qpos[world, i] = qpos0[world % qpos0.shape[0], i]
    for i in range(qvel.shape[1]):
        qvel[world, i] = 0.0
        qacc[world, i] = 0.0
        qacc_warmstart[world, i] = 0.0
        qfrc_applied[world, i] = 0.0
    for i in range(act.shape[1]):
        act[world, i] = 0.0
    for i in range(ctrl.shape[1]):
        ctrl[world, i] = 0.0


@wp.kernel
def gather_overflow(failed: wp.array[bool], overflow: wp.array[int], overflowed: wp.array[int]):
    """Gather and clear the overflow flags of all worlds; those of a world that became unstable say nothing."""
    world = wp.tid()
    if overflow[world] != 0 and not failed[world]:
        wp.atomic_or(overflowed, 0, overflow[world])
    overflow[world] = 0


@wp.kernel
def write_command(commands: wp.array3d[float], substep: int, start: int, target: wp.array2d[float]):
    """target[n, i] = commands[n, substep, start + i]."""
    world, i = wp.tid()
    target[world, i] = commands[world, substep, start + i]


@wp.func
def _of_mujoco(q: wp.quat) -> wp.quat:
    """MuJoCo keeps the real part first, Warp last."""
    return wp.quat(q[1], q[2], q[3], q[0])


@wp.kernel
def place_static(
    geoms: wp.array[int],
    geom_bodyid: wp.array[int],
    body_parentid: wp.array[int],
    body_pos: wp.array2d[wp.vec3],
    body_quat: wp.array2d[wp.quat],
    geom_pos: wp.array2d[wp.vec3],
    geom_quat: wp.array2d[wp.quat],
    geom_xpos: wp.array2d[wp.vec3],
    geom_xmat: wp.array2d[wp.mat33],
):
    """Poses in the world of geoms on bodies without joints."""
    world, i = wp.tid()
    geom = geoms[i]
    pos = geom_pos[world % geom_pos.shape[0], geom]
    quat = _of_mujoco(geom_quat[world % geom_quat.shape[0], geom])
    body = geom_bodyid[geom]
    while body > 0:  # pyright: ignore[reportOperatorIssue]
        turn = _of_mujoco(body_quat[world % body_quat.shape[0], body])
        pos = body_pos[world % body_pos.shape[0], body] + wp.quat_rotate(turn, pos)
        quat = turn * quat
        body = body_parentid[body]
    geom_xpos[world, geom] = pos
    geom_xmat[world, geom] = wp.quat_to_matrix(quat)


_streams: dict[tuple[str, int], Any] = {}  # Warp's names for torch's streams


@contextmanager
def on_torch_stream(device: Any) -> Iterator[Any]:
    """Warp's `device` and torch's stream are Warp's present ones within; yields the stream, None on a CPU.

    What runs or is allocated within is ordered with torch's work before and after it, whichever stream that is on.
    """
    if not device.is_cuda:
        with wp.ScopedDevice(device):
            yield None
        return
    theirs = torch.cuda.current_stream(wp.device_to_torch(device))
    key = (device.alias, theirs.cuda_stream)
    if key not in _streams:
        _streams[key] = wp.stream_from_torch(theirs)
    with wp.ScopedStream(_streams[key], sync_enter=False):  # nothing of ours is left on the stream it replaces
        yield _streams[key]


class Recorder:
    """Runs sequences of launches; on CUDA as graphs, which cost the host one call instead of hundreds.

    The first run of a sequence is made launch by launch, because it loads kernels; the second is recorded. A graph
    holds addresses, so `forget` when an array has been replaced.

    Everything runs on torch's stream (`on_torch_stream`). Only recording takes place on a stream of its own, where
    nothing runs: CUDA cannot record its default stream.

    Args:
        device: Warp's.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self._seen: set[Any] = set()
        self._graphs: dict[Any, Any] = {}
        self._own: Any = None
        self.part_of_another = False  # launches belong to a graph that somebody else records; see `inlined`

    @contextmanager
    def inlined(self) -> Iterator[None]:
        """Within, launches become part of the graph that the caller records on torch's stream. Sequences must have run
        before: that loads their kernels."""
        self.part_of_another = True
        try:
            yield
        finally:
            self.part_of_another = False

    def run(self, key: Any, launch: Callable[[], None]) -> None:
        """Run the launches of `launch`, which are the same whenever `key` is."""
        with on_torch_stream(self._device) as stream:
            if self.part_of_another and self._device.is_cuda:
                with wp.ScopedCapture(stream=stream, external=True):
                    launch()
                return
            if not self._device.is_cuda or key not in self._seen:
                launch()
                self._seen.add(key)
                return
            if key not in self._graphs:
                self._graphs[key] = self._record(launch)
            wp.capture_launch(self._graphs[key], stream=stream)

    def _record(self, launch: Callable[[], None]) -> Any:
        if self._own is None:
            self._own = wp.Stream(self._device)
        with (
            wp.ScopedStream(self._own, sync_enter=False),
            wp.ScopedCapture(stream=self._own) as capture,
        ):
            launch()
        return capture.graph

    def forget(self) -> None:
        """Drop all graphs."""
        self._seen.clear()
        self._graphs.clear()
