"""Settings of the learners, and what the rest of simreal asks of them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Unknown keys are errors; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")


Width = Annotated[int, Field(ge=1, le=65_536)]
Unbounded = Annotated[float, Field(allow_inf_nan=True)]
_MOST_WEIGHTS = 100_000_000  # of a network's hidden layers: 400 MB, several times in a learner


def _hidden(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Refuse layers whose weights would not fit, before anybody allocates them."""
    weights = sum(a * b for a, b in pairwise(widths))
    if weights > _MOST_WEIGHTS:
        raise ValueError(f"expected at most {_MOST_WEIGHTS:,} weights between hidden layers, got {weights:,}")
    return widths


Hidden = Annotated[tuple[Width, ...], Field(min_length=1, max_length=32), AfterValidator(_hidden)]


class LearnerOptions(Strict):
    """Settings of any learner. A subclass has a field `algorithm: Literal[NAME]`, and the methods that its learner
    answers otherwise than here."""

    if TYPE_CHECKING:
        algorithm: Any

    STAGGERED: ClassVar[bool] = False
    """Whether the first episodes should begin at different times, so that they do not all end in one rollout."""

    COUNTS: ClassVar[Literal["env_steps", "sweeps"]] = "env_steps"
    """What a run counts: environment steps; or sweeps, updates of a learner that acts in no environment."""

    RESUME_MAY_CHANGE: ClassVar[frozenset[str]] = frozenset()
    """Settings that may differ from those that a resumed run began with."""

    def run_length(self, env_steps: int) -> int:
        """What the count of a run shall reach, for the `train.env_steps` of its configuration."""
        return env_steps

    @property
    def relabels(self) -> bool:
        """Whether experience is learnt from with other goals too."""
        return False

    @property
    def runs(self) -> dict[str, tuple[str, ...]]:
        """Run directories whose policies the learner is given, by the key that names them."""
        return {}

    @property
    def reads_privileged(self) -> bool:
        """Whether the policy reads the privileged group too, which no robot measures."""
        return False

    @property
    def depends_on_length(self) -> bool:
        """Whether what is learnt depends on how long the run shall become."""
        return getattr(self, "lr_schedule", None) == "linear"

    def first_update(self, num_envs: int) -> int:
        """Environment steps after which the learner learns for the first time."""
        return num_envs

    def largest_product(self, num_envs: int) -> int:
        """Multiply-adds of the largest matrix product of an update, which decides how many threads it gets."""
        return 0

    def without_experience(self) -> Self:
        """The settings with as little room for experience as possible, where only the policy is wanted."""
        return self


class HistoryOptions(LearnerOptions):
    """Settings of learners whose policy may remember; see `simreal.learners.history`."""

    observation_history: int = Field(
        0,
        ge=0,
        le=100,
        description="earlier observations that the policy sees too, with its own actions since",
    )
    action_history: int = Field(
        0, ge=0, le=100, description="last actions that the policy remembers; cover the longest delay in control steps"
    )


def largest_layer(hidden: tuple[int, ...]) -> int:
    """Weights of the largest layer between hidden ones."""
    return max(a * b for a, b in zip(hidden, hidden[1:] or hidden, strict=False))


class BatchOptions(LearnerOptions):
    """What learners share that learn from batches of transitions, whoever made them."""

    hidden: Hidden = Field((256, 256), description="units of each hidden layer")
    gamma: float = Field(0.98, ge=0, lt=1, description="discount per control step")
    batch_size: int = Field(256, ge=1)
    her_k: float = Field(4.0, ge=0, description="hindsight goals per original goal, for goal tasks; 0 for none")
    target_limits: tuple[Unbounded, Unbounded] | None = Field(
        None, description="lowest and highest possible return; targets are clipped to it"
    )
    normalize_observation: bool = Field(True, description="by running mean and std")
    observation_clip: float = Field(5.0, gt=0, description="largest normalized observation")

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        limits = self.target_limits
        if limits is not None and not limits[0] < limits[1]:
            raise ValueError(f"target_limits: expected lowest < highest, got {list(limits)}")
        return self

    @property
    def relabels(self) -> bool:
        """Whether experience is learnt from with other goals too, in tasks with goals."""
        return self.her_k > 0

    def largest_product(self, num_envs: int) -> int:
        """Multiply-adds of the largest matrix product of an update."""
        return self.batch_size * largest_layer(self.hidden)


