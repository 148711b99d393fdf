"""Soft actor-critic on pictures: SAC (`simreal.learners.off_policy.sac`), an encoder, and pictures that are moved at
random when learnt from (DrQ: Kostrikov, Yarats and Fergus 2020, arXiv 2004.13649).

With a critic that reads pictures too, both share the encoder, which learns from the critic's loss alone; there is one
move of each picture, and the target's critic reads the same encoder's numbers (DrQ-v2: Yarats et al. 2021,
arXiv 2107.09645, section 3). With one that reads the state (Pinto et al. 2017, arXiv 1710.06542), the encoder learns
from the actor's loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from envs.environment import Observed, StepResult
from simreal.learners.adam import Adam
from simreal.learners.base import LearnerSpec
from simreal.learners.networks import GaussianActor, QNetwork
from simreal.learners.normalizer import Normalizer, make_normalizer
from simreal.learners.off_policy.base import OffPolicyLearner
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.learners.off_policy.sac import sac_target
from simreal.learners.off_policy.transitions import ReplayBatch, States
from simreal.learners.options import SACConfig
from simreal.learners.pixels.encoder import shifted
from simreal.learners.pixels.frames import PixelReplay
from simreal.learners.pixels.layout import PictureStack, PixelLayout
from simreal.learners.pixels.policy import PixelPolicy


class PixelSAC(OffPolicyLearner):
    """The learner; see `OffPolicyLearner`. The replay's observations are states: the policy group and, for a critic
    that reads them, the privileged group before the goal."""

    NOISES = 2  # for the next action and for the present one
    COLLECTED = None
    ROWS = None
    config: SACConfig
    replay: PixelReplay

    def __init__(self, spec: LearnerSpec, config: SACConfig, seed: int, total_steps: int | None = None) -> None:
        assert spec.pixels is not None
        self.layout: PixelLayout = spec.pixels
        for name in ("average_updates", "observation_history", "action_history"):
            if getattr(config, name):
                raise ValueError(f"{name}: not with pictures, which pixels.stack looks back on; set it to 0")
        if config.privileged_critic:
            raise ValueError("privileged_critic: with pictures observation.critic says it; set it to false")
        k, actions = len(self.layout.columns), spec.action_size
        own, reads = spec.observation_size - spec.goal_size, self.layout.state_critic
        worlds, privileged = (len(spec.parameters), spec.privileged_size) if reads else (0, 0)
        if privileged and spec.hindsight is not None:
            spec.hindsight.check_privileged("observation.critic state")
        self._whole = States(own, privileged, spec.goal_size)
        self._columns = [c if c < own else c + privileged for c in self.layout.columns]
        wide = replace(spec, observation_size=self._whole.size, hindsight=self._whole.widened(spec.hindsight))
        inputs = k + self.layout.features
        super().__init__(wide, config, seed, total_steps, lambda _: GaussianActor(inputs, actions, config.hidden))
        self.network.normalizer = self.states = _StateNormalizer(
            wide.observation_size, config, slice(own + privileged - worlds, own + privileged)
        ).to(spec.device)
        self.policy = self.seeing = PixelPolicy(self.layout, make_normalizer(k, config), self.network.actor).to(
            spec.device
        )
        self.encoder = self.seeing.encoder
        self.critic = QNetwork(2, self.inputs if reads else inputs, actions, config.hidden).to(spec.device)
        self.target_critic = copy.deepcopy(self.critic)
        self._online = [p.data for p in self.critic.parameters()]
        self._targets = [p.data for p in self.target_critic.parameters()]
        self._parts = [list(m.parameters()) for m in (self.encoder, self.network.actor, self.critic)]
        encoder_lr = config.actor_lr if reads else config.critic_lr
        self.encoder_optimizer = Adam(self._parts[0], lr=encoder_lr)
        self.actor_optimizer = Adam(self._parts[1], lr=config.actor_lr)
        self.critic_optimizer = Adam(self._parts[2], lr=config.critic_lr)
        self.log_alpha = nn.Parameter(torch.tensor(config.initial_alpha, device=spec.device).log())
        self.target_entropy = -float(actions) if config.target_entropy is None else config.target_entropy
        self.alpha_optimizer = Adam([self.log_alpha], lr=config.alpha_lr)
        self._optimizers = {
            "encoder_optimizer": encoder_lr, "actor_optimizer": config.actor_lr, "critic_optimizer": config.critic_lr,
            "alpha_optimizer": config.alpha_lr,
        }  # fmt: skip
        self._stack = PictureStack(self.layout.stack)

    def _make_replay(self, *arguments: Any) -> HerReplayBuffer:
        return PixelReplay(self.layout, *arguments)

    def _pictures(self, observed: Observed) -> Tensor:
        """What is looked at [N, h, w, 3]."""
        assert observed.pictures is not None
        return self.layout.cropped(observed.pictures.cpu())

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A] drawn from the policy; uniform ones during the warm-up."""
        stack = self._stack.push(self._pictures(observed))
        if self._warms_up:
            return self._draw(torch.rand, self.spec.action_size) * 2.0 - 1.0
        noise = self._draw(torch.randn, self.spec.action_size)
        components = self.layout.beside(observed.policy.to(self.spec.device)).float()
        seen = self.seeing.seen(self.encoder(stack.to(self.spec.device)), components)
        return self.network.actor.sample(seen, noise)[0]

    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Put one step of every environment into the replay."""
        done = result.done.cpu()
        self.replay.frames.add(self._pictures(observed), self._pictures(result.final), done)
        self._stack.begin(done)
        final = replace(result.final, policy=self._whole.of(result.final))
        super().record(replace(observed, policy=self._whole.of(observed)), action, replace(result, final=final))
        self.seeing.normalizer.update(self.replay.ripened()[:, self._columns])

    def _seen(self, stack: Callable[[Tensor, Tensor], Tensor], states: Tensor, batch: ReplayBatch) -> Tensor:
        """What the actor sees [B, k + features] at pictures of the batch, moved at random, and normalized states."""
        assert batch.time is not None
        assert batch.env is not None
        moved = shifted(stack(batch.time.cpu(), batch.env.cpu()), self.layout.shift, self.generator)
        return torch.cat((states[:, self._columns], self.encoder(moved.to(states.device))), dim=1)

    def _update(self, batch: ReplayBatch, noise: Tensor) -> dict[str, Tensor]:
        config, actor, frames, reads = self.config, self.network.actor, self.replay.frames, self.layout.state_critic
        encoder_weights, actor_weights, critic_weights = self._parts
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            following = self._seen(frames.next_stack, batch.next_observation, batch)
            next_action, next_log_prob = actor.sample(following, noise[0])
            next_q = self.target_critic(batch.next_observation if reads else following, next_action)
            target = sac_target(batch.reward, batch.terminated, next_q, next_log_prob, alpha, config.gamma)
            if config.target_limits is not None:
                target = target.clamp(*config.target_limits)
        present = self._seen(frames.stack, batch.observation, batch)
        judged = batch.observation if reads else present
        q = self.critic(judged, batch.action)
        critic_loss = (q - target).square().sum(0).mean()
        learning = critic_weights if reads else [*critic_weights, *encoder_weights]
        gradients = list(torch.autograd.grad(critic_loss, learning))
        self.critic_optimizer.step(gradients[: len(critic_weights)])

        action, log_prob = actor.sample(present if reads else present.detach(), noise[1])
        policy_q = self.critic(judged.detach(), action).amin(0)
        actor_loss = (alpha * log_prob - policy_q).mean()
        learning = [*actor_weights, *encoder_weights] if reads else actor_weights
        by_actor = list(torch.autograd.grad(actor_loss, learning))
        self.actor_optimizer.step(by_actor[: len(actor_weights)])
        by_encoder = by_actor[len(actor_weights) :] if reads else gradients[len(critic_weights) :]
        self.encoder_optimizer.step(by_encoder)

        entropy = -log_prob.detach().mean()
        self.alpha_optimizer.step([entropy - self.target_entropy])
        self._move_targets()
        return {
            "critic_loss": critic_loss, "q": q.mean(), "policy_q": policy_q.mean(), "entropy": entropy, "alpha": alpha,
            "saturation": (action.abs() > 0.96).float().mean(),
        }  # fmt: skip

    def _stateful(self) -> tuple[str, ...]:
        return (*super()._stateful(), "critic", "target_critic", "states")

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning."""
        return super().state_dict() | {"log_alpha": self.log_alpha.detach().clone(), "stack": self._stack.state_dict()}

    def start_from(self, state: dict[str, Any]) -> None:
        """Begin with the networks, normalizers and temperature of another run's `state_dict`."""
        super().start_from(state)
        self.log_alpha.data.copy_(state["log_alpha"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        super().load_state_dict(state)
        self.log_alpha.data.copy_(state["log_alpha"])
        self._stack.load_state_dict(state["stack"])


class _StateNormalizer(Normalizer):
    """Of states; parameters of the world in them, `as_is`, are let through: see `Normalizer.passed`."""

    def __init__(self, size: int, config: SACConfig, as_is: slice) -> None:
        super().__init__(size, config.observation_clip, active=config.normalize_observation)
        self._as_is = as_is

    def offset(self) -> Tensor:
        """What is subtracted, [size]."""
        found = super().offset().clone()
        found[self._as_is] = 0.0
        return found

    def scale(self) -> Tensor:
        """What is divided by, [size]."""
        found = super().scale().clone()
        found[self._as_is] = 1.0
        return found
