"""What an epoch of PPO's update takes as it is, through `torch.compile`, and as a CUDA graph of one minibatch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.gpu import Clock
from envs.common.fast_matmul import fast_matmul
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.rollout import Minibatch, RolloutBatch


class MinibatchGraph:
    """One minibatch of a learner's update as a CUDA graph: loss, gradient, its norm, the step of Adam.

    The optimizer is one of its own, with the learner's parameters, whose step size and counts lie on the device.

    Args:
        learner: with a fixed step size and no bound on the KL, which the host would have to look at.
        part: a minibatch; all have its shape.
        record: how a graph is recorded; it yields what replays it.
    """

    def __init__(self, learner: PPO, part: RolloutBatch, record: Callable[[], Any] | None = None) -> None:
        device = learner.spec.device
        self._learner = learner
        self._part = part.map(Tensor.clone)
        rate = torch.tensor(learner.lr, device=device)
        cuda = device.type == "cuda"
        self._optimizer = torch.optim.Adam(learner._params, lr=rate, eps=1e-5, fused=True, capturable=cuda)
        parameters = [p.detach().clone() for p in learner._params]
        self._on_side_stream(3, device)  # what is made once; then as it was
        with torch.no_grad():
            for p, before in zip(learner._params, parameters, strict=True):
                p.copy_(before)
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()
        with (record or self._cuda)() as replay:
            self._minibatch()
        self._replay = replay

    def _on_side_stream(self, count: int, device: torch.device) -> None:
        if device.type != "cuda":
            for _ in range(count):
                self._minibatch()
            return
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(count):
                self._minibatch()
        torch.cuda.current_stream(device).wait_stream(side)

    @staticmethod
    @contextlib.contextmanager
    def _cuda() -> Iterator[Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            yield graph.replay

    def _minibatch(self) -> None:
        learner = self._learner
        loss, _ = learner._loss(_alone(learner, self._part))
        learner._gradient.zero_()
        loss.backward()
        norm = learner._gradient.norm()
        learner._gradient.mul_((learner.config.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self._optimizer.step()

    def step(self, part: RolloutBatch) -> None:
        """One minibatch."""
        for own, value in zip(self._part.tensors(), part.tensors(), strict=True):
            own.copy_(value)
        self._replay()


def _alone(learner: PPO, part: RolloutBatch) -> Minibatch:
    return Minibatch.alone(part, learner.config.normalize_advantage == "minibatch")


def bench_update(learner: PPO, clock: Clock, repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds of an epoch over a full rollout, in three ways; each result as soon as it is there.

    `difference` is the largest of any parameter after one epoch, from where the plain epoch led from the same start.
    """
    batch = learner._prepare()[0].batch
    device, count = learner.spec.device, learner.config.minibatches
    start = [p.detach().clone() for p in learner._params]
    order = torch.randperm(batch.weight.shape[1], device=device)
    parts = list(batch.shuffled(order).minibatches(count))

    def restart() -> None:
        with torch.no_grad():
            for p, value in zip(learner._params, start, strict=True):
                p.copy_(value)
        for moments in learner.optimizer.tensors():
            moments.zero_()

    def plain() -> None:
        for part in parts:
            loss, _ = learner._loss(_alone(learner, part))
            learner._gradient.zero_()
            loss.backward()
            norm = learner._gradient.norm()
            learner._gradient.mul_((learner.config.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
            learner.optimizer.step()

    def measured(name: str, epoch: Callable[[], None], expected: list[Tensor] | None) -> dict[str, Any]:
        first = clock.seconds(epoch)
        after = [p.detach().clone() for p in learner._params]
        pairs = zip(after, expected or after, strict=True)
        seconds = sorted(clock.seconds(epoch) for _ in range(repeats))[repeats // 2]
        difference = max(float((a - b).abs().max()) for a, b in pairs)
        row = {"update": name, "ms_per_epoch": 1e3 * seconds, "first_s": first, "difference": difference}
        return row | {"parameters": after}

    with fast_matmul():
        row = measured("plain", plain, None)
        expected = row.pop("parameters")
        yield row
        restart()
        eager, backend = learner._loss, "inductor" if device.type == "cuda" else "eager"
        try:
            learner._loss = torch.compile(eager, backend=backend)  # type: ignore[method-assign]
            yield _without(measured(f"torch.compile, {backend}", plain, expected))
        finally:
            learner._loss = eager  # type: ignore[method-assign]
        if device.type != "cuda":
            return
        restart()
        graph = MinibatchGraph(learner, parts[0])

        def replayed() -> None:
            for part in parts:
                graph.step(part)

        yield _without(measured("CUDA graph of a minibatch", replayed, expected))


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "parameters"}