class ReplayOptions(HistoryOptions, BatchOptions):
    """What learners share that replay their own experience."""

    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear: all step sizes fall to 0 between the end of the warm-up and that of the run"
    )
    tau: float = Field(0.005, gt=0, le=1, description="share of the online weights mixed into the targets per update")
    replay_size: int = Field(1_000_000, ge=1, description="transitions kept")
    warmup_steps: int = Field(
        1000, ge=0, description="environment steps before learning, with random actions; after train.from the policy's"
    )
    updates_per_step: float = Field(1.0, gt=0, description="updates per environment step, in the long run")
    updates_per_cycle: int = Field(1, ge=1, description="updates are made in groups of at least this many")
    average_updates: int = Field(
        0, ge=0, description="updates that the evaluated and exported policy is an average over; 0 takes the last"
    )

    def first_update(self, num_envs: int) -> int:
        """Environment steps after which the learner learns for the first time."""
        due = math.ceil(self.updates_per_cycle / (self.updates_per_step * num_envs))
        return num_envs * (math.ceil(self.warmup_steps / num_envs) + due - 1)

    def without_experience(self) -> Self:
        """The settings with a replay of one transition."""
        return self.model_copy(update={"replay_size": 1, "her_k": 0.0})


class ActorCriticOptions(ReplayOptions):
    """What SAC, TD3 and DDPG share."""

    actor_lr: float = Field(1e-3, gt=0, description="Adam step size of the policy")
    critic_lr: float = Field(1e-3, gt=0, description="Adam step size of the critics")
    privileged_critic: bool = Field(
        False, description="the critics read the privileged group and the parameters of the worlds too"
    )


class DDPGConfig(ActorCriticOptions):
    """Deep deterministic policy gradient."""

    algorithm: Literal["ddpg"] = "ddpg"
    exploration_noise: float = Field(0.2, ge=0, description="standard deviation of the noise on actions")
    exploration_random: float = Field(0.3, ge=0, le=1, description="share of uniformly random actions")
    action_penalty: float = Field(1.0, ge=0, description="weight of the mean squared pre-tanh action")


class TD3Config(ActorCriticOptions):
    """Twin delayed DDPG."""

    algorithm: Literal["td3"] = "td3"
    exploration_noise: float = Field(0.1, ge=0, description="standard deviation of the noise on actions")
    target_noise: float = Field(0.2, ge=0, description="standard deviation of the noise on the target policy's actions")
    noise_clip: float = Field(0.5, ge=0, description="largest noise on the target policy's actions")
    policy_delay: int = Field(2, ge=1, description="updates of the critics for each of policy and targets")
    action_penalty: float = Field(0.0, ge=0, description="weight of the mean squared pre-tanh action")


class SACConfig(ActorCriticOptions):
    """Soft actor-critic with automatic temperature."""

    algorithm: Literal["sac"] = "sac"
    alpha_lr: float = Field(3e-4, gt=0, description="Adam step size of log alpha")
    initial_alpha: float = Field(0.1, gt=0, description="temperature at the start")
    target_entropy: float | None = Field(None, description="nats; None is minus the number of actions")


class BinsOptions(BatchOptions):
    """What learners of values of discretized actions share, see `simreal.learners.off_policy.dqn`."""

    bins: int = Field(3, ge=2, le=255, description="evenly spaced actions of each actuator; 3: full, none, full back")
    lr: float = Field(3e-4, gt=0, description="Adam step size of the values")
    huber: float = Field(1.0, gt=0, description="error of a value from which on the loss grows linearly")


class DQNConfig(ReplayOptions, BinsOptions):
    """Q-learning on discretized actions, decoupled over actuators."""

    algorithm: Literal["dqn"] = "dqn"
    n_steps: int = Field(
        3, ge=1, le=100, description="control steps whose rewards a target sums up before it bootstraps"
    )
    epsilon: float = Field(0.1, ge=0, le=1, description="share of actuators that take a random bin")
    epsilon_steps: int = Field(
        0, ge=0, description="environment steps after the warm-up in which that share falls from 1 to `epsilon`"
    )


class FQIConfig(BinsOptions):
    """Fitted Q iteration on recorded transitions."""

    COUNTS = "sweeps"
    RESUME_MAY_CHANGE = frozenset({"sweeps"})

    algorithm: Literal["fqi"] = "fqi"
    dataset: str = Field(min_length=1, description="file of transitions that `simreal record` wrote")
    sweeps: int = Field(50, ge=1, description="times that values are fitted to targets; ends the run")
    updates_per_sweep: int = Field(500, ge=1, description="gradient steps of a fit")

    def run_length(self, env_steps: int) -> int:
        """Sweeps."""
        return self.sweeps

    def first_update(self, num_envs: int) -> int:
        """At once."""
        return 0

    def without_experience(self) -> Self:
        """The settings without a dataset."""
        return self.model_copy(update={"dataset": "", "her_k": 0.0})


