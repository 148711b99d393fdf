"""A student learns from what a robot measures to do what a teacher does who knows more (DAgger, Ross et al. 2011).

In rollout i a share beta^i of the environments is steered by the teacher, the others by the student; in every state the
teacher says what it would do, and the student learns it from the last rollouts (arXiv 1011.0686, algorithm 3.1):

    L = mean imitation loss(pi_student(.|o), a_teacher) + latent_coef mean |z(o) - lambda|^2

The second term, if asked for, makes the layer before the last tell the parameters lambda of the world too, as the
adaptation module of RMA does (Kumar et al. 2021, arXiv 2107.04034). How much of each it knows is logged: 1 - MSE /
variance over a new rollout, 1 for all, 0 for what the mean of all worlds would do as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from envs.common.deterministic_ops import mean_all
from envs.common.fast_matmul import fast_matmul
from envs.environment import Observed, StepResult
from simreal.learners.adam import Adam
from simreal.learners.base import Learner, LearnerSpec, mean_metrics
from simreal.learners.distill.dataset import Dataset, Lesson
from simreal.learners.distill.gate import Gate
from simreal.learners.distill.options import DistillConfig
from simreal.learners.distill.teacher import Teacher
from simreal.learners.history import HistoryLayout
from simreal.learners.networks import mlp
from simreal.learners.on_policy.actor_critic import make_policy
from simreal.learners.on_policy.losses import mean, shares
from simreal.learners.on_policy.rollout import sound

_VARIES = 1e-8  # smallest variance of a parameter, brought to [-1, 1], of which one can say how much is known


class Distill(Learner):
    """The learner; see `Learner`. Without teachers (`spec.policies` is empty) it holds the policy only."""

    config: DistillConfig
    NETWORKS = ("policy", "latent")

    def __init__(self, spec: LearnerSpec, config: DistillConfig, seed: int, total_steps: int | None = None) -> None:
        super().__init__(spec, config, seed, total_steps)
        device, n = spec.device, spec.num_envs
        self.layout = HistoryLayout.of(config, spec.observation_size, spec.goal_size, spec.action_size)
        self.network, self.policy = make_policy(self.layout, spec.observation_size, config, device)
        self.estimated = spec.parameters if config.latent == "regression" else ()
        if config.latent == "regression" and not spec.parameters:
            raise ValueError("latent: nothing is randomized that could be estimated, set it to none")
        trunk = self.network.actor.trunk
        self.latent = mlp([trunk.last.in_features, max(len(self.estimated), 1)]).to(device)
        self._learnt = [*trunk.parameters(), *(self.latent.parameters() if self.estimated else ())]
        self.optimizer = Adam(self._learnt, lr=config.lr, eps=1e-5)
        sizes = (spec.observation_size, len(self.estimated), trunk.state_size)
        self.dataset = Dataset(config, self.layout, n, sizes, device)
        self.teachers = self._make_teachers()
        self.gate = Gate(len(self.teachers), spec, config) if len(self.teachers) > 1 else None
        if self.gate is not None:  # what an update changes and may have to be taken back
            self._gate_networks, self._gate_optimizer = self.gate.networks, self.gate.optimizer
        size = spec.observation_size + (spec.privileged_size if self.gate else 0)
        dtype = torch.float64 if device.type == "cpu" else torch.float32  # see RolloutBuffer.raw
        self.raw = torch.zeros(config.horizon, n, size, dtype=dtype, device=device)
        self.reward = torch.zeros(config.horizon, n, device=device)
        self.ends = torch.zeros(
            3, config.horizon, n, dtype=torch.bool, device=device
        )  # terminated, truncated, diverged
        self.age = torch.zeros(n, dtype=torch.int64, device=device)
        self.state = torch.zeros(n, trunk.state_size, device=device)
        self._next_state = self.state
        self.steered = torch.ones(n, dtype=torch.bool, device=device)  # by the teacher, in this rollout
        self.time, self.lr = 0, config.lr

    def _make_teachers(self) -> list[Teacher]:
        teachers = []
        for key, policies in self.spec.policies.items():
            for given in policies:
                try:
                    teachers.append(Teacher(given, self.spec))
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        return teachers

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A]: the teacher's where it steers, else the student's."""
        if self.time == 0 and self.updates:
            self.dataset.turn()
        data, row, t = self.dataset, self.dataset.row, self.time
        self.raw[t] = self._raw(observed)
        data.observation[row], data.age[row] = self.raw[t, :, : self.spec.observation_size], self.age
        if self.estimated:
            assert observed.privileged is not None
            data.world[row] = observed.privileged[:, -len(self.estimated) :]
        answers = torch.stack([teacher.action(observed) for teacher in self.teachers])
        if self.gate is None:
            data.label[row], guided = answers[0], answers[0]
        else:
            data.label[row], guided = self.gate.weigh(self.raw[t], answers)
        data.begin_segment(self.state)
        x = data.now(self.network.normalizer)
        own, self._next_state = self.network.actor(x[None], self.state)
        steered = self.steered if self.gate is None else self.steered | self.gate.guides
        data.action[row] = action = torch.where(steered[:, None], guided, own.mode()[0])
        return action

    @torch.no_grad()
    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Take in the step that the last `act` led to."""
        for ended, value in zip(self.ends, (result.terminated, result.truncated, result.diverged), strict=True):
            ended[self.time] = value
        self.reward[self.time] = result.reward
        for teacher in self.teachers:
            teacher.advance(action, result.done)
        if self.gate is not None:
            self.gate.record(self.time, self._raw(result.final), result)
        self.state = self._next_state.masked_fill(result.done[:, None], 0.0)
        self.age = (self.age + 1).masked_fill(result.done, 0)
        self.dataset.row += 1
        self.time += 1
        self.steps += self.spec.num_envs

    def _raw(self, observed: Observed) -> Tensor:
        """What the student reads [N, nobs], followed by the privileged group for a gate, in SI units."""
        if self.gate is None or observed.privileged is None:
            return observed.policy
        return torch.cat((observed.policy, observed.privileged.to(observed.policy.dtype)), dim=1)

    def ready(self) -> bool:
        """Whether the rollout is full."""
        return self.time == self.config.horizon

    @fast_matmul()
    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Learn from the last rollouts and begin the next one; returns what to log."""
        config, data, normalizer = self.config, self.dataset, self.network.normalizer
        terminated, truncated, diverged = self.ends
        valid = sound(terminated | truncated, diverged)
        data.weight[data.latest_rows] = valid.float()
        normalizer.update(self.raw[valid][:, : self.spec.observation_size])
        if config.lr_schedule == "linear" and self.total_steps is not None:
            done = self.steps - valid.numel()
            self.lr = config.lr * max(1.0 - done / self.total_steps, 0.0)
        self.optimizer.lr = self.lr
        judged = self._judge(data.latest(normalizer))
        if self.gate is not None:
            judged |= self.gate.update(self.raw, self.reward, self.ends, before_step)
        logs = []
        for _ in range(config.gradient_steps):
            if before_step is not None:
                before_step()
            logs.append(self._step(data.sample(normalizer, config.batch_size, self.generator)))
        self.updates += 1
        share = torch.rand(self.spec.num_envs, generator=self.generator, device=self.spec.device)
        self.steered.copy_(share < config.beta**self.updates)
        self.time = 0
        return mean_metrics(logs) | judged | {"lr": self.lr}

    def _step(self, lesson: Lesson) -> dict[str, Tensor]:
        """One gradient step; returns what to log."""
        share = shares(lesson.weight)
        hidden, _ = self.network.actor.trunk.hidden(lesson.seen, lesson.state, lesson.start)
        now = self.network.actor.of_output(self.network.actor.trunk.of_hidden(hidden))
        imitation = mean(now.imitation_loss(lesson.label), share)
        log, loss = {"imitation_loss": imitation}, imitation
        if self.estimated:
            error = (self.latent(hidden.flatten(0, 1)).unflatten(0, share.shape) - lesson.world).square().mean(-1)
            log["latent_loss"] = mean(error, share)
            loss = loss + self.config.latent_coef * log["latent_loss"]
        gradients = torch.autograd.grad(loss, self._learnt)
        log["grad_norm"] = norm = torch.stack([g.norm() for g in gradients]).norm()
        factor = (self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(self._learnt, gradients, strict=True):
            parameter.grad = gradient * factor
        self.optimizer.step()
        return {name: value.detach() for name, value in log.items()}

    @torch.no_grad()
    def _judge(self, lesson: Lesson) -> dict[str, float]:
        """What the student does with a rollout that it has not learnt from: `imitation_error`, the root mean square
        difference from the teacher's actions, and `latent.NAME` of every parameter that varies there."""
        share = shares(lesson.weight)
        hidden, _ = self.network.actor.trunk.hidden(lesson.seen, lesson.state, lesson.start)
        action = self.network.actor.of_output(self.network.actor.trunk.of_hidden(hidden)).mode()
        error = mean((action - lesson.label).square().mean(-1), share).sqrt()
        log = {"imitation_error": float(error), "teacher_share": float(mean_all(self.steered.float()))}
        if self.estimated:
            estimate = self.latent(hidden.flatten(0, 1)).unflatten(0, share.shape)
            for i, parameter in enumerate(self.estimated):
                true = lesson.world[..., i]
                variance = float(mean((true - mean(true, share)).square(), share))
                if variance > _VARIES:
                    missed = float(mean((estimate[..., i] - true).square(), share))
                    log[f"latent.{parameter.name}"] = 1.0 - missed / variance
        return log

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning."""
        names = ("raw", "reward", "ends", "age", "state", "steered")
        return {name: getattr(self, name).clone() for name in names} | {
            "policy": self.policy.state_dict(),
            "latent": self.latent.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "dataset": self.dataset.state_dict(),
            "teachers": [teacher.state for teacher in self.teachers],
            "digests": [teacher.digest() for teacher in self.teachers],
            "gate": None if self.gate is None else self.gate.state_dict(),
            "generator": self.generator.get_state(),
            "counters": {"steps": self.steps, "updates": self.updates, "time": self.time, "lr": self.lr},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises ValueError where a teacher is another policy than it was."""
        for teacher, digest in zip(self.teachers, state["digests"], strict=True):
            if teacher.digest() != digest:
                raise ValueError(f"learner: {teacher.name}: its policy has changed since this run began")
        for name in ("policy", "latent", "optimizer", "dataset"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("raw", "reward", "ends", "steered"):
            getattr(self, name).copy_(state[name])
        self.age, self.state = (state[name].to(self.spec.device, copy=True) for name in ("age", "state"))
        for teacher, remembered in zip(self.teachers, state["teachers"], strict=True):
            teacher.state = remembered.to(self.spec.device, copy=True)
        if self.gate is not None:
            self.gate.load_state_dict(state["gate"])
        self.generator.set_state(state["generator"])
        for name, value in state["counters"].items():
            setattr(self, name, value)
