"""The quantities of examples/plugin do what they say: a gyro's bias that walks, motors that get warm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import FixedWorlds, TinyTask, build, fixed_worlds
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from noop import silent
from noop_models import INLINE
from plugin_files import WHEEL, installed_from, unpacked
from randomization.catalogue import table
from randomization.catalogue.quantity import RandomizationError
from randomization.parameters import build_parameters

DT = 0.02


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[Path]:
    """The example is installed."""
    with installed_from(unpacked(tmp_path / "site")) as site:
        yield site


def worlds(entries: dict[str, Any], chosen: list[list[float]], steps: int = 1000) -> Environment:
    task = TinyTask(WHEEL, decimation=5, max_episode_steps=steps)
    return build(task, len(chosen), fixed_worlds(task, entries, chosen))


def push(env: Environment, amount: float) -> Tensor:
    """One control step with the wheel's motor at some share of its control; what the environments show."""
    action = torch.zeros(env.num_envs, 2, dtype=torch.float64, device=env.device)
    action[:, 0] = amount
    return env.step(action).observed.policy


def bias(env: Environment, shown: Tensor) -> Tensor:
    """What the shown velocities [N, 4] have beyond the true ones; the ball's quaternion is among the positions."""
    return shown[:, 5:9] - env.engine.data("qvel")


def test_the_variance_of_a_gyros_bias_grows_with_the_square_of_its_coefficient_and_with_time() -> None:
    n, entries = 4000, {"gyro_random_walk": {"of": "velocity", "range": [0, 1]}}
    env = worlds(entries, [[0.3]] * n + [[0.0]] * 3)
    assert not bias(env, env.observed.policy).any()  # it starts at 0
    seen = [bias(env, push(env, 0.0)) for _ in range(25)]
    for steps in (1, 5, 25):
        walked = seen[steps - 1][:n]
        variance = 0.3**2 * steps * DT
        assert bool(((walked.var(0) / variance - 1.0).abs() < 4.5 * math.sqrt(2.0 / n)).all())
        assert bool((walked.mean(0).abs() < 4.5 * math.sqrt(variance / n)).all())
        assert float((torch.corrcoef(walked.T) - torch.eye(4)).abs().max()) < 4.5 / math.sqrt(n)  # each value its own
        assert not seen[steps - 1][n:].any()
    # A walk: what is added later is independent of where it is, so that cov(b(5), b(25)) = var(b(5))
    early, late = seen[4][:n, 0], seen[24][:n, 0]
    assert float((early * late).mean()) == pytest.approx(0.09 * 5 * DT, abs=4.5 * 0.09 * DT * math.sqrt(150 / n))
    assert not bias(env, env.reset().policy).any()


def test_a_bias_does_not_walk_while_other_episodes_begin() -> None:
    env = worlds({"gyro_random_walk": {"range": [0, 1]}}, [[0.3]] * 3)
    env.steps[:] = torch.tensor([0, 998, 0])
    before = [bias(env, push(env, 0.0)).clone() for _ in range(4)]
    assert not before[1][1].any()  # the second environment has begun again
    alone = worlds({"gyro_random_walk": {"range": [0, 1]}}, [[0.3]] * 3)
    for step in range(4):
        torch.testing.assert_close(bias(alone, push(alone, 0.0))[[0, 2]], before[step][[0, 2]], rtol=0, atol=1e-12)


HEAT = {"motor_heat": {"of": "motor", "range": [0, 1]}, "motor_heat_time": {"range": [0.1, 100]}}


def test_heat_follows_the_solution_of_its_equation_while_torque_holds_and_while_it_cools() -> None:
    env = worlds(HEAT, [[0.5, 2.0], [0.5, 0.3]])
    limits, time = env.engine.field("actuator_forcerange"), np.array([2.0, 0.3])
    for steps in range(1, 51):
        push(env, 0.2)  # 1 N m, half of the peak: h = 0.25 (1 - exp(-t / T)) of what has passed before this step
        heat = 0.25 * (1.0 - np.exp(-(steps - 1) * DT / time))
        np.testing.assert_allclose(limits[:, 0, 1], 2.0 * (1.0 - 0.5 * heat), rtol=1e-12)
        np.testing.assert_allclose(limits[:, 0, 0], -limits[:, 0, 1], rtol=0)
        assert env.engine.data("qfrc_actuator")[0, 0] == 3.0  # 1 N m times the gear: within the limit
    push(env, 0.0)
    hot = 0.25 * (1.0 - np.exp(-50 * DT / time))
    for steps in range(1, 51):
        push(env, 0.0)
        np.testing.assert_allclose(limits[:, 0, 1], 2.0 - hot * np.exp(-steps * DT / time), rtol=1e-12)


