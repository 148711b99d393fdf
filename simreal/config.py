"""The one schema of a run: what may stand in a YAML file, with defaults, ranges and units."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Unknown keys are errors; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OffPolicyConfig(Strict):
    """What SAC and DDPG share."""

    hidden: tuple[int, ...] = Field((256, 256), min_length=1, description="units of each hidden layer")
    actor_lr: float = Field(1e-3, gt=0, description="Adam step size of the policy")
    critic_lr: float = Field(1e-3, gt=0, description="Adam step size of the critics")
    gamma: float = Field(0.98, ge=0, lt=1, description="discount per control step")
    tau: float = Field(0.005, gt=0, le=1, description="share of the online weights mixed into the targets per update")
    batch_size: int = Field(256, ge=1)
    replay_size: int = Field(1_000_000, ge=1, description="transitions kept")
    her_k: float = Field(4.0, ge=0, description="hindsight goals per original goal, for goal tasks; 0 for none")
    warmup_steps: int = Field(1000, ge=0, description="environment steps with random actions before learning")
    updates_per_step: float = Field(1.0, gt=0, description="updates per environment step, in the long run")
    updates_per_cycle: int = Field(1, ge=1, description="updates are made in groups of at least this many")
    target_limits: tuple[float, float] | None = Field(
        None, description="lowest and highest possible return; targets are clipped to it"
    )
    observation_clip: float = Field(5.0, gt=0, description="largest normalized observation")


class DDPGConfig(OffPolicyConfig):
    """Deep deterministic policy gradient."""

    algorithm: Literal["ddpg"] = "ddpg"
    exploration_noise: float = Field(0.2, ge=0, description="standard deviation of the noise on actions")
    exploration_random: float = Field(0.3, ge=0, le=1, description="share of uniformly random actions")
    action_penalty: float = Field(1.0, ge=0, description="weight of the mean squared pre-tanh action")


class SACConfig(OffPolicyConfig):
    """Soft actor-critic with automatic temperature."""

    algorithm: Literal["sac"] = "sac"
    alpha_lr: float = Field(3e-4, gt=0, description="Adam step size of log alpha")
    initial_alpha: float = Field(0.1, gt=0, description="temperature at the start")
    target_entropy: float | None = Field(None, description="nats; None is minus the number of actions")