class ActorOptions(HistoryOptions):
    """The policies of PPO and of students, which go on as one another: their networks, and how they are rolled out."""

    actor_hidden: Hidden = Field((64, 64), description="units of the policy's hidden layers")
    activation: Literal["elu", "relu", "tanh"] = Field("elu", description="between layers")
    memory: Literal["none", "lstm", "gru"] = Field("none", description="recurrent layer of policy and critic")
    memory_size: int = Field(128, ge=1, le=4096, description="units of the recurrent layer")
    segment: int = Field(16, ge=1, description="steps that gradients flow back through the memory; divides horizon")
    horizon: int = Field(256, ge=1, description="steps of every environment between updates")
    normalize_observation: bool = Field(True, description="by running mean and std")
    observation_clip: float = Field(10.0, gt=0, description="largest normalized observation")
    actor: Literal["gaussian", "categorical"] = Field(
        "gaussian", description="distribution over actions; categorical: one over evenly spaced values per actuator"
    )
    bins: int = Field(11, ge=2, le=1001, description="values in [-1, 1] that a categorical actor chooses among")
    log_std: Literal["free", "state"] = Field("free", description="std of a gaussian actor: parameters, or an output")
    initial_std: float = Field(0.5, gt=0, description="std of a gaussian actor's actions at the start")
    squash: Literal["clip", "tanh"] = Field(
        "clip", description="how a gaussian actor's actions are brought into [-1, 1]"
    )

    @model_validator(mode="after")
    def _actor_fits_together(self) -> Self:
        if self.memory != "none" and self.horizon % self.segment:
            raise ValueError(f"segment: expected a divisor of horizon ({self.horizon}), got {self.segment}")
        for name in ("observation_history", "action_history"):
            if getattr(self, name) and self.memory != "none":
                raise ValueError(f"{name}: memory {self.memory} remembers by itself, set one of them to 0 or none")
            if getattr(self, name) > self.horizon:
                raise ValueError(f"{name}: expected at most horizon ({self.horizon}), got {getattr(self, name)}")
        return self

    def network(self) -> dict[str, Any]:
        """What decides the shape of the policy and what its weights mean, by key."""
        names = ["actor", "actor_hidden", "activation", "memory", "normalize_observation", "observation_clip"]
        names += ["observation_history", "action_history"]
        names += ["memory_size"] if self.memory != "none" else []
        names += ["bins"] if self.actor == "categorical" else ["log_std", "squash"]
        return {name: getattr(self, name) for name in names}

    def first_update(self, num_envs: int) -> int:
        """Environment steps after which the learner learns for the first time."""
        return self.horizon * num_envs


