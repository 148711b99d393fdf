"""Returns and advantages against numbers worked out by hand, and against each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from simreal.learners.on_policy.returns import gae, n_step, reward_to_go

# One environment, three steps, gamma = lam = 0.5. Values 4, 8, 16; the states reached are worth 8, 16, 32.
REWARD, VALUE, NEXT = (torch.tensor([[a], [b], [c]]) for a, b, c in ((1.0, 2.0, 3.0), (4.0, 8.0, 16.0), (8.0, 16, 32)))
NEVER = torch.zeros(3, 1, dtype=torch.bool)
SECOND = torch.tensor([[False], [True], [False]])


def column(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def advantages(terminated: Tensor, truncated: Tensor, next_value: Tensor = NEXT) -> Tensor:
    return gae(REWARD, VALUE, next_value, terminated, truncated, gamma=0.5, gae_lambda=0.5)


def test_gae_of_an_episode_that_goes_on():
    # delta = 1 + 4 - 4 = 1, 2 + 8 - 8 = 2, 3 + 16 - 16 = 3
    # A_2 = 3, A_1 = 2 + 0.25 * 3 = 2.75, A_0 = 1 + 0.25 * 2.75 = 1.6875
    assert torch.equal(advantages(NEVER, NEVER), column(1.6875, 2.75, 3.0))


def test_gae_of_a_terminated_episode_expects_nothing_after_it():
    # delta_1 = 2 + 0 - 8 = -6 = A_1; A_0 = 1 + 0.25 * -6 = -0.5; step 2 is a new episode
    assert torch.equal(advantages(SECOND, NEVER), column(-0.5, -6.0, 3.0))


def test_gae_of_a_truncated_episode_bootstraps_from_its_final_state_and_goes_no_further():
    # The final state is worth 20, not the 16 of the new episode: delta_1 = 2 + 10 - 8 = 4 = A_1; A_0 = 1 + 0.25 * 4 = 2
    assert torch.equal(advantages(NEVER, SECOND, column(8.0, 20.0, 32.0)), column(2.0, 4.0, 3.0))


def test_termination_wins_where_an_episode_is_also_truncated():
    assert torch.equal(advantages(SECOND, SECOND), advantages(SECOND, NEVER))


def test_environments_do_not_mix():
    both = torch.cat((NEVER, SECOND), dim=1)
    reward, value, following = (each.expand(3, 2) for each in (REWARD, VALUE, NEXT))
    result = gae(reward, value, following, both, torch.zeros_like(both), gamma=0.5, gae_lambda=0.5)
    assert torch.equal(result, torch.cat((advantages(NEVER, NEVER), advantages(SECOND, NEVER)), dim=1))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # G_t = r_t + 0.5 V(s'_t): 1 + 4, 2 + 8, 3 + 16
        (1, (5.0, 10.0, 19.0)),
        # G_0 = 1 + 0.5 * 10, G_1 = 2 + 0.5 * 19; the rollout ends after step 2
        (2, (6.0, 11.5, 19.0)),
        # G_0 = 1 + 0.5 * 11.5
        (3, (6.75, 11.5, 19.0)),
        (9, (6.75, 11.5, 19.0)),
    ],
)
def test_n_step_returns(steps: int, expected: tuple[float, ...]):
    assert torch.equal(n_step(REWARD, NEXT, NEVER, NEVER, gamma=0.5, steps=steps), column(*expected))


def test_n_step_returns_stop_at_the_end_of_an_episode():
    # terminated: G_1 = 2, G_0 = 1 + 0.5 * 2; truncated: G_1 = 2 + 8, G_0 = 1 + 0.5 * 10
    assert torch.equal(n_step(REWARD, NEXT, SECOND, NEVER, gamma=0.5, steps=3), column(2.0, 2.0, 19.0))
    assert torch.equal(n_step(REWARD, NEXT, NEVER, SECOND, gamma=0.5, steps=3), column(6.0, 10.0, 19.0))


def test_reward_to_go_sums_to_the_end_of_the_episode():
    # cut off by the rollout: G_2 = 3 + 16 = 19, G_1 = 2 + 9.5, G_0 = 1 + 5.75
    assert torch.equal(reward_to_go(REWARD, NEXT, NEVER, NEVER, gamma=0.5), column(6.75, 11.5, 19.0))
    # the last step terminates: G_2 = 3, G_1 = 2 + 1.5, G_0 = 1 + 1.75
    last = torch.tensor([[False], [False], [True]])
    assert torch.equal(reward_to_go(REWARD, NEXT, last, NEVER, gamma=0.5), column(2.75, 3.5, 3.0))
    # truncated at step 1: G_1 = 2 + 8, G_0 = 1 + 5
    assert torch.equal(reward_to_go(REWARD, NEXT, NEVER, SECOND, gamma=0.5), column(6.0, 10.0, 19.0))


def test_the_three_estimators_agree_at_their_limits():
    draw = torch.Generator().manual_seed(0)
    reward, value, beyond = (torch.randn(40, 8, generator=draw, dtype=torch.float64) for _ in range(3))
    terminated, truncated = (torch.rand(40, 8, generator=draw) < 0.1 for _ in range(2))
    done = terminated | truncated
    goes_on = torch.cat((value[1:], beyond[-1:]))
    next_value = torch.where(done, beyond, goes_on)
    ends = (next_value, terminated, truncated)
    long = reward_to_go(reward, *ends, gamma=0.9)
    torch.testing.assert_close(n_step(reward, *ends, gamma=0.9, steps=40), long)
    torch.testing.assert_close(gae(reward, value, *ends, gamma=0.9, gae_lambda=1.0) + value, long)
    one = n_step(reward, *ends, gamma=0.9, steps=1)
    torch.testing.assert_close(gae(reward, value, *ends, gamma=0.9, gae_lambda=0.0) + value, one)
