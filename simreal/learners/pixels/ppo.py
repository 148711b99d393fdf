"""PPO on pictures: what an encoder makes of them stands where other policies have what they remember.

The actor's encoder learns from the actor's loss; with a critic that reads pictures too, from both losses. Pictures are
moved at random when learnt from, as in DrQ (arXiv 2004.13649).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.environment import Observed, StepResult
from simreal.learners.base import LearnerSpec
from simreal.learners.history import HistoryLayout
from simreal.learners.normalizer import make_normalizer
from simreal.learners.on_policy.actor_critic import Critic
from simreal.learners.on_policy.categorical import CategoricalActor
from simreal.learners.on_policy.gaussian import GaussianActor
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.on_policy.rollout import RolloutBuffer
from simreal.learners.on_policy.stacks import RolloutStacks
from simreal.learners.options import PPOConfig
from simreal.learners.pixels.encoder import shifted
from simreal.learners.pixels.layout import PixelLayout
from simreal.learners.pixels.policy import PixelPolicy


@dataclass(frozen=True)
class _Features(HistoryLayout):
    """What an encoder makes of pictures, in the place of a history."""

    encoded: int = 0

    @property
    def steps(self) -> int:
        """None of what else there is."""
        return 0

    @property
    def inputs(self) -> int:
        """The features."""
        return self.encoded

    @property
    def size(self) -> int:
        """Not 0."""
        return self.encoded


class OnPolicyPixelPolicy(PixelPolicy):
    """With an actor of `simreal.learners.on_policy`."""

    def of_features(self, x: Tensor) -> Tensor:
        """What the actor sees [B, n] -> action [B, A] in [-1, 1]."""
        return self.actor(x.unsqueeze(0), x[:, :0])[0].mode().squeeze(0)

    def undecided(self, tolerance: float, pictures: Tensor, components: Tensor) -> Tensor:
        """[B] where rounding may decide between two actions; see `Distribution.undecided`."""
        x = self.seen(self.encoder(self.layout.cropped(pictures)), components)
        return self.actor(x.unsqueeze(0), x[:, :0])[0].undecided(tolerance).squeeze(0)


class StateCritic(Critic):
    """V(s) of what stands behind what the actor sees.

    Args:
        skipped: values that the actor sees.
        size: of the state.
        config: of the network.
    """

    def __init__(self, skipped: int, size: int, config: PPOConfig) -> None:
        super().__init__(0, size, config)
        self._skipped = skipped

    def forward(self, x: Tensor, state: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Critic.forward`."""
        return super().forward(x[..., self._skipped :], state, start)


class PixelPPO(PPO):
    """The learner; see `PPO`. Rows are the components beside the pictures, then, for a critic that reads it, the state:
    the policy group and the privileged one."""

    ROWS = None

    def __init__(self, spec: LearnerSpec, config: PPOConfig, seed: int, total_steps: int | None = None) -> None:
        assert spec.pixels is not None
        self.layout: PixelLayout = spec.pixels
        refused: dict[str, tuple[Any, Any]] = {
            "memory": (config.memory, "none"), "observation_history": (config.observation_history, 0),
            "action_history": (config.action_history, 0), "mirror_coef": (config.mirror_coef, 0.0),
            "actor_reads": (config.actor_reads, "policy"), "initial_policy": (config.initial_policy, None),
            "objective": ("trpo" if config.objective == "trpo" else None, None),
        }  # fmt: skip
        for name, (value, expected) in refused.items():
            if value != expected:
                what = "another than trpo" if name == "objective" else "null" if expected is None else expected
                raise ValueError(f"{name}: {value!r} does not go with pictures; expected {what}")
        super().__init__(spec, config, seed, total_steps)
        if not config.privileged_critic:  # then it knows nothing of the world
            self.critic.normalizer.passed = 0

    def _inputs(self) -> tuple[int, int]:
        spec, config = self.spec, self.config
        privileged = spec.privileged_size if config.privileged_critic else 0
        return (spec.observation_size + privileged if self.layout.state_critic else 0), len(self.layout.columns)

    def _remembered(self) -> HistoryLayout:
        return _Features(0, 0, 0, self.spec.action_size, self.layout.features)

    def _make_networks(self, layout: HistoryLayout, privileged: int) -> tuple[Any, Any, Critic]:
        config, device, seen = self.config, self.spec.device, self._reads + layout.inputs
        make = CategoricalActor if config.actor == "categorical" else GaussianActor
        actor = make(seen, self.spec.action_size, config)
        network = OnPolicyPixelPolicy(self.layout, make_normalizer(self._reads, config), actor).to(device)
        critic = StateCritic(seen, privileged, config) if self.layout.state_critic else Critic(seen, 0, config)
        return network, network, critic.to(device)

    def _make_stacks(self, layout: HistoryLayout) -> RolloutStacks:
        return PixelStacks(layout, self.rollout, self.layout, self.network, self.generator)

    def _raw(self, observed: Observed) -> Tensor:
        policy = observed.policy.to(self.spec.device)
        parts = [self.layout.beside(policy)]
        if self.layout.state_critic:
            parts.append(policy)
            if self.config.privileged_critic and self.spec.privileged_size:
                assert observed.privileged is not None
                parts.append(observed.privileged.to(policy))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A] drawn from the policy; what led to them goes into the rollout."""
        self._shown(self.rollout.time, observed)
        return super().act(observed)

    @torch.no_grad()
    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Take in the step that the last `act` led to."""
        stacks, after = self.stacks, self.rollout.time + 1
        assert isinstance(stacks, PixelStacks)
        stacks.final = result.final.pictures
        if after == self.rollout.horizon:
            self._shown(after, result.observed)
        super().record(observed, action, result)

    def _shown(self, t: int, observed: Observed) -> None:
        assert isinstance(self.stacks, PixelStacks)
        assert observed.pictures is not None
        self.stacks.show(t, observed.pictures)

    def _values(self, x: Tensor, state: Tensor, start: Tensor) -> Tensor:
        if not self.layout.state_critic:
            return super()._values(x, state, start)
        return self.critic(self._beside(x[0], x.new_zeros(x.shape[1], self.layout.features))[None], state)[0]