class PPOConfig(ActorOptions):
    """Policy gradients on fresh experience: PPO and its family, with or without memory."""

    STAGGERED = True

    algorithm: Literal["ppo"] = "ppo"
    objective: Literal["ppo_clip", "ppo_kl", "a2c", "reinforce", "trpo"] = Field(
        "ppo_clip", description="what the policy maximizes; a2c and reinforce use every sample once"
    )
    advantage: Literal["gae", "one_step", "n_step", "monte_carlo"] = Field(
        "gae", description="estimator of advantages; reinforce takes monte_carlo"
    )
    critic_hidden: Hidden = Field((64, 64), description="units of the critic's hidden layers")
    privileged_critic: bool = Field(True, description="the critic reads the privileged group, where there is one")
    actor_reads: Literal["policy", "privileged"] = Field(
        "policy",
        description="privileged: the policy, a teacher then, reads the privileged group and the world too",
    )
    initial_policy: str | None = Field(
        None, description="directory of a finished run of ppo or distill whose policy is gone on with"
    )
    critic_warmup: int = Field(0, ge=0, description="first updates in which only the critic learns")
    epochs: int = Field(10, ge=1, description="passes over a rollout")
    minibatches: int = Field(16, ge=1, description="parts of a rollout, with one gradient step each")
    gamma: float = Field(0.99, ge=0, lt=1, description="discount per control step")
    lam: float = Field(0.95, ge=0, le=1, description="decay of GAE")
    n_steps: int = Field(5, ge=1, description="rewards before the n_step estimator bootstraps")
    lr: float = Field(5e-4, gt=0, description="Adam step size, at the start")
    lr_schedule: Literal["constant", "linear", "kl_adaptive"] = Field(
        "constant", description="linear: to 0 at the end of the run; kl_adaptive: keeps the KL near desired_kl"
    )
    lr_limits: tuple[float, float] = Field((1e-5, 1e-2), description="lowest and highest step size of kl_adaptive")
    desired_kl: float = Field(
        0.01, gt=0, description="nats per update that kl_adaptive and ppo_kl aim at, and the bound of trpo"
    )
    target_kl: float | None = Field(None, gt=0, description="an update ends early beyond 1.5 times this KL, nats")
    clip: float = Field(0.2, gt=0, description="largest change of the probability ratio that ppo_clip rewards")
    value_clip: float | None = Field(None, gt=0, description="largest rewarded change of a value, in std of returns")
    kl_beta: float = Field(1.0, gt=0, description="weight of the KL penalty of ppo_kl, at the start")
    value_coef: float = Field(0.5, ge=0, description="weight of the value loss")
    entropy_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    mirror_coef: float = Field(
        0.0, ge=0, description="weight of the loss that makes the policy symmetric, for tasks that are"
    )
    bound_coef: float = Field(
        0.0,
        ge=0,
        description="weight of the loss on a gaussian actor's mean beyond -1 and 1, where its noise is clipped away",
    )
    max_grad_norm: float = Field(0.5, gt=0, description="gradients are scaled down to this norm")
    normalize_advantage: Literal["none", "batch", "minibatch"] = Field(
        "batch", description="over what advantages are brought to mean 0 and std 1"
    )
    normalize_value: bool = Field(True, description="the critic learns returns in units of their running std")
    cg_iterations: int = Field(10, ge=1, description="conjugate gradient steps of trpo")
    cg_damping: float = Field(0.1, ge=0, description="added to the Fisher matrix of trpo")

    @model_validator(mode="after")
    def _fits_together(self) -> PPOConfig:
        if not 0.0 < self.lr_limits[0] <= self.lr_limits[1]:
            raise ValueError(f"lr_limits: expected 0 < lowest <= highest, got {list(self.lr_limits)}")
        # The KL is measured before a gradient step: before the only one of an update it is 0.
        measures_kl = self.objective != "trpo" and (self.epochs > 1 or self.minibatches > 1)
        if self.target_kl is not None and not measures_kl:
            raise ValueError("target_kl: ends updates of several gradient steps on the policy, set it to null")
        if self.mirror_coef and self.memory != "none":
            raise ValueError(f"mirror_coef: works without memory only, set it to 0 or memory {self.memory} to none")
        if self.objective in ("a2c", "reinforce") and (self.epochs, self.minibatches) != (1, 1):
            raise ValueError(f"objective {self.objective}: uses every sample once, set epochs and minibatches to 1")
        if self.objective == "reinforce" and self.advantage != "monte_carlo":
            raise ValueError("objective reinforce: set advantage to monte_carlo")
        if self.objective == "trpo" and self.lr_schedule == "kl_adaptive":
            raise ValueError("objective trpo: bounds the KL itself, set lr_schedule to constant or linear")
        if self.lr_schedule == "kl_adaptive" and not measures_kl:
            raise ValueError("lr_schedule kl_adaptive: needs several gradient steps per update, set it to constant")
        if self.objective == "trpo":
            for name in ("mirror_coef", "bound_coef"):
                if getattr(self, name):
                    raise ValueError(f"{name}: objective trpo has no such loss, set it to 0")
            if self.normalize_advantage == "minibatch":
                raise ValueError("normalize_advantage: objective trpo steps on the whole batch, set it to batch")
        return self

    @property
    def runs(self) -> dict[str, tuple[str, ...]]:
        """The run whose policy is gone on with."""
        return {} if self.initial_policy is None else {"initial_policy": (self.initial_policy,)}

    @property
    def reads_privileged(self) -> bool:
        """Whether the policy reads the privileged group too."""
        return self.actor_reads == "privileged"

    def network(self) -> dict[str, Any]:
        """What decides the shape of the policy and what its weights mean, by key."""
        return super().network() | {"actor_reads": self.actor_reads}

    def largest_product(self, num_envs: int) -> int:
        """Multiply-adds of the largest matrix product of an update."""
        return num_envs * self.horizon // self.minibatches * largest_layer(self.actor_hidden)

    def without_experience(self) -> Self:
        """The settings with rollouts of one step."""
        return self.model_copy(update={"horizon": 1, "segment": 1, "minibatches": 1})
