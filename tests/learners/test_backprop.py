"""Gradients that are written out are those of torch's autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from envs.common.fast_matmul import fast_matmul
from simreal.learners.networks import LOG_STD_RANGE, EnsembleMLP, Squashed, mlp, tanh_log_slope
from simreal.learners.off_policy.backprop import pass_of

SIZES = [5, 16, 16, 3]
NETS = {
    "plain": lambda: mlp(SIZES),
    "one column": lambda: mlp([5, 16, 1]),
    "no hidden layer": lambda: mlp([5, 3]),
    "ensemble": lambda: EnsembleMLP(2, SIZES),
    "ensemble, one column": lambda: EnsembleMLP(3, [5, 16, 16, 1]),
}


def given(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    y = net(x)
    return y if y.dim() == 3 else y[None]


@pytest.mark.parametrize("rows", [1, 7, 256, 1024, 2500])
@pytest.mark.parametrize("kind", NETS)
def test_a_pass_has_the_bits_of_autograd(kind: str, rows: int) -> None:
    torch.manual_seed(0)
    net, x = NETS[kind](), given(rows, 5).requires_grad_()
    with fast_matmul():
        expected = outputs(net, x)
        gradient = given(*expected.shape)
        by_weights = torch.autograd.grad(expected, [*net.parameters(), x], gradient)
        run = pass_of(net)
        found = run(x.detach())
        assert torch.equal(found, expected)
        for one, other in zip([*run.weights(gradient), run.input(gradient)], by_weights, strict=True):
            assert torch.equal(one, other)


def test_a_pass_sees_weights_that_were_changed_in_place() -> None:
    net, x = mlp(SIZES), given(4, 5)
    run = pass_of(net)
    before = run(x)
    with torch.no_grad():
        next(net.parameters()).mul_(2.0)
    assert torch.equal(run(x)[0], net(x).detach())
    assert not torch.equal(run(x), before)


def test_the_gradient_of_squashed_draws_is_autograds() -> None:
    # The second half are log standard deviations, some of them beyond the limits that they are clipped to.
    raw = torch.cat((given(40, 3), 15.0 * given(40, 3)), dim=1).double().requires_grad_()
    noise, by_action = given(40, 3).double(), given(3, 40).t().double()
    weight = torch.tensor(0.03, dtype=torch.float64)
    drawn = Squashed(raw, noise)
    mean, log_std = raw.chunk(2, dim=-1)
    u = mean + log_std.clamp(*LOG_STD_RANGE).exp() * noise
    density = torch.distributions.Normal(mean, log_std.clamp(*LOG_STD_RANGE).exp()).log_prob(u) - tanh_log_slope(u)
    torch.testing.assert_close(drawn.log_prob(), density.sum(-1))
    loss = (drawn.action * by_action).sum() + weight * drawn.log_prob().sum()
    (expected,) = torch.autograd.grad(loss, raw)
    found = Squashed(raw.detach(), noise).gradient(by_action, weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    beyond = (log_std < LOG_STD_RANGE[0]) | (log_std > LOG_STD_RANGE[1])
    assert beyond.any()
    assert not found[:, 3:][beyond].any()
