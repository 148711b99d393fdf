"""What a learner is told of the environments that it learns in, and what it does for the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from envs.common.ranks import ALONE, Ranks, Share
from envs.environment import Environment, Observed, StepResult
from envs.task import Mirror
from randomization.parameters import Parameter
from simreal.learners.off_policy.hindsight import Hindsight
from simreal.learners.options import LearnerOptions
from simreal.learners.pixels.layout import PixelLayout


@dataclass(frozen=True)
class LearnerSpec:
    """Sizes of the vectors that a learner gets and gives, and what else it is told of its environments.

    Attributes:
        num_envs: N, of this process.
        observation_size: values of the policy group.
        action_size: A.
        goal_size: 0 for tasks without goals.
        privileged_size: values that only a critic may read; 0 for none.
        hindsight: what follows from a goal, for learners that relabel.
        device: where the learner computes.
        mirror: how the task is symmetric, if it is.
        parameters: of the worlds, the last values of the privileged group: each brought to [-1, 1] over its limits.
        policies: of the runs that the learner's settings name, by key; none where only its own policy is wanted.
        task: its id.
        share: which environments of a run on many ranks these N are; None: all.
        pixels: what a policy that looks at pictures reads; None: it reads the policy group.
    """

    num_envs: int
    observation_size: int
    action_size: int
    goal_size: int
    privileged_size: int
    hindsight: Hindsight | None
    device: torch.device
    mirror: Mirror | None = None
    parameters: tuple[Parameter, ...] = ()
    policies: Mapping[str, tuple[GivenPolicy, ...]] = field(default_factory=dict)
    task: str = ""
    share: Share | None = None
    pixels: PixelLayout | None = None

    @property
    def whole(self) -> Share:
        """Of the environments of the whole run."""
        return self.share or ALONE.share(self.num_envs)

    @classmethod
    def of(
        cls,
        environment: Environment,
        device: torch.device,
        hindsight: Hindsight | None = None,
        policies: Mapping[str, tuple[GivenPolicy, ...]] | None = None,
        pixels: PixelLayout | None = None,
    ) -> LearnerSpec:
        """Of an environment, which must have been reset."""
        task, observed = environment.task, environment.observed
        return cls(
            num_envs=environment.num_envs,
            observation_size=observed.policy.shape[1],
            action_size=task.action_size,
            goal_size=task.goal_size,
            privileged_size=0 if observed.privileged is None else observed.privileged.shape[1],
            hindsight=hindsight,
            device=device,
            mirror=task.mirror,
            parameters=tuple(getattr(environment.layer, "parameters", ())),
            policies=policies or {},
            task=task.id,
            share=environment.share,
            pixels=pixels,
        )


class Divided(ABC):
    """Says how a part of a state is divided among ranks, where no dimension says it."""

    @abstractmethod
    def join(self, parts: Sequence[Any]) -> Any:
        """The part of the whole run, of what each rank has."""

    @abstractmethod
    def split(self, whole: Any, start: int, stop: int, first: bool) -> Any:
        """What the rank of the environments start to stop has of it."""


Rows = int | str | Divided | Mapping[str, Any]
"""How a part of a state is divided among ranks, see `simreal.training.shards`: the dimension [N] of environments of all
tensors in it; "sum" of what ranks count; what says it otherwise; or a mapping for the parts of a part."""


@dataclass(frozen=True)
class GivenPolicy:
    """The policy of a finished run, as another learner is given it.

    Attributes:
        run: the directory, as settings name it.
        module: the policy, as `Learner.policy`.
        options: of the learner that made it.
        spec: of the environments that it learnt in.
    """

    run: str
    module: nn.Module
    options: LearnerOptions
    spec: LearnerSpec


class Learner(ABC):
    """An algorithm, as the training loop uses it.

    Tensors and modules that are attributes keep their place in memory: an update that ends in NaN or infinity is taken
    back by copying them.

    Args:
        spec: of the environments.
        config: the options.
        seed: of networks, exploration and batches.
        total_steps: environment steps of the whole run, for lr_schedule "linear".

    Attributes:
        policy: deterministic, with its normalizer: observation [B, nobs] -> action [B, A] in [-1, 1]. Evaluated and
            exported.
        generator: of all random numbers after the initial weights.
        share: of the environments of a run on many ranks; ranks: of that run.
        steps: environment steps recorded, in the whole run.
        updates: made so far.
        begun: what the update works on that `begin` has begun; None once it is made.
    """

    policy: Any  # a Module; subclasses know which

    ROWS: ClassVar[Mapping[str, Rows] | None] = None
    """What in the state is of environments, for learners that run on many ranks; None: it runs on one process only."""

    COLLECTED: ClassVar[tuple[str, ...] | None] = None
    """What `act`, `record` and `draw` change, by the names of attributes, for learners that have `draw`; None: it has
    not."""

    NETWORKS: ClassVar[tuple[str, ...]] = ("policy",)
    """See `networks`."""

    inherits: bool = False
    """Whether it began with another run's networks."""

    def __init__(self, spec: LearnerSpec, config: Any, seed: int, total_steps: int | None = None) -> None:
        if config.depends_on_length and total_steps is None:
            raise ValueError("lr_schedule linear: needs the number of steps of the run")
        self.spec, self.config, self.total_steps = spec, config, total_steps
        self.share, self.ranks = spec.whole, spec.whole.ranks
        torch.manual_seed(seed)
        self.generator = torch.Generator(spec.device).manual_seed(seed)
        self.steps = self.updates = 0
        self.begun: Any = None

    def talk_through(self, ranks: Ranks) -> None:
        """Have updates talk with other ranks through these: others than those of the thread that collects."""
        self.ranks = ranks

    @abstractmethod
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A] in [-1, 1] to explore with."""

    @abstractmethod
    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Take in the step that the last `act` led to."""

    def proceed(self) -> None:
        """Make the next update due; called in place of `act` and `record` where the options count sweeps.

        Raises NotImplementedError for learners that act.
        """
        raise NotImplementedError

    @abstractmethod
    def ready(self) -> bool:
        """Whether enough was recorded for an update."""

    def draw(self) -> Any:
        """All that the next update learns from, so that it can be made while `act` and `record` go on.

        Called when it is `ready`; the update before it may still be running: only what is in `COLLECTED` may change.
        Raises NotImplementedError for learners whose updates have to be waited for.
        """
        raise NotImplementedError

    def put_back(self, drawn: Any) -> None:
        """Take back a `draw` whose update will not be made, as the one before it has failed."""
        raise NotImplementedError

    def begin(self, drawn: Any) -> None:
        """Begin the update of what was drawn: `update` makes it, while `act` follows the weights of this moment and,
        with `record`, changes what is in `COLLECTED` only."""
        raise NotImplementedError

    @abstractmethod
    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Make the update that has begun, or else learn from what was recorded; returns what to log.

        Args:
            before_step: called before every gradient step, see `simreal.training.updates.threads`.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning: nested mappings and lists of tensors and plain values.

        The state of `policy` is its entry "policy", which evaluation and export load.
        """

    def common_state(self) -> dict[str, Any]:
        """The part of the state that is the same on all ranks."""
        return {name: part for name, part in self.state_dict().items() if name not in (self.ROWS or {})}

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. Raises KeyError, ValueError or RuntimeError where it is of other settings."""

    def networks(self) -> tuple[str, ...]:
        """Attributes with networks and their normalizers, by the names that they have in `state_dict`."""
        return self.NETWORKS

    def start_from(self, state: dict[str, Any]) -> None:
        """Begin with the networks and normalizers of another run's `state_dict`; optimizers, experience and counters
        are new. Raises KeyError, ValueError or RuntimeError where they are of other sizes."""
        for name in self.networks():
            getattr(self, name).load_state_dict(state[name])
        self.inherits = True


def mean_metrics(logs: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Means of scalars [] logged by name; the device is waited for here only."""
    return {name: float(sum(each[name].float() for each in logs)) / len(logs) for name in (logs or [{}])[0]}
