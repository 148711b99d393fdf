"""Trains the network of an actuator, and says how far it is off on time that it has not seen."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from envs.common.checkpoint_files import write_tensors
from envs.parts.actuator_network import VERSION
from simreal.common.errors import UserError
from simreal.identify.actuator.models import dc_motor, ideal_pd
from simreal.identify.actuator.recurrent import Memory, Runs, long_enough
from simreal.identify.actuator.samples import ActuatorLog
from simreal.learners.adam import Adam

HELD_BACK, _STOPPING = 0.2, 0.1  # of each log's time, at its end: to judge; and before that: when to stop
_BATCH, _LOOK, _RATE = 1024, 100, 8e-3
_MARGIN = 1.1  # on the largest torque seen


@dataclass(frozen=True)
class Shape:
    """What network is trained.

    Attributes:
        period_s: between samples of its history.
        samples: of the history, the present one included.
        hidden: units of each of the two hidden layers.
        each: a network for each joint; else one for all.
        steps: of gradients.
        seed: of its start and of its batches.
        kind: "mlp" sees a history; "gru" has a memory of `hidden` numbers, and sees one sample each period.
    """

    period_s: float = 0.005
    samples: int = 4
    hidden: int = 32
    each: bool = False
    steps: int = 4000
    seed: int = 0
    kind: Literal["mlp", "gru"] = "mlp"


@dataclass(frozen=True)
class Errors:
    """How far torques are off on held-back time, N m (RMS), by joint; `spread` is the torque's own deviation."""

    joints: tuple[str, ...]
    network: list[float]
    dc_motor: list[float]
    ideal_pd: list[float]
    spread: list[float]
    held_back_s: float
    fitted: dict[str, dict[str, dict[str, float]]]

    def overall(self, kind: str) -> float:
        """RMS over all joints, N m."""
        return float(np.sqrt(np.mean(np.square(getattr(self, kind)))))


