"""A whole control step as one CUDA graph: physics, task, randomization and resets, replayed by one call of the host.

A graph repeats what happened on the device when it was recorded, with the same memory. Two things follow. What a step
leaves in new tensors for the next one to read is copied, as the last part of the graph, to where the recorded step read
it. And what the host does in a step happens once: a step that changes anything else on the host is refused, with the
name of what it changes, except what the sampler hears of episodes, which is told after each replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from envs.environment import Environment, StepResult
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual

_OUTSIDE = ("torch", "warp", "mujoco", "mujoco_warp", "numpy", "builtins", "functools", "types", "logging")
_HOST = frozenset({"_version"})  # of qpos, by which a graph's own writes need not be noticed
Record = Callable[[Environment], AbstractContextManager[Callable[[], None]]]


class GraphError(RuntimeError):
    """A control step that cannot be one graph; one line that says why."""


@dataclass
class _Seen:
    """What an attribute or an element held before a step."""

    value: Any
    parts: dict[Any, _Seen] = field(default_factory=dict)


def _parts(value: Any) -> dict[Any, Any]:
    """Attributes or elements in which a step may keep something."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, (type, Tensor)) or callable(value) or type(value).__module__.split(".")[0] in _OUTSIDE:
        return {}
    return getattr(value, "__dict__", {})


def _see(value: Any, known: dict[int, _Seen]) -> _Seen:
    if id(value) in known:
        return known[id(value)]
    seen = _Seen(value)
    if parts := _parts(value):
        known[id(value)] = seen  # before its parts, which may lead back to it
        seen.parts = {key: _see(part, known) for key, part in parts.items()}
    return seen


def _put(owner: Any, key: Any, value: Any) -> None:
    if isinstance(owner, (dict, list)):
        owner[key] = value
    else:
        object.__setattr__(owner, key, value)  # records are frozen


class Carried:
    """Finds what a step leaves in new tensors, and brings it back to where the step read it.

    Args:
        root: from where everything can be reached that a step reads or writes.
    """

    def __init__(self, root: Any) -> None:
        self._root, self._before = root, _see(root, {})
        self._pairs: dict[int, tuple[Tensor, Tensor, str]] = {}

    def back(self) -> int:
        """Copy; returns how many tensors. Raises GraphError where something else has changed."""
        self._pairs = {}
        self._compare(self._before, self._root, "environment", set())
        read = {old.untyped_storage().data_ptr() for old, _, _ in self._pairs.values()}
        # Two that change places: neither may be written before both were read.
        staged = [
            new.clone() if new.untyped_storage().data_ptr() in read else new for _, new, _ in self._pairs.values()
        ]
        for (old, _, _), new in zip(self._pairs.values(), staged, strict=True):
            old.copy_(new)
        return len(staged)

    def _compare(self, seen: _Seen, value: Any, path: str, done: set[int]) -> None:
        """Note what differs between what was seen and a value that stands there now."""
        if isinstance(seen.value, Tensor) and isinstance(value, Tensor):
            self._pair(seen.value, value, path)
            return
        if type(seen.value) is not type(value):
            raise GraphError(f"{path}: {_name(seen.value)} became {_name(value)} in a control step")
        if not seen.parts and not _parts(value):
            if seen.value is not value and not _equal(seen.value, value) and path.rpartition(".")[2] not in _HOST:
                raise GraphError(f"{path}: {seen.value!r} became {value!r} in a control step")
            return
        if id(seen.value) in done:
            return
        done.add(id(seen.value))
        present = dict(_parts(value))
        if present.keys() != seen.parts.keys():
            changed = sorted(map(str, present.keys() ^ seen.parts.keys()))
            raise GraphError(f"{path}: {', '.join(changed[:3])} came or went in a control step")
        for key, part in seen.parts.items():
            self._compare(part, present[key], f"{path}.{key}", done)
            if (
                seen.value is value
                and present[key] is not part.value
                and (part.parts or isinstance(part.value, Tensor))
            ):
                _put(value, key, part.value)

    def _pair(self, old: Tensor, new: Tensor, path: str) -> None:
        if old is new:
            return
        if old.shape != new.shape or old.dtype != new.dtype:
            raise GraphError(f"{path}: {_name(old)} became {_name(new)} in a control step")
        other = self._pairs.get(id(old), (old, new, path))
        if other[1] is not new:
            raise GraphError(f"{path} and {other[2]} were one tensor and became two in a control step")
        self._pairs[id(old)] = (old, new, path)


def _name(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}" if value is not None else "nothing"


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):
        return False


@contextmanager
def cuda_graph(environment: Environment) -> Iterator[Callable[[], None]]:
    """Record what happens within as a CUDA graph; yields what replays it."""
    graph, engine, device = torch.cuda.CUDAGraph(), environment.engine, environment.device
    side, present = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    side.wait_stream(present)
    with torch.cuda.stream(side):  # what libraries and Warp make once for a stream cannot be made while it is recorded
        environment.step(torch.zeros(environment.num_envs, environment.task.action_size, device=device))
    present.wait_stream(side)
    # thread_local: what other threads do meanwhile does not spoil it
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"), engine.recorded():  # type: ignore[attr-defined]
        yield graph.replay


class StepGraph:
    """Stands for an environment's `step`; what it returns is overwritten by the next one.

    Args:
        environment: on the GPU engine, after its first reset. Its own `step` must not be called any more.
        record: how a step is recorded.
        warm: control steps to make before, so that everything is there that is made once.

    Attributes:
        carried: tensors that are copied at the end of each step.

    Raises:
        GraphError: the step does more on the host than a graph can hold.
    """

    def __init__(self, environment: Environment, record: Record = cuda_graph, warm: int = 3) -> None:
        layer = environment.layer
        if isinstance(layer, DomainRandomizer) and layer.explore and not isinstance(layer.sampler, Manual):
            raise GraphError("sampler: its ranges move, and a graph would go on with those that it was recorded with")
        self._environment = environment
        self._action = torch.zeros(environment.num_envs, environment.task.action_size, device=environment.device)
        for _ in range(warm):
            environment.step(self._action)
        self._told: tuple[Tensor, ...] = ()
        with record(environment) as replay, self._listening():
            before = Carried(environment)
            self._result = environment.step(self._action)
            self.carried = before.back()
        self._replay = replay

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Keep what the sampler would be told, as part of the graph."""
        layer = self._environment.layer
        if not isinstance(layer, DomainRandomizer):
            yield
            return

        def tell(*told: Tensor) -> None:
            self._told = tuple(value.clone() for value in told)

        layer._reporter.report = tell  # type: ignore[method-assign]
        try:
            yield
        finally:
            del layer._reporter.report

    def step(self, action: Tensor) -> StepResult:
        """One control step with actions [N, A]."""
        environment: Any = self._environment
        environment.engine.refresh_written()
        self._action.copy_(action)
        self._replay()
        if self._told:
            environment.layer._reporter.report(*(value.clone() for value in self._told))
        if hasattr(environment.engine, "check_room"):
            environment.engine.check_room()
        return self._result
