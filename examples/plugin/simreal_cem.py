"""The cross-entropy method on linear policies (Szita and Lorincz 2006), a learner that is not part of simreal.

Every environment plays an episode with weights of its own, drawn from a normal distribution; once `population` episodes
are over, mean and standard deviation become those of the `elite` best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

import simreal


class CEMOptions(simreal.LearnerOptions):
    """What may stand under `learner:` beside `algorithm: cem`."""

    algorithm: Literal["cem"] = "cem"
    population: int = Field(32, ge=2, description="episodes between updates")
    elite: int = Field(8, ge=2, description="best episodes that an update keeps")
    initial_std: float = Field(1.0, gt=0, description="standard deviation of weights at the start")
    extra_std: float = Field(0.1, ge=0, description="added to that of the elite, so that the search goes on")


class CEM(simreal.Learner):
    """Searches for the weights of action = tanh(W observation + b)."""

    def __init__(
        self, spec: simreal.LearnerSpec, config: CEMOptions, seed: int, total_steps: int | None = None
    ) -> None:
        super().__init__(spec, config, seed, total_steps)
        inputs, outputs, n = spec.observation_size, spec.action_size, spec.num_envs
        self.policy = nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh()).to(spec.device)
        size = (inputs + 1) * outputs
        self.mean = torch.zeros(size, device=spec.device)
        self.std = torch.full((size,), config.initial_std, device=spec.device)
        self.weights = self._draw(n)  # [N, size], tried at present
        self.tried = torch.zeros(config.population + n, size + 1, device=spec.device)  # with their returns
        self.count = 0  # rows of `tried`
        self._lead()

    def _draw(self, count: int) -> Tensor:
        noise = torch.randn(count, len(self.mean), generator=self.generator, device=self.spec.device)
        return self.mean + self.std * noise

    def _lead(self) -> None:
        """The policy gets the mean."""
        linear, outputs = self.policy[0], self.spec.action_size
        linear.weight.data.copy_(self.mean[:-outputs].view(outputs, -1))
        linear.bias.data.copy_(self.mean[-outputs:])

    def act(self, observed: simreal.Observed) -> Tensor:
        outputs = self.spec.action_size
        matrix = self.weights[:, :-outputs].view(len(self.weights), outputs, -1)
        product = (matrix * observed.policy.float().unsqueeze(1)).sum(2)
        return torch.tanh(product + self.weights[:, -outputs:])

    def record(self, observed: simreal.Observed, action: Tensor, result: simreal.StepResult) -> None:
        done, count = result.done, int(result.done.sum())
        rows = torch.cat((self.weights[done], result.episode_return[done, None].float()), 1)
        self.tried[self.count : self.count + count] = rows
        self.weights[done] = self._draw(count)
        self.count += count
        self.steps += self.spec.num_envs

    def ready(self) -> bool:
        return self.count >= self.config.population

    def update(self, before_step: Callable[[], None] | None = None) -> dict[str, float]:
        scores = self.tried[: self.count, -1]
        best = self.tried[scores.topk(min(self.config.elite, self.count)).indices, :-1]
        self.mean.copy_(best.mean(0))
        self.std.copy_(best.std(0) + self.config.extra_std)
        self._lead()
        log = {"mean_return": float(scores.mean()), "std": float(self.std.mean())}
        self.count = 0
        self.updates += 1
        return log

    def state_dict(self) -> dict[str, Any]:
        tensors = {name: getattr(self, name) for name in ("mean", "std", "weights", "tried")}
        counters = {name: getattr(self, name) for name in ("count", "steps", "updates")}
        return {"policy": self.policy.state_dict(), "generator": self.generator.get_state(), **tensors, **counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.generator.set_state(state["generator"])
        for name in ("mean", "std", "weights", "tried"):
            getattr(self, name).copy_(state[name])
        self.count, self.steps, self.updates = state["count"], state["steps"], state["updates"]


simreal.register_learner("cem", CEMOptions, CEM)
