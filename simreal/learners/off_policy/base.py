"""What learners on replayed experience share: `OffPolicyLearner`, and what those with an actor do, `ActorCritic`."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from envs.common.deterministic_ops import sum_all
from envs.common.fast_matmul import fast_matmul
from envs.common.ranks import sums
from envs.environment import Observed, StepResult
from simreal.common.layers import Layer, layers_of
from simreal.learners.adam import Adam
from simreal.learners.base import Learner, LearnerSpec, mean_metrics
from simreal.learners.history import History, HistoryLayout, HistoryPolicy
from simreal.learners.networks import DeterministicActor, GaussianActor, QNetwork, polyak_
from simreal.learners.normalizer import Normalizer, make_normalizer
from simreal.learners.off_policy.backprop import pass_of
from simreal.learners.off_policy.replay import LAG, HerReplayBuffer
from simreal.learners.off_policy.replay_shards import BatchShards, ReplayShards
from simreal.learners.off_policy.transitions import Begun, ReplayBatch, States, normalized
from simreal.learners.options import ActorCriticOptions, BatchOptions

ActorClass = type[DeterministicActor] | type[GaussianActor]


class OffPolicyPolicy(nn.Module):
    """Normalizer and actor: what is exported. Puts out the most likely action.

    Args:
        spec, config: see `OffPolicyLearner`.
        actor: makes actions [B, A] in [-1, 1] of what networks see.
    """

    def __init__(self, spec: LearnerSpec, config: BatchOptions, actor: nn.Module) -> None:
        super().__init__()
        self.normalizer = make_normalizer(spec.observation_size, config)
        self.actor: Any = actor

    def of_features(self, features: Tensor) -> Tensor:
        """What networks see, [B, nobs + what is remembered] -> action [B, A] in [-1, 1]."""
        return self.actor(features)

    def undecided_at(self, tolerance: float, features: Tensor) -> Tensor:
        """[B] bool, where a relative error of `tolerance` decides which of several discrete actions is taken."""
        ask = getattr(self.actor, "undecided", None)
        return torch.zeros(len(features), dtype=torch.bool) if ask is None else ask(tolerance, features)

    def undecided(self, tolerance: float, observation: Tensor) -> Tensor:
        """`undecided_at` observations [B, nobs] in SI units."""
        return self.undecided_at(tolerance, self.normalizer(observation))

    def forward(self, observation: Tensor) -> Tensor:
        """Observation [B, nobs] in SI units -> action [B, A] in [-1, 1]; of policies that remember nothing."""
        return self.of_features(self.normalizer(observation))

    def layers(self) -> list[Layer]:
        """From an observation to an action, without past actions."""
        return [*layers_of(self.normalizer), *layers_of(self.actor)]


class OffPolicyLearner(Learner):
    """Learns from replayed experience.

    Args:
        spec, config, seed, total_steps: see `Learner`.
        actor: makes the policy's network for a number of inputs.

    Attributes:
        behavior: the network that acts: the policy's, or a copy of it where updates are made beside collecting.
    """

    NOISES: ClassVar[int]
    """Standard normal numbers that a gradient step needs per transition and action."""

    COLLECTED = ("steps", "updates_due", "generator", "network.normalizer", "privileged_normalizer")
    begun: Begun | None

    def __init__(
        self,
        spec: LearnerSpec,
        config: Any,
        seed: int,
        total_steps: int | None,
        actor: Callable[[int], nn.Module],
    ) -> None:
        super().__init__(spec, config, seed, total_steps)
        layout = HistoryLayout.of(config, spec.observation_size, spec.goal_size, spec.action_size)
        self.inputs = spec.observation_size + layout.inputs  # of the policy's network
        # What the replay holds, where critics read more than the policy does.
        self.held = States(spec.observation_size - spec.goal_size, self._privileged_size(), spec.goal_size)
        # Always there: what is watched and copied beside updates is named once, for all.
        self.privileged_normalizer: Normalizer = make_normalizer(self.held.privileged, config).to(spec.device)
        self.privileged_normalizer.passed = len(spec.parameters) if self.held.privileged else 0
        self.network = OffPolicyPolicy(spec, config, actor(self.inputs)).to(spec.device)
        self.behavior: Any = self.network.actor
        self.history = History(layout, spec.num_envs, spec.device)
        leaving = self._leaving_network()
        self.policy: nn.Module = HistoryPolicy(leaving, layout) if layout.size else leaving
        self._online: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._optimizers: dict[str, float] = {}  # step sizes
        self.replay = self._make_replay(
            config.replay_size, spec.num_envs, self.held.size, spec.action_size, spec.goal_size,
            config.her_k if spec.goal_size else 0, self.held.widened(spec.hindsight), layout, LAG, spec.device,
            self.share,
        )  # fmt: skip
        self.updates_due = 0.0

    def _privileged_size(self) -> int:
        """Values that critics read beside what the policy does."""
        return 0

    def _make_replay(self, *arguments: Any) -> HerReplayBuffer:
        """The replay, for arguments of `HerReplayBuffer`."""
        return HerReplayBuffer(*arguments)

    def _leaving_network(self) -> OffPolicyPolicy:
        """The network that is evaluated and exported: the one that learns, or a copy with averages of its weights.

        A policy learnt off-policy changes from update to update, and the last one may by chance be a bad one. An
        average along the way is steadier (Nikishin et al. 2018, "Improving stability in deep reinforcement learning
        with weight averaging"; Polyak and Juditsky 1992). Learning does not see it.
        """
        if not self.config.average_updates:
            return self.network
        leaving = copy.deepcopy(self.network)
        leaving.normalizer = self.network.normalizer
        self._averaged, self._online_policy = ([p.data for p in n.parameters()] for n in (leaving, self.network))
        return leaving

    @abstractmethod
    def _update(self, batch: ReplayBatch, noise: Tensor) -> dict[str, Tensor]:
        """Update number `updates`, a gradient step with noise [NOISES, B, A]; returns what to log, [] each."""

    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Put one step of every environment into the replay."""
        final = result.final
        self.replay.add(
            self.held.of(observed), action, result.reward, self.held.of(final), result.terminated, result.done,
            final.achieved_goal, result.diverged, result.success,
        )  # fmt: skip
        self.history.advance(observed.policy, action, result.done)
        self._take_in(self.replay.ripened())
        self.steps += self.share.total
        if self.steps >= self.config.warmup_steps:
            self.updates_due += self.config.updates_per_step * self.share.total

    def _take_in(self, states: Tensor) -> None:
        """Take states [B, n] into the statistics that they are normalized by."""
        observation, privileged = self.held.split(states) if self.held.privileged else (states, None)
        self.network.normalizer.update(observation, self.share.ranks)
        if privileged is not None:
            self.privileged_normalizer.update(privileged, self.share.ranks)

    def ready(self) -> bool:
        """Whether enough updates are due, and there is something to sample."""
        return int(self.updates_due) >= self.config.updates_per_cycle and self.replay.sound()

    def draw(self) -> Begun:
        """One large sample for all gradient steps that are due, and their random numbers."""
        size, count = self.config.batch_size, int(self.updates_due)
        self.updates_due -= count
        before = self.generator.get_state()
        sampled = self.held.apart(self._sample(size * count), self.privileged_normalizer)
        batch = normalized(sampled, self.network.normalizer, self.history.layout)
        shape = (self.NOISES, size * count, self.spec.action_size)
        noise = torch.randn(shape, generator=self.generator, device=self.spec.device)
        return Begun(batch, noise, count, self._told(), before)

    def put_back(self, drawn: Begun) -> None:
        """Take back a `draw`."""
        self.updates_due += drawn.count
        self.generator.set_state(drawn.generator)

    def begin(self, drawn: Begun) -> None:
        """Until this is called again the present policy acts."""
        if self.behavior is self.network.actor:
            self.behavior = copy.deepcopy(self.network.actor)
        self.behavior.load_state_dict(self.network.actor.state_dict())
        self._set_step_sizes()
        self.begun = drawn

    def _told(self) -> dict[str, float]:
        """What to log of the moment in which an update begins."""
        return {"replay": float(len(self.replay))}

    @fast_matmul()
    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Make all gradient steps that are due, or that were when the update began; returns means to log."""
        config, begun = self.config, self.begun
        if begun is None:
            self.behavior = self.network.actor
            begun = self.draw()
            self._set_step_sizes()
        logs: list[dict[str, Tensor]] = []
        size = config.batch_size
        for i in range(begun.count):
            if before_step is not None:
                before_step()
            self.updates += 1
            start, stop = i * size, (i + 1) * size
            part = begun.batch.rows(start, stop)
            numbers = slice(start, stop) if part.place is None else part.place
            log = self._update(part, begun.noise[:, numbers])
            logs.append({name: value.detach() for name, value in log.items()})
            if config.average_updates:
                polyak_(self._averaged, self._online_policy, 1.0 / min(self.updates, config.average_updates))
        self.begun = None
        return mean_metrics(sums(logs, self.ranks)) | {"updates": float(self.updates)} | begun.told

    def _sample(self, count: int) -> ReplayBatch:
        """A batch of transitions to learn from."""
        return self.replay.sample(count, self.generator)

    def _draw(self, draw: Callable[..., Tensor], size: int) -> Tensor:
        """Random numbers [N, size] for this rank's environments: all ranks draw those of the whole run."""
        return self.share.mine(draw(self.share.total, size, generator=self.generator, device=self.spec.device))

    def _rows(self, rows: int) -> int:
        """Transitions of a gradient step, of which these are some; alone, all of them."""
        return rows if self.ranks.size == 1 else self.config.batch_size

    def _mean(self, value: Tensor, dim: int = 0) -> Tensor:
        """Mean [] of values over the transitions of a gradient step, which are dimension `dim`; on many ranks, this
        one's summand."""
        others = math.prod(size for i, size in enumerate(value.shape) if i != dim)
        return sum_all(value) / (self._rows(value.shape[dim]) * others)

    def _once(self, value: Tensor) -> Tensor:
        """What to log of a value [] that all ranks have alike, as logs are summed over ranks."""
        return value if self.ranks.first else torch.zeros_like(value)

    @property
    def _warms_up(self) -> bool:
        """Whether actions are random still. A policy that another run has taught acts from the first step on: random
        experience would be the only one that it learns from at first, and it would forget what it can."""
        return self.steps < self.config.warmup_steps and not self.inherits

    def _features(self, observed: Observed) -> Tensor:
        """What networks see [N, inputs] of the present observation."""
        return self.history.features(observed.policy.to(self.spec.device), self.network.normalizer)

    def _set_step_sizes(self) -> None:
        """With lr_schedule "linear" all step sizes fall to 0 between the end of the warm-up and that of the run."""
        if self.config.lr_schedule == "linear" and self.total_steps is not None:
            begin, end = self.config.warmup_steps, self.total_steps
            left = (end - self.steps) / max(end - begin, 1)
            for name, step_size in self._optimizers.items():
                getattr(self, name).lr = step_size * min(max(left, 0.0), 1.0)

    def _move_targets(self) -> None:
        polyak_(self._targets, self._online, self.config.tau)

    def _stateful(self) -> tuple[str, ...]:
        """Attributes with a `state_dict` of their own."""
        beside = ("privileged_normalizer",) if self.held.privileged else ()
        return ("policy", *self._optimizers, *beside, "replay")

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning."""
        state = self.common_state() | {"replay": self.replay.state_dict(), "history": self.history.state}
        return state | {"begun": None if self.begun is None else self.begun.state_dict()}

    def common_state(self) -> dict[str, Any]:
        """The part of the state that is the same on all ranks."""
        stateful = (name for name in self._stateful() if name != "replay")
        return {name: getattr(self, name).state_dict() for name in stateful} | {
            "actor": self.network.actor.state_dict() if self.config.average_updates else {},
            "behavior": {} if self.behavior is self.network.actor else self.behavior.state_dict(),
            "generator": self.generator.get_state(),
            "counters": {"steps": self.steps, "updates_due": self.updates_due, "updates": self.updates}
            | ({"inherits": True} if self.inherits else {}),
        }

    def networks(self) -> tuple[str, ...]:
        """Attributes with networks and their normalizers."""
        return tuple(name for name in self._stateful() if name != "replay" and name not in self._optimizers)

    def start_from(self, state: dict[str, Any]) -> None:
        """Begin with the networks and normalizers of another run's `state_dict`. The network that acts is the one that
        learnt there; where averages are learnt with here and were not there, both begin with it."""
        super().start_from(state)
        if self.config.average_updates and not state["actor"]:
            polyak_(self._online_policy, self._averaged, 1.0)
        elif state["actor"]:
            self.network.actor.load_state_dict(state["actor"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises KeyError, ValueError or RuntimeError where it is of other settings."""
        for name in self._stateful():
            getattr(self, name).load_state_dict(state[name])
        if self.config.average_updates:
            self.network.actor.load_state_dict(state["actor"])
        if state.get("behavior"):  # earlier versions had none
            self.behavior = copy.deepcopy(self.network.actor)
            self.behavior.load_state_dict(state["behavior"])
        self.begun = Begun.of(state["begun"], self.spec.device) if state.get("begun") else None
        self.history.state = state["history"].to(self.spec.device, copy=True)
        self.generator.set_state(state["generator"])
        for name, value in state["counters"].items():
            setattr(self, name, value)


class ActorCritic(OffPolicyLearner):
    """Learns a policy from the estimates of critics.

    On many ranks losses are sums over this rank's part of a batch; their gradients are summed before a step.

    Args:
        spec, config, seed, total_steps: see `Learner`.
        actor: class of the policy's network.
        critics: estimates of Q that the critic gives.
    """

    ROWS = {"replay": ReplayShards(), "history": 0, "begun": BatchShards()}  # noqa: RUF012

    def __init__(
        self,
        spec: LearnerSpec,
        config: ActorCriticOptions,
        seed: int,
        total_steps: int | None,
        actor: ActorClass,
        critics: int,
    ) -> None:
        hidden, actions = config.hidden, spec.action_size
        super().__init__(spec, config, seed, total_steps, lambda inputs: actor(inputs, actions, hidden))
        self.critic = QNetwork(critics, self.inputs + self.held.privileged, actions, hidden).to(spec.device)
        self.target_critic = copy.deepcopy(self.critic)
        self._critic_pass, self._actor_pass = pass_of(self.critic.net), pass_of(self.network.actor.net)
        self._online = [p.data for p in self.critic.parameters()]
        self._targets = [p.data for p in self.target_critic.parameters()]
        self.actor_optimizer = Adam(self.network.actor.parameters(), lr=config.actor_lr)
        self.critic_optimizer = Adam(self.critic.parameters(), lr=config.critic_lr)
        self._optimizers = {"actor_optimizer": config.actor_lr, "critic_optimizer": config.critic_lr}

    def _privileged_size(self) -> int:
        config, spec = self.config, self.spec
        if not config.privileged_critic:
            return 0
        if not spec.privileged_size:
            raise ValueError(
                "privileged_critic: this task has no privileged group and nothing is randomized, set it to false"
            )
        if spec.hindsight is not None:
            spec.hindsight.check_privileged("privileged_critic")
        return spec.privileged_size

    def _q(self, known: Tensor, action: Tensor) -> Tensor:
        """The critic's estimates [members, B], of which a gradient can be asked for until it is asked again."""
        return self._critic_pass(torch.cat((known, action), dim=1)).squeeze(-1)

    def _descend_critic(self, gradient: Tensor) -> None:
        """One step of the critic against the gradient [members, B] of a loss by what `_q` gave last."""
        gradients = self._critic_pass.weights(gradient.unsqueeze(-1))
        self.ranks.sum_(*gradients)
        self.critic_optimizer.step(gradients)

    def _by_action(self, gradient: Tensor) -> Tensor:
        """Gradient [B, A] by the actions that `_q` was last asked about, of one by its estimates [members, B]."""
        return self._critic_pass.input(gradient.unsqueeze(-1))[:, -self.spec.action_size :]

    def _descend_actor(self, gradient: Tensor, *beside: Tensor) -> None:
        """One step of the actor against the gradient [B, outputs] of a loss by what its network gave last; tensors
        beside it are replaced by their sums over ranks, in the same message."""
        gradients = self._actor_pass.weights(gradient.unsqueeze(0))
        self.ranks.sum_(*gradients, *beside)
        self.actor_optimizer.step(gradients)

    def _stateful(self) -> tuple[str, ...]:
        return (*super()._stateful(), "critic", "target_critic")
