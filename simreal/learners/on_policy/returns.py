"""Returns and advantages of a rollout. Pure functions; rows are steps, columns environments.

All of them take the same description of a rollout of T steps in N environments:

    reward      [T, N]  r_t
    value       [T, N]  V(s_t), the state in which action t was chosen
    next_value  [T, N]  V(s'_t), the state that action t led to, before any reset
    terminated  [T, N]  the episode ended in s'_t: nothing follows, so s'_t is worth 0
    truncated   [T, N]  the episode was cut off in s'_t: it would have gone on, so s'_t is worth V(s'_t)

The last row is cut off by the end of the rollout, and counts as truncated whatever it says.
The masks may be bool or 0 and 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalized advantages [T, N] (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
    A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}
    """
    alive = 1.0 - terminated.to(reward.dtype)
    delta = torch.addcmul(reward - value, alive, next_value, value=gamma)
    decay = gamma * gae_lambda * alive * (1.0 - truncated.to(reward.dtype))
    return _discounted_sum(delta, decay, torch.zeros_like(reward[0]))


def n_step(
    reward: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, *, gamma: float, steps: int
) -> Tensor:
    """Returns [T, N] that bootstrap after `steps` steps, or where the episode or the rollout ends before.

    G1_t = r_t + gamma (1 - terminated_t) V(s'_t)
    Gn_t = G1_t where the episode ends at t, else r_t + gamma G(n-1)_{t+1}

    Sutton and Barto 2018, eq. 7.1; n = 1 is the one-step target of A2C (Mnih et al. 2016, arXiv 1602.01783).
    """
    bootstrapped = torch.addcmul(reward, 1.0 - terminated.to(reward.dtype), next_value, value=gamma)
    goes_on = ~(terminated.bool() | truncated.bool())[:-1]
    result = bootstrapped
    for _ in range(min(steps, len(reward)) - 1):
        longer = torch.where(goes_on, reward[:-1] + gamma * result[1:], bootstrapped[:-1])
        result = torch.cat((longer, bootstrapped[-1:]))
    return result


def reward_to_go(reward: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, *, gamma: float) -> Tensor:
    """Monte Carlo returns [T, N]: every reward to the end of the episode; what was cut off is bootstrapped.

    G_t = r_t + gamma (0 if terminated_t, V(s'_t) if truncated_t or t = T - 1, else G_{t+1})

    Equals `n_step` with steps >= T, and `gae` with lambda = 1 plus the value, in one pass.
    """
    alive = 1.0 - terminated.to(reward.dtype)
    cut = truncated.to(reward.dtype)
    start = torch.addcmul(reward, gamma * alive * cut, next_value)
    return _discounted_sum(start, gamma * alive * (1.0 - cut), next_value[-1])


def estimated(
    kind: str,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Advantages and targets of the value [T, N], by `PPOConfig.advantage`."""
    rollout = (reward, value, next_value, terminated, truncated)
    if kind == "gae":
        advantage = gae(*rollout, gamma=gamma, gae_lambda=gae_lambda)
        return advantage, advantage + value
    if kind == "monte_carlo":
        target = reward_to_go(reward, next_value, terminated, truncated, gamma=gamma)
    else:
        steps = 1 if kind == "one_step" else steps
        target = n_step(reward, next_value, terminated, truncated, gamma=gamma, steps=steps)
    return target - value, target


def _discounted_sum(term: Tensor, decay: Tensor, beyond: Tensor) -> Tensor:
    """S_t = term_t + decay_t S_{t+1}, backwards from S_T = `beyond` [N]; all others [T, N]."""
    result = torch.empty_like(term)
    following = beyond
    rows = zip(term.unbind(), decay.unbind(), result.unbind(), strict=True)
    for present, factor, out in reversed(list(rows)):
        following = torch.addcmul(present, factor, following, out=out)
    return result
