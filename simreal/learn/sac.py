"""Soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905), with hindsight replay.

y  = r + gamma (1 - terminated) (min_i Q'_i(s', a') - alpha log pi(a'|s')),  a' ~ pi(s')
Lq = sum_i mean (Q_i(s, a) - y)^2
Lp = mean (alpha log pi(a|s) - min_i Q_i(s, a)),  a ~ pi(s)
La = -mean log(alpha) (log pi(a|s) + target_entropy)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from envs.environment import Observed, StepResult
from envs.matmul import fast_matmul
from simreal.config import SACConfig
from simreal.learn.adam import Adam
from simreal.learn.averaging import WeightAverage
from simreal.learn.history import ActionHistory, HistoryPolicy, features, stored
from simreal.learn.networks import GaussianActor, QNetwork, polyak_
from simreal.learn.normalizer import make_normalizer
from simreal.learn.problem import Meter, Problem
from simreal.learn.replay import LAG, Batch, Replay, normalized
from simreal.learn.schedule import step_sizes
from simreal.learn.sums import average, total


class SACPolicy(nn.Module):
    """Normalizer and actor: what is exported. Puts out the most likely action."""

    def __init__(self, problem: Problem, config: SACConfig) -> None:
        super().__init__()
        self.normalizer = make_normalizer(problem.observation_size, config)
        size = problem.observation_size + config.action_history * problem.action_size
        self.actor = GaussianActor(size, problem.action_size, config.hidden)

    def forward(self, observation: Tensor, past: Tensor | None = None) -> Tensor:
        """Observation [B, nobs] in SI units, past actions [B, n * A] if it has such -> action [B, A] in [-1, 1]."""
        normalized = self.normalizer(observation)
        return self.actor(normalized if past is None else torch.cat((normalized, past), dim=1))


def sac_target(
    reward: Tensor,
    terminated: Tensor,
    next_q: Tensor,
    next_log_prob: Tensor,
    alpha: Tensor | float,
    gamma: float,
) -> Tensor:
    """y [B]; next_q [members, B] of the target critics. Haarnoja et al. 2018, eq. 2 and 3."""
    soft_value = next_q.amin(dim=0) - alpha * next_log_prob
    return reward + gamma * (1.0 - terminated) * soft_value


class SAC:
    """Learner; see `simreal.learn.problem.Learner`.

    Args:
        total_steps: environment steps of the whole run, for lr_schedule "linear".
    """

    def __init__(self, problem: Problem, config: SACConfig, seed: int, total_steps: int | None = None) -> None:
        self.config, self.problem = config, problem
        device = problem.device
        torch.manual_seed(seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        n, actions = problem.num_envs, problem.action_size
        self.network = SACPolicy(problem, config).to(device)
        self.history = ActionHistory(n, config.action_history, actions, device)
        remembers = config.action_history > 0
        self._average = WeightAverage(self.network, config.average_updates) if config.average_updates else None
        leaving = self.network if self._average is None else self._average.network
        self.policy: nn.Module = HistoryPolicy(leaving, config.action_history, actions) if remembers else leaving
        shape = (problem.observation_size + self.history.size, actions)
        self.critic = QNetwork(2, *shape, config.hidden).to(device)
        self.target_critic = QNetwork(2, *shape, config.hidden).to(device)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.log_alpha = nn.Parameter(torch.tensor(config.initial_alpha, device=device).log())
        self.target_entropy = -float(problem.action_size) if config.target_entropy is None else config.target_entropy
        self._actor_params = list(self.network.actor.parameters())
        self._online = [p.data for p in self.critic.parameters()]
        self._targets = [p.data for p in self.target_critic.parameters()]
        self.actor_optimizer = Adam(self._actor_params, lr=config.actor_lr)
        self.critic_optimizer = Adam(self.critic.parameters(), lr=config.critic_lr)
        self.alpha_optimizer = Adam([self.log_alpha], lr=config.alpha_lr)
        self._step_sizes = step_sizes(
            config, (self.actor_optimizer, self.critic_optimizer, self.alpha_optimizer), total_steps
        )
        self.replay = Replay(
            config.replay_size, problem.num_envs, *shape, problem.goal_size,
            config.her_k if problem.goal_size else 0, problem.hindsight, self.history.size, LAG, device,
        )  # fmt: skip
        self.steps = 0  # environment steps recorded
        self.updates_due = 0.0
        self.updates = 0

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        shape = (self.problem.num_envs, self.problem.action_size)
        if self.steps < self.config.warmup_steps:
            return torch.rand(shape, generator=self.generator, device=self.problem.device) * 2.0 - 1.0
        noise = torch.randn(shape, generator=self.generator, device=self.problem.device)
        values = stored(observed.policy.to(self.problem.device), self.history.actions)
        return self.network.actor.sample(features(values, self.history.size, self.network.normalizer), noise)[0]

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
        noise = torch.randn(
            2, size * count, self.problem.action_size, generator=self.generator, device=self.problem.device
        )
        for i in range(count):
            if before_step is not None:
                before_step()
            rows = slice(i * size, (i + 1) * size)
            meter.add(self._update(batch.rows(rows.start, rows.stop), noise[:, rows]))
            if self._average is not None:
                self._average.add(self.updates + i)
        self.updates += count
        return meter.read() | {"updates": float(self.updates), "replay": float(len(self.replay))}

    def _update(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        config, actor = self.config, self.network.actor
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            next_action, next_log_prob = actor.sample(batch.next_observation, noise[0])
            next_q = self.target_critic(batch.next_observation, next_action)
            target = sac_target(batch.reward, batch.terminated, next_q, next_log_prob, alpha, config.gamma)
            if config.target_limits is not None:
                target = target.clamp(*config.target_limits)
        q = self.critic(batch.observation, batch.action)
        critic_loss = total((q - target).square()) / q.shape[1]
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        action, log_prob = actor.sample(batch.observation, noise[1])
        policy_q = self.critic(batch.observation, action).amin(dim=0)
        actor_loss = average(alpha * log_prob - policy_q)
        gradients = torch.autograd.grad(actor_loss, self._actor_params)
        for parameter, gradient in zip(self._actor_params, gradients, strict=True):
            parameter.grad = gradient
        self.actor_optimizer.step()

        entropy = -average(log_prob.detach())
        self.log_alpha.grad = entropy - self.target_entropy  # derivative of La
        self.alpha_optimizer.step()
        polyak_(self._targets, self._online, config.tau)
        return {
            "critic_loss": critic_loss,
            "q": average(q),
            "policy_q": average(policy_q),
            "entropy": entropy,
            "alpha": alpha,
            "saturation": average((action.detach().abs() > 0.96).float()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "actor": {} if self._average is None else self.network.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            "log_alpha": self.log_alpha.detach().clone(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "history": self.history.actions,
            "generator": self.generator.get_state(),
            "counters": {"steps": self.steps, "updates_due": self.updates_due, "updates": self.updates},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in (
            "policy", "critic", "target_critic", "actor_optimizer", "critic_optimizer", "alpha_optimizer", "replay",
        ):  # fmt: skip
            getattr(self, name).load_state_dict(state[name])
        self.log_alpha.data.copy_(state["log_alpha"])
        if self._average is not None:
            self.network.actor.load_state_dict(state["actor"])
        self.history.actions = state["history"].to(self.problem.device, copy=True)
        self.generator.set_state(state["generator"])
        self.steps = state["counters"]["steps"]
        self.updates_due = state["counters"]["updates_due"]
        self.updates = state["counters"]["updates"]
