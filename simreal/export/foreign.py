"""Policies of other frameworks: an ONNX file, and a contract that says how a task feeds it. See docs/engines.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, FiniteFloat, ValidationError, field_validator
from torch import Tensor

from envs.common.messages import listed, near_file, nearest
from envs.common.step_records import Observed
from envs.environment import Environment
from envs.registry import make_task
from envs.task import ActionComponent, Component, Task
from randomization.config import first_problem
from randomization.samplers.base import Sampler
from simreal.common.errors import UserError
from simreal.common.trusted_code import check_code, use_current_folder
from simreal.deploy.files import BundleError, blaming, load_graph, read_file
from simreal.training.run_config import Strict, read_yaml
from simreal.training.run_directory import LoadedPolicy

LAST_OUTPUT = "last_output"
Numbers = FiniteFloat | tuple[FiniteFloat, ...]


class Piece(Strict):
    """Some values of what the file takes: scale * (what the task shows - minus)."""

    of: str = Field(description=f"a component of the task, of either group, or {LAST_OUTPUT}: zeros at first")
    order: tuple[str, ...] | None = Field(None, description="its elements in the file's order; default: the task's")
    minus: Numbers = 0.0
    scale: Numbers = 1.0
    limits: tuple[FiniteFloat, FiniteFloat] | None = None

    @field_validator("limits")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"expected [lower, upper], got {list(value)}")
        return value


class Output(Strict):
    """What the file's values mean: targets offset + scale * value, in the units of the task's action."""

    order: tuple[str, ...] | None = Field(None, description="elements of the action in the file's order")
    scale: Numbers = 1.0
    offset: Numbers = 0.0


class ForeignContract(Strict):
    """How an ONNX file of another framework plays a task."""

    task: str
    task_options: dict[str, Any] = Field(default_factory=dict)
    observation: tuple[Piece, ...] = Field(min_length=1, description="what the file takes, in its order")
    action: Output = Output()  # pyright: ignore[reportCallIssue]


def load_foreign(path: Path, contract: Path | None, task: str | None = None) -> LoadedPolicy:
    """The policy of an ONNX file with one input [B, n] and an output [B, A] (its first).

    Args:
        path: of the file.
        contract: a YAML file, see `ForeignContract`.
        task: as in `load_policy`.

    Raises:
        UserError: naming what is wrong with the file or the contract, or what of them does not fit.
    """
    if contract is None:
        raise UserError(f"{path}: is an ONNX file, which does not say what it takes; expected --contract FILE.yaml")
    if not contract.is_file():
        raise UserError(f"{contract}: no such file{near_file(contract)}; expected the contract of {path}")
    try:
        stated = ForeignContract.model_validate(read_yaml(contract))
    except ValidationError as error:
        raise UserError(f"{contract}: {first_problem(error, ForeignContract)}") from None
    if task is not None:
        use_current_folder()
    check_code(stated.task, str(contract), task, contract.parent)
    of_task = make_task(stated.task, **stated.task_options)
    try:
        with blaming(path):
            session: Any = load_graph(read_file(path))
    except BundleError as error:
        raise UserError(str(error)) from None
    feed, drive = _Feed.of(stated, of_task, str(contract)), _Drive.of(stated.action, of_task, f"{contract}: action")
    _check_sizes(session, path, contract, feed.size, of_task.action_size)
    _try(session, path, feed.size, of_task.action_size)
    player = _Player(str(path), session, feed, drive)
    return _Foreign(
        name=path.stem, task_id=stated.task, act=player.act, reset=player.reset, parameters=[], entropy=None,
        config=None, task_options=stated.task_options, player=player,
    )  # fmt: skip


def _check_sizes(session: Any, path: Path, contract: Path, takes: int, gives: int) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        names = ", ".join(repr(node.name) for node in inputs)
        raise UserError(f"{path}: has {len(inputs)} inputs ({names}); expected one, as of a policy without a state")
    for kind, node, count, what in (("observation", inputs[0], takes, "takes"), ("action", outputs[0], gives, "gives")):
        shape = list(node.shape)
        if len(shape) != 2 or node.type != "tensor(float)":
            raise UserError(
                f"{path}: {node.name!r} is {node.type} of shape {shape}; expected tensor(float) of shape [B, n]"
            )
        if isinstance(shape[1], int) and shape[1] != count:
            raise UserError(f"{contract}: {kind} has {count} values, but {path} {what} {shape[1]} ({node.name!r})")


def _try(session: Any, path: Path, takes: int, gives: int) -> None:
    """Play the file once with zeros: sizes that it does not state, or not truly, show only then. Raises UserError."""
    node, output = session.get_inputs()[0], session.get_outputs()[0].name
    rows = node.shape[0] if isinstance(node.shape[0], int) else 2
    if rows not in (1, 2):
        raise UserError(f"{path}: {node.name!r} takes {rows} rows at once; expected one, or any number")
    try:
        shape = session.run([output], {node.name: np.zeros((rows, takes), np.float32)})[0].shape
    except Exception as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path}: cannot play {rows} observations of {takes} values: {said}") from None
    if shape != (rows, gives):
        raise UserError(f"{path}: made {list(shape)} of {rows} observations; expected actions [{rows}, {gives}]")


def _numbers(given: float | Sequence[float], size: int, where: str) -> Tensor:
    values = torch.tensor(given, dtype=torch.float64)
    if values.dim() == 1 and len(values) != size:
        raise UserError(f"{where}: expected one number or {size}, got {len(values)}")
    return values.expand(size)


def _order(given: Sequence[str] | None, of: Component | ActionComponent, where: str) -> list[int]:
    """Places of a component's elements in the order that is given."""
    names = of.elements or (of.joints if len(of.joints) == of.size else tuple(str(i) for i in range(of.size)))
    if given is None:
        return list(range(of.size))
    for name in given:
        if name not in names:
            raise UserError(f"{where}: no element {name!r}{nearest(name, names)}; {of.name} has {listed(names)}")
        if given.count(name) > 1:
            raise UserError(f"{where}: {name!r} stands {given.count(name)} times; expected each element once")
    return [names.index(name) for name in given]


