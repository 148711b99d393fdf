"""Our Adam makes the steps of torch's."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from simreal.learners.adam import Adam


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (5,), ())]


def move(optimizer: Any, values: list[nn.Parameter], first: int, steps: int) -> None:
    """Steps with gradients that only their number decides."""
    for number in range(first, first + steps):
        generator = torch.Generator().manual_seed(number)
        for value in values:
            value.grad = torch.randn(value.shape, generator=generator)
        optimizer.step()


def same(a: list[nn.Parameter], b: list[nn.Parameter]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("eps", [1e-8, 1e-5])
def test_steps_are_those_of_torch_bit_for_bit(eps: float) -> None:
    ours, theirs = parameters(), parameters()
    mine, torchs = Adam(ours, lr=1e-2, eps=eps), torch.optim.Adam(theirs, lr=1e-2, eps=eps, fused=True)
    move(mine, ours, 0, 20)
    move(torchs, theirs, 0, 20)
    assert same(ours, theirs)
    mine.lr = torchs.param_groups[0]["lr"] = 3e-3
    move(mine, ours, 20, 5)
    move(torchs, theirs, 20, 5)
    assert same(ours, theirs)
    assert not same(ours, parameters())


def test_states_go_both_ways_between_torch_and_us() -> None:
    ours, theirs = parameters(), parameters()
    torchs = torch.optim.Adam(theirs, lr=1e-2, fused=True)
    move(torchs, theirs, 0, 7)
    for value, other in zip(ours, theirs, strict=True):
        value.data.copy_(other.data)
    mine = Adam(ours, lr=5.0)
    mine.load_state_dict(torchs.state_dict())
    move(mine, ours, 7, 7)
    move(torchs, theirs, 7, 7)
    assert same(ours, theirs)
    third = parameters()
    for value, other in zip(third, ours, strict=True):
        value.data.copy_(other.data)
    again = Adam(third, lr=1e-2)
    again.load_state_dict(mine.state_dict())
    move(again, third, 14, 3)
    move(mine, ours, 14, 3)
    assert same(ours, third)


def test_a_state_without_steps_and_one_of_another_network() -> None:
    ours, fresh = parameters(), parameters()
    mine = Adam(ours, lr=1e-2)
    move(mine, ours, 0, 3)
    mine.load_state_dict(torch.optim.Adam(fresh, lr=1e-2).state_dict())
    assert all(not t.any() for t in mine.tensors())
    other = Adam(parameters()[:2], lr=1e-2)
    with pytest.raises(ValueError, match="expected moments of 3 parameters, got 2"):
        mine.load_state_dict(other.state_dict())


def test_a_parameter_without_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="no gradient"):
        Adam(parameters(), lr=1e-2).step()


def test_it_does_not_load_the_compiler() -> None:
    script = """
import sys, torch
from simreal.learners.adam import Adam
p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)
Adam([p], 1e-2).step()
sys.exit("torch._dynamo" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
