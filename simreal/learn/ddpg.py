"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv 1509.02971), with hindsight replay.

    y  = r + gamma (1 - terminated) Q'(s', mu'(s'))          clipped to what the rewards allow
    Lq = mean (Q(s, a) - y)^2
    Lp = -mean Q(s, mu(s)) + action_penalty mean u(s)^2      u: what goes into the policy's tanh

The penalty is that of Plappert et al. 2018 (arXiv 1802.09464, section 2.4): without it tanh saturates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from envs.environment import Observed, StepResult
from envs.matmul import fast_matmul
from simreal.config import DDPGConfig
from simreal.learn.adam import Adam
from simreal.learn.averaging import WeightAverage
from simreal.learn.history import ActionHistory, HistoryPolicy, stored
from simreal.learn.networks import DeterministicActor, QNetwork, polyak_
from simreal.learn.normalizer import make_normalizer
from simreal.learn.problem import Meter, Problem
from simreal.learn.replay import LAG, Batch, Replay, normalized
from simreal.learn.schedule import step_sizes
from simreal.learn.sums import average


class DDPGPolicy(nn.Module):
    """Normalizer and actor: what is exported."""

    def __init__(self, problem: Problem, config: DDPGConfig) -> None:
        super().__init__()
        self.normalizer = make_normalizer(problem.observation_size, config)
        size = problem.observation_size + config.action_history * problem.action_size
        self.actor = DeterministicActor(size, problem.action_size, config.hidden)

    def forward(self, observation: Tensor, past: Tensor | None = None) -> Tensor:
        """Observation [B, nobs] in SI units, past actions [B, n * A] if it has such -> action [B, A] in [-1, 1]."""
        normalized = self.normalizer(observation)
        return self.actor(normalized if past is None else torch.cat((normalized, past), dim=1))


def ddpg_target(
    reward: Tensor, terminated: Tensor, next_q: Tensor, gamma: float, limits: tuple[float, float] | None
) -> Tensor:
    """y [B] = r + gamma (1 - terminated) Q', clipped to `limits` where given. Lillicrap et al. 2016, eq. 5."""
    target = reward + gamma * (1.0 - terminated) * next_q
    return target if limits is None else target.clamp(*limits)