class PixelStacks(RolloutStacks):
    """Pictures along a rollout of T steps, and of K - 1 steps before it, each once; what the encoder makes of them.

    Args:
        layout, rollout: see `RolloutStacks`.
        pixels: what is looked at.
        network: whose encoder looks.
        generator: of the moves of pictures that are learnt from.

    Attributes:
        final: [N, height, width, 3] what the last step led to.
    """

    def __init__(
        self,
        layout: HistoryLayout,
        rollout: RolloutBuffer,
        pixels: PixelLayout,
        network: PixelPolicy,
        generator: torch.Generator,
    ) -> None:
        super().__init__(layout, rollout)
        self._pixels, self._network, self._generator = pixels, network, generator
        rows, count = pixels.stack + rollout.horizon, rollout.action.shape[1]
        self._frames = torch.zeros(rows, count, *pixels.seen, 3, dtype=torch.uint8)
        self.final: Tensor | None = None

    def show(self, t: int, pictures: Tensor) -> None:
        """Take in the pictures [N, height, width, 3] of row t."""
        self._frames[self._pixels.stack - 1 + t] = self._pixels.cropped(pictures.cpu())

    def before_final(self, t: int) -> Tensor:
        """Features [N, n] of what step t led to."""
        stack = self._stack(self.age[t] + 1, torch.full_like(self._every, t + 1), self._every)
        assert self.final is not None
        stack[:, -1] = self._pixels.cropped(self.final.cpu())
        return self._features(stack)

    def _gathered(self, age: Tensor, row: Tensor, column: Tensor) -> Tensor:
        stack = self._stack(age, row, column)
        if torch.is_grad_enabled():
            stack = shifted(stack, self._pixels.shift, self._generator)
        return self._features(stack)

    def _features(self, stack: Tensor) -> Tensor:
        return self._network.encoder(stack.to(self.age.device))

    def _stack(self, age: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Stacks [B, K, h, w, 3] at rows [B] of environments [B], whose episodes are `age` [B] steps old there."""
        age, row, column = (value.cpu() for value in (age, row, column))
        back = torch.arange(self._pixels.stack - 1, -1, -1)
        rows = row[:, None] - torch.minimum(back, age[:, None]) + self._pixels.stack - 1
        places = rows * len(self._every) + column[:, None]
        return self._frames.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)

    def record(self, t: int, action: Tensor, done: Tensor) -> None:
        """Take in which episodes ended with step t."""
        self.age[t + 1] = (self.age[t] + 1).masked_fill(done, 0)

    def turn(self, last: Tensor) -> None:
        """Begin another rollout."""
        past, horizon = self._pixels.stack - 1, self._rollout.horizon
        self._frames[:past] = self._frames[horizon : horizon + past].clone()
        self.age[0] = self.age[-1]

    def state_dict(self) -> dict[str, Any]:
        """What later steps depend on."""
        return {"age": self.age, "frames": self._frames[: self._pixels.stack + self._rollout.time]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.age.copy_(state["age"])
        self._frames[: len(state["frames"])] = state["frames"]