@dataclass(frozen=True)
class _Part:
    """Where a piece comes from: places in a group of what is observed, or in the last output; what is made of it."""

    group: str
    places: Tensor
    minus: Tensor
    scale: Tensor
    limits: tuple[float, float] | None


@dataclass(frozen=True)
class _Feed:
    """Makes what the file takes of what environments show."""

    parts: tuple[_Part, ...]
    size: int

    @classmethod
    def of(cls, contract: ForeignContract, task: Task, where: str) -> _Feed:
        shown = {c.name: (c, task.slices(c.group)[c.name].start) for c in task.observation}
        parts = []
        for number, piece in enumerate(contract.observation):
            here = f"{where}: observation.{number}"
            if piece.of == LAST_OUTPUT:
                group, places = LAST_OUTPUT, list(range(task.action_size))
                if piece.order is not None:
                    raise UserError(f"{here}.order: {LAST_OUTPUT} is in the file's own order; leave it out")
            elif piece.of in shown:
                component, start = shown[piece.of]
                group = component.group
                places = [start + i for i in _order(piece.order, component, f"{here}.order")]
            else:
                known = (*shown, LAST_OUTPUT)
                raise UserError(
                    f"{here}.of: {task.id} does not show {piece.of!r}{nearest(piece.of, known)}; "
                    f"there are: {', '.join(known)}"
                )
            size = len(places)
            minus, scale = _numbers(piece.minus, size, f"{here}.minus"), _numbers(piece.scale, size, f"{here}.scale")
            parts.append(_Part(group, torch.tensor(places), minus, scale, piece.limits))
        return cls(tuple(parts), sum(len(part.places) for part in parts))

    def __call__(self, observed: Observed, last: Tensor) -> Tensor:
        """[N, size], of what is shown and of the last outputs [N, A]."""
        groups = {"policy": observed.policy, "privileged": observed.privileged, LAST_OUTPUT: last}
        values = []
        for part in self.parts:
            group = groups[part.group]
            assert group is not None
            value = part.scale * (group.cpu().double()[:, part.places] - part.minus)
            values.append(value if part.limits is None else value.clamp(*part.limits))
        return torch.cat(values, dim=1)


@dataclass(frozen=True)
class _Drive:
    """Makes a task's action [N, A] of what the file gives."""

    places: Tensor  # in the file's output, of each value of the action
    scale: Tensor
    offset: Tensor

    @classmethod
    def of(cls, output: Output, task: Task, where: str) -> _Drive:
        size = task.action_size
        if output.order is not None and len(task.action) != 1:
            raise UserError(f"{where}.order: {task.id} has {len(task.action)} components of its action; leave it out")
        order = (
            _order(output.order, task.action[0], f"{where}.order") if output.order is not None else list(range(size))
        )
        if sorted(order) != list(range(size)):
            raise UserError(f"{where}.order: expected each of the {size} elements once, got {len(order)}")
        own = [torch.tensor([x for c in task.action for x in getattr(c, key)], dtype=torch.float64)
               for key in ("scale", "offset")]  # fmt: skip
        places = torch.tensor([order.index(i) for i in range(size)])
        scale = _numbers(output.scale, size, f"{where}.scale")[places]
        offset = _numbers(output.offset, size, f"{where}.offset")[places]
        return cls(places, scale / own[0], (offset - own[1]) / own[0])

    def __call__(self, output: Tensor) -> Tensor:
        return self.offset + self.scale * output[:, self.places]


@dataclass
class _Player:
    """An ONNX file that plays: it remembers what it put out last."""

    name: str
    session: Any
    feed: _Feed
    drive: _Drive
    last: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))

    def act(self, observation: Tensor) -> Tensor:
        node = self.session.get_inputs()[0]
        rows = observation.numpy().astype(np.float32)
        parts = np.split(rows, len(rows)) if node.shape[0] == 1 else [rows]
        name = self.session.get_outputs()[0].name
        output = np.concatenate([self.session.run([name], {node.name: part})[0] for part in parts])
        if np.isnan(output).any():
            raise UserError(f"{self.name}: {name!r} is nan for some observation; expected numbers")
        self.last = torch.from_numpy(output).double()
        return self.drive(self.last).clamp(-1.0, 1.0).float()

    def reset(self, mask: Tensor) -> None:
        """Forget the last outputs of environments whose episodes begin."""
        if len(self.last) != len(mask):
            self.last = torch.zeros(len(mask), len(self.drive.places), dtype=torch.float64)
        self.last[mask] = 0.0


@dataclass(frozen=True)
class _Foreign(LoadedPolicy):
    """A policy that reads what its contract says."""

    player: _Player | None = None

    def trained_sampler(self) -> Sampler:
        raise UserError(f"{self.name} is an ONNX file, which does not say in which worlds it was trained")

    def reader(self, environment: Environment) -> Callable[[Observed], Tensor]:
        assert self.player is not None
        player = self.player
        return lambda observed: player.feed(observed, player.last)