@dataclass(frozen=True)
class Data:
    """Samples of one part of the time: inputs [n, B, 2 H], torques [n, B], present error and speed [n, B].

    `lengths` says how many samples each log has, and `lag` how many of them a period is.
    """

    inputs: Tensor
    torque: Tensor
    lengths: tuple[int, ...]
    lag: int

    @property
    def present(self) -> tuple[Tensor, Tensor]:
        """Position error and speed now [n, B]."""
        return self.inputs[:, :, 0], self.inputs[:, :, self.inputs.shape[2] // 2]

    def runs(self) -> tuple[list[Runs], list[Tensor]]:
        """Samples that follow each other, a period apart, and their places in B."""
        values, places, begin = torch.stack(self.present, dim=2), [], 0
        for length in self.lengths:
            places += [torch.arange(begin + k, begin + length, self.lag) for k in range(min(self.lag, length))]
            begin += length
        return [Runs(values[:, rows], self.torque[:, rows]) for rows in places], places


def split(logs: Sequence[ActuatorLog], shape: Shape) -> tuple[Data, Data, Data]:
    """Samples to learn from, to stop by, and to judge by: consecutive parts of every log."""
    parts: tuple[list[Data], list[Data], list[Data]] = ([], [], [])
    for log in logs:
        lag = max(1, round(shape.period_s / log.step_s))
        first, total = lag * (shape.samples - 1), len(log.torque)
        ends = [first, round((1 - HELD_BACK - _STOPPING) * total), round((1 - HELD_BACK) * total), total]
        error = torch.as_tensor(log.command - log.position)
        speed, torque = torch.as_tensor(log.velocity), torch.as_tensor(log.torque)
        for part, begin, end in zip(parts, ends, ends[1:], strict=False):
            begin = begin + (first if part is not parts[0] else 0)  # histories do not reach into the part before
            rows = [slice(begin - lag * k, end - lag * k) for k in range(shape.samples)]
            inputs = torch.stack([*(error[r] for r in rows), *(speed[r] for r in rows)], dim=2)
            part.append(Data(inputs.transpose(0, 1), torque[begin:end].T, (end - begin,), lag))
    joined = [_joined(part) for part in parts]
    return joined[0], joined[1], joined[2]


def _joined(parts: list[Data]) -> Data:
    inputs, torque = torch.cat([d.inputs for d in parts], 1), torch.cat([d.torque for d in parts], 1)
    return Data(inputs, torque, tuple(length for d in parts for length in d.lengths), parts[0].lag)


class _Networks(nn.Module):
    """G networks side by side; see `envs.parts.actuator_network.ActuatorNetwork.torque`."""

    kind = "mlp"

    def __init__(self, groups: int, data: Data, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        sizes = (data.inputs.shape[2], shape.hidden, shape.hidden, 1)
        made = [torch.randn(groups, a, b, generator=generator) / a**0.5 for a, b in pairwise(sizes)]
        self.weights = nn.ParameterList(made)
        self.biases = nn.ParameterList([torch.zeros(groups, 1, b) for b in sizes[1:]])
        by_group = data.inputs if groups > 1 else data.inputs.flatten(0, 1)[None]
        torque = data.torque if groups > 1 else data.torque.flatten()[None]
        self.mean, self.scale = by_group.mean(1, True).float(), by_group.std(1, keepdim=True).clamp(min=1e-6).float()
        self.torque_scale = torque.std(1, keepdim=True)[..., None].float()
        self.limit = (_MARGIN * torque.abs().amax(1, True))[..., None].float()

    def forward(self, inputs: Tensor) -> Tensor:
        """Torques [G, B] per torque scale, for inputs [G, B, 2 H]."""
        x = (inputs.float() - self.mean) / self.scale
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, functional.softsign(x) if i else x, weight)
        return x[..., 0]

    def torque(self, data: Data) -> Tensor:
        """N m [n, B] as the joints of `data` have it."""
        grouped = data.inputs if len(self.mean) > 1 else data.inputs.flatten(0, 1)[None]
        with torch.no_grad():
            out = self(grouped)[..., None] * self.torque_scale
        return torch.clamp(out, -self.limit, self.limit)[..., 0].view(data.torque.shape)

    def losses(self, learn: Data, generator: torch.Generator) -> Iterator[Tensor]:
        """How far torques of random samples are off, squared, without end."""
        grouped = len(self.mean) > 1
        inputs = learn.inputs if grouped else learn.inputs.flatten(0, 1)[None]
        target = (learn.torque if grouped else learn.torque.flatten()[None]).float() / self.torque_scale[..., 0]
        while True:
            rows = torch.randint(target.shape[1], (_BATCH,), generator=generator)
            yield functional.mse_loss(self(inputs[:, rows]), target[:, rows])


class _Remembering(Memory):
    """The same with a memory in place of the history."""

    def torque(self, data: Data) -> Tensor:
        """N m [n, B] as the joints of `data` have it."""
        found = torch.empty_like(data.torque, dtype=torch.float32)
        for run, rows in zip(*data.runs(), strict=True):
            found[:, rows] = self.exerted(run)
        return found

    def losses(self, learn: Data, generator: torch.Generator) -> Iterator[Tensor]:
        """How far torques of random sequences are off, squared, without end."""
        return (self.loss(values, torque) for values, torque in self.batches(learn.runs()[0], generator))


def _made(groups: int, learn: Data, shape: Shape, generator: torch.Generator) -> _Networks | _Remembering:
    if shape.kind == "mlp":
        return _Networks(groups, learn, shape, generator)
    runs = learn.runs()[0]
    if not long_enough(runs):
        raise UserError("logs: too short for a memory; expected a shorter --period or more time")
    return _Remembering(groups, runs, shape.hidden, generator)


def train(
    logs: Sequence[ActuatorLog], shape: Shape, say: Callable[[str], None]
) -> tuple[_Networks | _Remembering, Errors]:
    """A network for the joints of logs, and its errors.

    Raises:
        UserError: the logs are too short for its history.
    """
    learn, stop, judge = split(logs, shape)
    if judge.torque.shape[1] < 20:
        raise UserError("logs: too short for this history; expected a shorter --period, fewer --samples or more time")
    generator = torch.Generator().manual_seed(shape.seed)
    networks = _made(len(learn.torque) if shape.each else 1, learn, shape, generator)
    losses = networks.losses(learn, generator)
    optimizer = Adam(networks.parameters(), lr=_RATE)
    best, kept = float("inf"), copy.deepcopy(networks.state_dict())
    for step in range(shape.steps):
        optimizer.lr = _RATE * 0.5 * (1.0 + np.cos(np.pi * step / shape.steps))
        optimizer.zero_grad()
        next(losses).backward()
        optimizer.step()
        if step % _LOOK == _LOOK - 1 or step == shape.steps - 1:
            loss = float((networks.torque(stop) - stop.torque).square().mean())
            if loss < best:
                best, kept = loss, copy.deepcopy(networks.state_dict())
            if step % (10 * _LOOK) == 10 * _LOOK - 1:
                say(f"step {step + 1} of {shape.steps}: {loss**0.5:.4g} N m (RMS) on the time that says when to stop")
    networks.load_state_dict(kept)
    return networks, _errors(networks, logs[0].joints, learn, judge, sum(log.seconds for log in logs))


def _errors(
    networks: _Networks | _Remembering, joints: tuple[str, ...], learn: Data, judge: Data, seconds: float
) -> Errors:
    """Of the network and of the two descriptions without history, fitted to the same time."""
    rms = lambda x: float(x.square().mean().sqrt())  # noqa: E731
    torque = networks.torque(judge)
    found: dict[str, list[float]] = {"ideal_pd": [], "dc_motor": []}
    fitted: dict[str, dict[str, dict[str, float]]] = {"ideal_pd": {}, "dc_motor": {}}
    for j, joint in enumerate(joints):
        (error, speed), truth = judge.present, judge.torque[j]
        for name, fit in (("ideal_pd", ideal_pd), ("dc_motor", dc_motor)):
            model, fitted[name][joint] = fit(learn.present[0][j], learn.present[1][j], learn.torque[j])
            found[name].append(rms(model(error[j], speed[j]) - truth))
    off = [rms(torque[j] - judge.torque[j]) for j in range(len(joints))]
    spread = [float(judge.torque[j].std()) for j in range(len(joints))]
    return Errors(joints, off, found["dc_motor"], found["ideal_pd"], spread, HELD_BACK * seconds, fitted)


def packed(networks: _Networks | _Remembering, joints: Sequence[str], shape: Shape, about: dict[str, Any]) -> bytes:
    """The file that `envs.parts.actuator_network.load_actuator` reads."""
    file = io.BytesIO()
    content = {
        "kind": "simreal actuator", "version": VERSION, "joints": list(joints), "period_s": shape.period_s,
        "history": list(range(shape.samples)), "network": shape.kind, "weights": [w.detach() for w in networks.weights],
        "biases": [b.detach() for b in networks.biases], "mean": networks.mean, "scale": networks.scale,
        "torque_scale": networks.torque_scale, "limit": networks.limit, "about": about,
    }  # fmt: skip
    write_tensors(file, content)
    return file.getvalue()
