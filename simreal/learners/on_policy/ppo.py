"""Proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347) and its family, one loss apart.

With rho = pi(a|s) / pi_old(a|s), A the advantage (`simreal.learners.on_policy.returns`) and mean over all valid steps:

    ppo_clip    Lp = -mean min(rho A, clip(rho, 1 - c, 1 + c) A)
    ppo_kl      Lp = -mean rho A + beta mean KL(pi_old || pi)         beta doubles and halves with the KL
    a2c         Lp = -mean log pi(a|s) A
    reinforce   Lp = -mean log pi(a|s) (G - V(s))                      G: reward to go
    trpo        maximizes mean rho A within a KL bound (`simreal.learners.on_policy.trpo`)

    L = Lp + value_coef mean (V(s) - target)^2 - entropy_coef mean H(pi(.|s))

A truncated episode is bootstrapped from the value of its final observation, a terminated one is not. The steps of an
episode up to one on which the simulation diverged have no weight in any loss and no part in any statistics: before
instability is noticed, numbers are finite and mean nothing.

Actions that leave [-1, 1] are clipped on their way to the environment; the densities are those before clipping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from envs.common.deterministic_ops import mean_all, sum_all
from envs.common.fast_matmul import fast_matmul
from envs.environment import Observed, StepResult
from simreal.learners.adam import Adam
from simreal.learners.base import Learner, LearnerSpec
from simreal.learners.history import HistoryLayout, HistoryPolicy
from simreal.learners.normalizer import Normalizer
from simreal.learners.on_policy.actor_critic import Critic, Policy, RecurrentPolicy, go_on_with, make_policy
from simreal.learners.on_policy.distribution import Distribution
from simreal.learners.on_policy.gaussian import Gaussian
from simreal.learners.on_policy.losses import (
    TINY,
    bound_loss,
    clipped_loss,
    kl_adapted_beta,
    kl_adapted_lr,
    mean,
    policy_gradient_loss,
    shares,
    standardized,
    surrogate_loss,
    value_loss,
)
from simreal.learners.on_policy.returns import estimated
from simreal.learners.on_policy.rollout import Minibatch, RolloutBatch, RolloutBuffer, WholeRollout
from simreal.learners.on_policy.stacks import RolloutStacks
from simreal.learners.on_policy.symmetry import symmetry_loss, with_privileged
from simreal.learners.on_policy.trpo import trust_region_step
from simreal.learners.options import PPOConfig


class PPO(Learner):
    """The learner; see `Learner`."""

    config: PPOConfig
    policy: Policy | RecurrentPolicy | HistoryPolicy
    ROWS = {"rollout": 1, "states": 0, "stacks": 1, "ended": "sum"}  # noqa: RUF012
    NETWORKS = ("policy", "critic")

    def __init__(self, spec: LearnerSpec, config: PPOConfig, seed: int, total_steps: int | None = None) -> None:
        super().__init__(spec, config, seed, total_steps)
        self.recurrent = config.memory != "none"
        segment = config.segment if self.recurrent else 1
        sequences = self.share.total * config.horizon // segment
        if sequences < config.minibatches:
            raise ValueError(f"minibatches: expected at most {sequences} (a rollout's sequences)")
        if config.mirror_coef and spec.mirror is None:
            raise ValueError("mirror_coef: this task has no symmetry, set it to 0")
        privileged, self._reads = self._inputs()
        self._mirror = spec.mirror if config.mirror_coef else None
        if self._mirror is not None and config.reads_privileged:
            self._mirror = with_privileged(self._mirror, spec.privileged_size, spec.parameters)
        layout = self._remembered()
        if layout.size and config.mirror_coef and spec.goal_size:
            raise ValueError("mirror_coef: works without a history in tasks with goals, set one of them to 0")
        self.network, self.policy, self.critic = self._make_networks(layout, privileged)
        self.actor, self._seen = self.network.actor, self._reads + layout.inputs
        reader = self.network if config.reads_privileged else self.critic
        reader.normalizer.passed = len(spec.parameters) if len(reader.normalizer.mean) else 0
        self._young = [self.network.normalizer, self.critic.normalizer]  # know nothing before the first rollout
        for given in spec.policies.get("initial_policy", ()):
            go_on_with(self.policy, config, given)
            self._young = [self.critic.normalizer]
        self._actor_params = list(self.network.parameters())
        self._params = list(self.critic.trunk.parameters())
        if config.objective != "trpo":
            self._params += self._actor_params
        # One vector that all gradients are parts of: cleared, measured and scaled at once.
        self._gradient = torch.zeros(sum(p.numel() for p in self._params), device=spec.device)
        for p, part in zip(self._params, self._gradient.split([p.numel() for p in self._params]), strict=True):
            p.grad = part.view_as(p)
        self.optimizer = Adam(self._params, lr=config.lr, eps=1e-5)
        state_sizes = (self.actor.trunk.state_size, self.critic.trunk.state_size)
        self.rollout = RolloutBuffer(
            config.horizon, segment, spec.num_envs, self._reads + privileged,
            spec.action_size, self.actor.shapes, state_sizes, spec.device, layout.steps,
        )  # fmt: skip
        self.stacks = self._make_stacks(layout)
        self._states = [torch.zeros(spec.num_envs, size, device=spec.device) for size in state_sizes]
        self._next_states = list(self._states)  # after the observation that was last acted on
        self._sync_allowed = spec.device.type == "cpu"  # whether numbers may be copied to the host in each step
        # Sum of the returns of the episodes that ended in this rollout, and their number.
        self._ended = torch.zeros(2, dtype=torch.float64, device=spec.device)
        self.lr, self.beta = config.lr, config.kl_beta

    def _remembered(self) -> HistoryLayout:
        """What networks see beside the present observation."""
        return HistoryLayout.of(self.config, self.spec.observation_size, self.spec.goal_size, self.spec.action_size)

    def _make_networks(self, layout: HistoryLayout, privileged: int) -> tuple[Any, Any, Critic]:
        """The network that learns, the policy that is exported, and a critic that reads `privileged` values more."""
        config, device = self.config, self.spec.device
        policy = make_policy(layout, self._reads, config, device)
        return *policy, Critic(self._reads + layout.inputs, privileged, config).to(device)

    def _make_stacks(self, layout: HistoryLayout) -> RolloutStacks | None:
        return RolloutStacks(layout, self.rollout) if layout.size else None

    def _inputs(self) -> tuple[int, int]:
        """How many values only the critic reads, and how many the policy. Raises ValueError."""
        config, spec = self.config, self.spec
        if not config.reads_privileged:
            return spec.privileged_size if config.privileged_critic else 0, spec.observation_size
        if not spec.privileged_size:
            raise ValueError(
                "actor_reads: this task has no privileged group and nothing is randomized, set it to policy"
            )
        return 0, spec.observation_size + spec.privileged_size

    @torch.no_grad()
    def act(self, observed: Observed) -> Tensor:
        """Actions [N, A] drawn from the policy; what led to them goes into the rollout."""
        rollout, t = self.rollout, self.rollout.time
        raw = self._raw(observed)
        rollout.raw[t], rollout.observation[t] = raw, self._normalized(raw)
        x = self._present(t)
        now, state = self.actor(x[None, :, : self._seen], self._states[0])
        if self.recurrent:
            if t % rollout.segment == 0:
                rollout.actor_state[t // rollout.segment] = self._states[0]
                rollout.critic_state[t // rollout.segment] = self._states[1]
            self._next_states = [state, self.critic(x[None], self._states[1])[1]]
        rollout.action[t] = u = now.sample(self.generator, self.share)[0]
        for name, rows in rollout.distribution.items():
            rows[t] = getattr(now, name).view(-1, *rows.shape[2:])
        return now.action(u)

    @torch.no_grad()
    def record(self, observed: Observed, action: Tensor, result: StepResult) -> None:
        """Take in the step that the last `act` led to; `observed` and `action` are those of `act`."""
        rollout, t = self.rollout, self.rollout.time
        rollout.reward[t] = result.reward
        rollout.terminated[t], rollout.truncated[t] = result.terminated, result.truncated
        rollout.diverged[t] = result.diverged
        if self.updates == 0 and not self.inherits:  # from the first step on; later once per rollout
            self._take_statistics(t, t + 1, ~rollout.diverged, self._young)
        self._states = self._next_states
        if self.stacks is not None:
            self.stacks.record(t, action, result.done)
        if not self._sync_allowed or bool(result.done.any()):
            self._finish(result, t)
        rollout.time += 1
        if rollout.full:
            rollout.observation[rollout.time] = self._normalized(self._raw(result.observed))
        self.steps += self.share.total

    def _finish(self, result: StepResult, t: int) -> None:
        """Value the final observations of truncated episodes; forget what ended episodes left in the memories."""
        if not self._sync_allowed or bool(result.truncated.any()):
            x = self._normalized(self._raw(result.final))
            x = x if self.stacks is None else self._beside(x, self.stacks.before_final(t))
            value, _ = self.critic(x[None], self._states[1])
            self.rollout.final_value[t] = self.critic.unscaled(value[0])
        done = result.done.to(self.spec.device)
        self._states = [state.masked_fill(done[:, None], 0.0) for state in self._states]
        ended = result.done & ~result.diverged
        self._ended += torch.stack((result.episode_return.masked_fill(~ended, 0.0).sum(), ended.sum())).to(self._ended)

    def _raw(self, observed: Observed) -> Tensor:
        """What actor and critic read [N, n], in SI units: the policy group first."""
        policy = observed.policy.to(self.spec.device)
        if self.rollout.raw.shape[2] == policy.shape[1]:
            return policy
        assert observed.privileged is not None
        return torch.cat((policy, observed.privileged.to(policy)), dim=1)

    def _present(self, t: int) -> Tensor:
        """What actor and critic see at row t of the rollout [N, n]."""
        x = self.rollout.observation[t]
        return x if self.stacks is None else self._beside(x, self.stacks.before(t))

    def _beside(self, x: Tensor, remembered: Tensor) -> Tensor:
        """Normalized observations [B, n] with what is remembered [B, inputs] between policy and privileged group."""
        return torch.cat((x[:, : self._reads], remembered, x[:, self._reads :]), dim=1)

    def _complete(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with what is remembered gathered beside its observations."""
        if self.stacks is None:
            return batch
        x = self._beside(batch.observation[0], self.stacks.gather(batch.place[0]))
        return replace(batch, observation=x[None])

    def _normalized(self, raw: Tensor) -> Tensor:
        n = self._reads
        policy = self.network.normalizer(raw[:, :n])
        return policy if raw.shape[1] == n else torch.cat((policy, self.critic.normalizer(raw[:, n:])), dim=1)

    def _take_statistics(self, start: int, stop: int, sound: Tensor, normalizers: list[Normalizer]) -> None:
        """Take the observations of some rows into normalizers, where they are sound [T, N]."""
        raw, sound = self.rollout.raw[start:stop], sound[start:stop]
        values = raw.flatten(0, 1) if bool(sound.all()) else raw[sound]
        n = self._reads
        for normalizer in normalizers:
            part = values[:, :n] if normalizer is self.network.normalizer else values[:, n:]
            if part.shape[1]:
                normalizer.update(part, self.ranks)

    @property
    def _warms_up(self) -> bool:
        """Whether only the critic learns: with the advantages of one that knows nothing a policy would get worse."""
        return self.updates < self.config.critic_warmup

    def ready(self) -> bool:
        """Whether the rollout is full."""
        return self.rollout.full

    @fast_matmul()
    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Learn from the rollout and begin the next one; returns what to log."""
        config = self.config
        whole, log = self._prepare()
        if self.total_steps is not None and config.lr_schedule == "linear":
            done = self.steps - whole.weight.numel()
            self.lr = config.lr * max(1.0 - done / self.total_steps, 0.0)
        trusted = self._trust_region_step(whole) if config.objective == "trpo" and not self._warms_up else {}
        logs: list[dict[str, Tensor]] = []
        for _ in range(config.epochs):
            if not self._epoch(whole, logs, before_step):
                break
        if config.objective == "ppo_kl" and not self._warms_up:
            with torch.no_grad():
                divergence = self._divergence(self._complete(whole.batch), whole.shares())
            self.ranks.sum_(divergence)
            kl = float(divergence)
            self.beta = kl_adapted_beta(self.beta, kl, config.desired_kl)
            log |= {"final_kl": kl, "kl_beta": self.beta}
        if self.updates == 0 and not self.inherits:  # again, without the episodes that turned out to be unsound
            for normalizer in self._young:
                normalizer.forget()
        self._take_statistics(
            0, config.horizon, self.rollout.sound(), [self.network.normalizer, self.critic.normalizer]
        )
        if self.stacks is not None:
            last = self.rollout.raw[config.horizon - self.stacks.layout.steps :]
            self.stacks.turn(self._normalized(last.flatten(0, 1)).unflatten(0, last.shape[:2]))
        self.updates += 1
        self.rollout.time = 0
        # Read once: a look at every minibatch would stall the device.
        means = {name: float(torch.stack([each[name] for each in logs]).mean()) for name in (logs or [{}])[0]}
        return log | means | trusted | {"lr": self.lr}

    @torch.no_grad()
    def _prepare(self) -> tuple[WholeRollout, dict[str, float]]:
        """The rollout as one batch with advantages and targets, and what can be logged of it."""
        config, rollout, critic, cut = self.config, self.rollout, self.critic, self.rollout.segments
        x, start = cut(rollout.observation[:-1]), cut(rollout.start())
        actor_state, critic_state = rollout.actor_state.flatten(0, 1), rollout.critic_state.flatten(0, 1)
        value = rollout.joined(critic.unscaled(self._values(x, critic_state, start)))
        last = critic.unscaled(critic(self._present(config.horizon)[None], self._states[1])[0])
        next_value = torch.where(rollout.truncated, rollout.final_value, torch.cat((value[1:], last)))
        reward = torch.where(rollout.diverged, value, rollout.reward)  # with no next state: worth what was expected
        advantage, target = estimated(
            config.advantage, reward, value, next_value, rollout.terminated | rollout.diverged, rollout.truncated,
            gamma=config.gamma, gae_lambda=config.lam, steps=config.n_steps,
        )  # fmt: skip
        weight = rollout.sound().to(value)
        # Of all ranks: what is one number for each step, all of them compute alike.
        values, targets, advantages, weights = self.share.gather(value, target, advantage, weight, dim=1)
        log = self._statistics(values, targets, weights)
        if config.normalize_value:
            critic.adapt(targets[weights > 0])
        if config.normalize_advantage == "batch":
            advantages = standardized(advantages, shares(weights))
            advantage = self.share.mine(advantages, dim=1)
        actor, rows = self.actor, rollout.distribution
        batch = RolloutBatch(
            observation=x,
            action=cut(rollout.action),
            old=actor.distribution(*(v[:1, :1] if name in actor.shared else cut(v) for name, v in rows.items())),
            old_log_prob=cut(self._collecting().log_prob(rollout.action)),
            old_value=cut(critic.scaled(value)),
            advantage=cut(advantage),
            target=cut(critic.scaled(target)),
            weight=cut(weight),
            start=start if self.recurrent else start[:1, :1],
            actor_state=actor_state[None],
            critic_state=critic_state[None],
            place=torch.arange(1 if self.stacks is None else start.numel(), device=start.device)[None],
        )
        alone = self.ranks.size == 1
        advantages, weights = (batch.advantage, batch.weight) if alone else (cut(advantages), cut(weights))
        return WholeRollout(batch, advantages, weights, self.share), log

    def _values(self, x: Tensor, state: Tensor, start: Tensor) -> Tensor:
        """The critic's values [L, B] of the steps of a rollout, in normalized units."""
        if self.stacks is None:
            return self.critic(x, state, start)[0]
        places = torch.arange(x.shape[1], device=x.device).tensor_split(self.config.minibatches)
        seen = (self._beside(x[0, place], self.stacks.gather(place)) for place in places)
        return torch.cat([self.critic(part[None], state)[0] for part in seen], dim=1)

    def _statistics(self, value: Tensor, target: Tensor, weight: Tensor) -> dict[str, float]:
        share = shares(weight)
        error, spread = (mean((x - mean(x, share)).square(), share) for x in (target - value, target))
        collecting = self._collecting()
        action = collecting.action(self.rollout.action)
        log = {
            "explained_variance": float(1.0 - error / spread.clamp(min=TINY)),
            "action_std": float(self.share.mean(mean_all(collecting.std()))),
            "saturation": float(self.share.mean(mean_all((action.abs() > 0.96).float()))),
        }
        self.ranks.sum_(self._ended)
        total, count = self._ended.tolist()
        if count:
            log["rollout_return"] = total / count
        self._ended.zero_()
        return log

    def _collecting(self) -> Distribution:
        """The distributions over [T, N, A] that the actions of the rollout were drawn from."""
        return self.actor.distribution(**self.rollout.distribution)

    def _epoch(
        self, whole: WholeRollout, logs: list[dict[str, Tensor]], before_step: Callable[[], None] | None
    ) -> bool:
        """One pass over the rollout in random order. False if the KL went beyond what is allowed."""
        config, device = self.config, self.spec.device
        order = torch.randperm(whole.weight.shape[1], generator=self.generator, device=device)
        standardize = config.normalize_advantage == "minibatch"
        for part in whole.minibatches(order, config.minibatches, standardize):
            if before_step is not None:
                before_step()
            loss, log = self._loss(part)
            self._gradient.zero_()
            loss.backward()
            log = self.ranks.summed(self._gradient, log)
            if config.target_kl is not None and "kl" in log and float(log["kl"]) > 1.5 * config.target_kl:
                return False
            if config.lr_schedule == "kl_adaptive" and "kl" in log:
                self.lr = kl_adapted_lr(self.lr, float(log["kl"]), config.desired_kl, config.lr_limits)
            self.optimizer.lr = self.lr
            log["grad_norm"] = norm = self._gradient.norm()
            self._gradient.mul_((config.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
            self.optimizer.step()
            logs.append(log)
        return True

    def _loss(self, part: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss [], and what can be logged: on many ranks, summands of both."""
        config, share, batch = self.config, part.share, self._complete(part.batch)
        value, _ = self.critic(batch.observation, batch.critic_state[0], batch.start)
        critic_loss = value_loss(value, batch.old_value, batch.target, share, config.value_clip)
        if config.objective == "trpo" or self._warms_up:  # the policy has made its step, or makes none
            return config.value_coef * critic_loss, {"value_loss": critic_loss.detach()}
        now = self._distribution(batch)
        log_prob = now.log_prob(batch.action)
        ratio = torch.exp(log_prob - batch.old_log_prob)
        advantage = batch.advantage
        with torch.set_grad_enabled(config.objective == "ppo_kl"):  # elsewhere for the log and the step size only
            kl = mean(batch.old.kl(now), share)
        if config.objective == "ppo_clip":
            policy_loss = clipped_loss(ratio, advantage, share, config.clip)
        elif config.objective == "ppo_kl":
            policy_loss = surrogate_loss(ratio, advantage, share) + self.beta * kl
        else:
            policy_loss = policy_gradient_loss(log_prob, advantage, share)
        with torch.set_grad_enabled(config.entropy_coef > 0.0):
            entropy = now.entropy(batch.action)
            entropy = entropy * sum_all(share) if entropy.dim() == 0 else mean(entropy, share)
        loss = policy_loss + config.value_coef * critic_loss - config.entropy_coef * entropy
        outside = (ratio.detach() - 1.0).abs() > config.clip
        log = {"policy_loss": policy_loss, "value_loss": critic_loss, "entropy": entropy, "kl": kl}
        if config.bound_coef and isinstance(now, Gaussian):
            log["bound_loss"] = bound_loss(now.mean, share)
            loss = loss + config.bound_coef * log["bound_loss"]
        if self._mirror is not None and isinstance(self.network, Policy):
            layout = None if self.stacks is None else self.stacks.layout
            x = batch.observation[..., : self._seen]
            log["mirror_loss"] = part.part * symmetry_loss(self.network, x, now, self._mirror, layout)
            loss = loss + config.mirror_coef * log["mirror_loss"]
        return loss, {k: v.detach() for k, v in log.items()} | {"clip_fraction": mean(outside.float(), share)}

    def _distribution(self, batch: RolloutBatch) -> Distribution:
        """The present policy's, over [L, B, A]."""
        return self.actor(batch.observation[..., : self._seen], batch.actor_state[0], batch.start)[0].rowwise()

    def _divergence(self, batch: RolloutBatch, share: Tensor) -> Tensor:
        """Mean KL(old || present policy) [] over the batch."""
        return mean(batch.old.kl(self._distribution(batch)), share)

    def _trust_region_step(self, whole: WholeRollout) -> dict[str, float]:
        config, share, batch = self.config, whole.shares(), self._complete(whole.batch)

        def surrogate() -> Tensor:
            now = self._distribution(batch)
            ratio = torch.exp(now.log_prob(batch.action) - batch.old_log_prob)
            entropy = now.entropy(batch.action).expand_as(share)
            return config.entropy_coef * mean(entropy, share) - surrogate_loss(ratio, batch.advantage, share)

        log = trust_region_step(
            surrogate, lambda: self._divergence(batch, share), self._actor_params, config.desired_kl,
            iterations=config.cg_iterations, damping=config.cg_damping, ranks=self.ranks,
        )  # fmt: skip
        return {name: float(value) for name, value in log.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rollout": self.rollout.state_dict(),
            "states": [self._states, self._next_states],
            "generator": self.generator.get_state(),
            "counters": {"steps": self.steps, "updates": self.updates, "lr": self.lr, "beta": self.beta}
            | ({"inherits": True} if self.inherits else {}),
            "ended": self._ended.clone(),
            "stacks": None if self.stacks is None else self.stacks.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name in ("policy", "critic", "optimizer", "rollout"):
            getattr(self, name).load_state_dict(state[name])
        if self.stacks is not None:
            self.stacks.load_state_dict(state["stacks"])
        self._states, self._next_states = ([s.to(self.spec.device) for s in pair] for pair in state["states"])
        self.generator.set_state(state["generator"])
        self._ended.copy_(state["ended"])
        for name, value in state["counters"].items():
            setattr(self, name, value)