class DDPG:
    """Learner; see `simreal.learn.problem.Learner`.

    Args:
        total_steps: environment steps of the whole run, for lr_schedule "linear".
    """

    def __init__(self, problem: Problem, config: DDPGConfig, seed: int, total_steps: int | None = None) -> None:
        self.config, self.problem = config, problem
        device = problem.device
        torch.manual_seed(seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        n, actions = problem.num_envs, problem.action_size
        self.network = DDPGPolicy(problem, config).to(device)
        self.history = ActionHistory(n, config.action_history, actions, device)
        remembers = config.action_history > 0
        self._average = WeightAverage(self.network, config.average_updates) if config.average_updates else None
        leaving = self.network if self._average is None else self._average.network
        self.policy: nn.Module = HistoryPolicy(leaving, config.action_history, actions) if remembers else leaving
        shape = (problem.observation_size + self.history.size, actions)
        self.critic = QNetwork(1, *shape, config.hidden).to(device)
        self.target_actor = DeterministicActor(*shape, config.hidden).to(device)
        self.target_critic = QNetwork(1, *shape, config.hidden).to(device)
        self.target_actor.load_state_dict(self.network.actor.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())
        self._actor_params = list(self.network.actor.parameters())
        self._online = [p.data for p in (*self._actor_params, *self.critic.parameters())]
        self._targets = [p.data for p in (*self.target_actor.parameters(), *self.target_critic.parameters())]
        self.actor_optimizer = Adam(self._actor_params, lr=config.actor_lr)
        self.critic_optimizer = Adam(self.critic.parameters(), lr=config.critic_lr)
        self._step_sizes = step_sizes(config, (self.actor_optimizer, self.critic_optimizer), total_steps)
        self.replay = Replay(
            config.replay_size, problem.num_envs, *shape, problem.goal_size,
            config.her_k if problem.goal_size else 0, problem.hindsight, self.history.size, LAG, device,
        )  # fmt: skip
        self.steps = 0  # environment steps recorded
        self.updates_due = 0.0
        self.updates = 0

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        n, a = self.problem.num_envs, self.problem.action_size
        random = torch.rand(n, a, generator=self.generator, device=self.problem.device) * 2.0 - 1.0
        if self.steps < self.config.warmup_steps:
            return random
        past = self.history.actions if self.history.size else None
        action = self.network(observed.policy.to(self.problem.device), past)
        noise = torch.randn(n, a, generator=self.generator, device=self.problem.device)
        action = (action + self.config.exploration_noise * noise).clamp(-1.0, 1.0)
        uniform = torch.rand(n, 1, generator=self.generator, device=self.problem.device)
        return torch.where(uniform < self.config.exploration_random, random, action)

    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        final, past = result.final, self.history
        self.replay.add(
            stored(observed.policy, past.actions), action, result.reward, stored(final.policy, past.after(action)),
            result.terminated, result.done, final.achieved_goal, result.diverged, result.success,
        )  # fmt: skip
        past.advance(action, result.done)
        self.network.normalizer.update(self.replay.ripened())
        self.steps += self.problem.num_envs
        if self.steps >= self.config.warmup_steps:
            self.updates_due += self.config.updates_per_step * self.problem.num_envs

    def ready(self) -> bool:
        return int(self.updates_due) >= self.config.updates_per_cycle and self.replay.sound()

    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        with fast_matmul():
            return self._cycle(before_step)

    def _cycle(self, before_step: Callable[[], None] | None) -> dict[str, float]:
        count = int(self.updates_due)
        self.updates_due -= count
        if self._step_sizes is not None:
            self._step_sizes.set(self.steps)
        meter = Meter()
        size = self.config.batch_size
        sampled = self.replay.sample(size * count, self.generator)
        batch = normalized(sampled, self.network.normalizer, self.history.size)
        for i in range(count):
            if before_step is not None:
                before_step()
            meter.add(self._update(batch.rows(i * size, (i + 1) * size)))
            if self._average is not None:
                self._average.add(self.updates + i)
        self.updates += count
        return meter.read() | {"updates": float(self.updates), "replay": float(len(self.replay))}

    def _update(self, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        with torch.no_grad():
            next_q = self.target_critic(batch.next_observation, self.target_actor(batch.next_observation))[0]
            target = ddpg_target(batch.reward, batch.terminated, next_q, config.gamma, config.target_limits)
        q = self.critic(batch.observation, batch.action)[0]
        critic_loss = average((q - target).square())
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        preactivation = self.network.actor.preactivation(batch.observation)
        self.critic.requires_grad_(False)  # or an update of many rows would compute its gradient here too
        policy_q = self.critic(batch.observation, torch.tanh(preactivation))[0]
        self.critic.requires_grad_(True)
        penalty = average(preactivation.square())
        actor_loss = config.action_penalty * penalty - average(policy_q)
        gradients = torch.autograd.grad(actor_loss, self._actor_params)
        for parameter, gradient in zip(self._actor_params, gradients, strict=True):
            parameter.grad = gradient
        self.actor_optimizer.step()
        polyak_(self._targets, self._online, config.tau)
        return {
            "critic_loss": critic_loss,
            "q": average(q),
            "policy_q": average(policy_q),
            "saturation": average((preactivation.detach().abs() > 2.0).float()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "actor": {} if self._average is None else self.network.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "target_actor": self.target_actor.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "history": self.history.actions,
            "generator": self.generator.get_state(),
            "counters": {"steps": self.steps, "updates_due": self.updates_due, "updates": self.updates},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("policy", "critic", "target_actor", "target_critic", "actor_optimizer", "critic_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.replay.load_state_dict(state["replay"])
        if self._average is not None:
            self.network.actor.load_state_dict(state["actor"])
        self.history.actions = state["history"].to(self.problem.device, copy=True)
        self.generator.set_state(state["generator"])
        self.steps = state["counters"]["steps"]
        self.updates_due = state["counters"]["updates_due"]
        self.updates = state["counters"]["updates"]