def test_a_warm_motor_gives_no_more_than_its_heat_leaves() -> None:
    # At full control 2 N m are the limit, 6 N m at the joint. In the end h = (1 - h / 2)^2, so h = 4 - 2 sqrt(3) and
    # what is left is 6 (1 - h / 2) = 6 (sqrt(3) - 1) = 4.392 N m.
    env = worlds(HEAT, [[0.5, 0.4], [0.0, 0.4]], steps=500)
    torque = env.engine.data("qfrc_actuator")[:, 0]
    felt = []
    for _ in range(400):
        push(env, 1.0)
        felt.append(torque.clone())
    assert felt[0].tolist() == [6.0, 6.0]
    assert float(felt[-1][0]) == pytest.approx(6.0 * (math.sqrt(3.0) - 1.0), abs=1e-9)
    assert float(felt[-1][1]) == 6.0
    # By the trapezoid rule with a tenth of the step; the effect holds a step's torque, so that it lags by half a step
    heat = 0.0
    for _ in range(200):
        slope = lambda h: ((1.0 - 0.5 * h) ** 2 - h) / 0.4  # noqa: E731
        first = slope(heat)
        heat += 0.5 * (DT / 10) * (first + slope(heat + DT / 10 * first))
    assert float(felt[20][0]) == pytest.approx(6.0 * (1.0 - 0.5 * heat), rel=0.01)
    for _ in range(101):
        push(env, 0.0)
    assert env.engine.field("actuator_forcerange")[:, 0].tolist() == [[-2.0, 2.0]] * 2  # whole again


def test_heat_acts_together_with_what_else_changes_a_motors_limit_and_leaves_no_trace() -> None:
    entries = HEAT | {"actuator_force_range": {"of": "motor", "range": [0.5, 1]}, "actuator_fade": {"of": "motor"}}
    env = worlds(entries, [[0.5, 0.4, 0.8, 0.3], [0.0, 0.4, 0.8, 0.3]], steps=40)
    limit = env.engine.field("actuator_forcerange")[:, 0, 1]
    layer: Any = env.layer
    for step in range(39):
        push(env, 1.0)
        whole = 2.0 * 0.8 * (1.0 - 0.3 * step / 40)
        left = 1.0 - 0.5 * layer._effects.effects["motor_heat"].heat[0, 0]
        torch.testing.assert_close(limit, torch.tensor([whole * float(left), whole]).double())
        assert left < 1.0 or step == 0
    env.reset()
    assert limit.tolist() == [1.6, 1.6]


def test_neither_is_accepted_without_a_word_where_it_does_nothing() -> None:
    for name, model in (("gyro_random_walk", INLINE["planar"]), ("gyro_random_walk", WHEEL), ("motor_heat", WHEEL)):
        task = TinyTask(model, decimation=5, max_episode_steps=100)
        assert silent(task, table.find_quantity(name)) == []
    with pytest.raises(RandomizationError, match="is no angular velocity"):
        build_parameters(TinyTask(WHEEL), {"gyro_random_walk": {"of": "position"}})
    with pytest.raises(RandomizationError, match="free is no actuator with a force range of its own"):
        build_parameters(TinyTask(WHEEL), {"motor_heat": {"of": "free"}})
    with pytest.raises(RandomizationError, match="motor_heat_time: does nothing without motor_heat: add that"):
        build_parameters(TinyTask(WHEEL), {"motor_heat_time": {}})


@pytest.mark.gpu
def test_on_the_gpu_engine_they_do_the_same() -> None:
    pytest.importorskip("mujoco_warp")
    from envs.engines.gpu.engine import GpuEngine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shown: list[Tensor] = []
    for kind in (lambda model: CpuEngine(model, 3, 1), lambda model: GpuEngine(model, 3, device)):
        task = TinyTask(WHEEL, decimation=5, max_episode_steps=8)
        chosen = [[0.5, 0.3, 0.01], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0]]
        layer = fixed_worlds(task, HEAT | {"gyro_random_walk": {}}, chosen)
        layer.prepare(task)
        env = Environment(task, kind(task.model), layer)
        assert isinstance(layer.sampler, FixedWorlds)
        layer.sampler.worlds = layer.sampler.worlds.to(env.device)
        env.reset()
        rows = [torch.cat((push(env, 1.0), env.engine.field("actuator_forcerange")[:, 0]), 1) for _ in range(12)]
        shown.append(torch.stack(rows).double().cpu())
    torch.testing.assert_close(shown[1], shown[0], rtol=1e-4, atol=1e-5)
    assert float(shown[0][6, 1, -1]) < 1.5  # warm
