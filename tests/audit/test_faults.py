"""Faults of a robot that is worked out here, named from its log alone; the robot of `plain_robot` knows no MuJoCo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from plain_robot import HOME, JOINTS, PERIOD_S, Numbers, contract, log, signals
from simreal.audit.commands import arrival_findings
from simreal.audit.facts import facts_of
from simreal.audit.findings import Finding
from simreal.audit.imu import imu_findings
from simreal.audit.lags import lag_findings, unjudged
from simreal.audit.messages import message_findings
from simreal.audit.recording import recording
from simreal.audit.verdicts import joint_findings

Values = dict[str, Numbers]
SOUND = signals(0)


def found(values: Values, period_s: float = PERIOD_S) -> list[Finding]:
    facts = facts_of(recording(log(values, period_s), contract(), {}))
    said = message_findings(facts.record, list(facts.came.values()))
    return said + joint_findings(facts) + imu_findings(facts) + (lag_findings(facts) if not said else [])


def with_(**changed: Callable[[Numbers], Numbers]) -> Values:
    return SOUND | {name: change(SOUND[name].copy()) for name, change in changed.items()}


def exchanged(i: int, j: int) -> Callable[[Numbers], Numbers]:
    order = list(range(6))
    order[i], order[j] = j, i
    return lambda x: x[:, order]


def turned(i: int) -> Callable[[Numbers], Numbers]:
    return lambda x: x * np.where(np.arange(x.shape[1]) == i, -1.0, 1.0)


def late(cycles: int) -> Callable[[Numbers], Numbers]:
    return lambda x: np.concatenate([np.repeat(x[:1], cycles, axis=0), x[:-cycles]])


def lost(share: float) -> Callable[[Numbers], Numbers]:
    def change(x: Numbers) -> Numbers:
        gone = np.random.default_rng(7).random(len(x)) < share
        gone[0] = False
        return x[np.maximum.accumulate(np.where(gone, 0, np.arange(len(x))))]

    return change


def frozen(element: int | slice, at: int) -> Callable[[Numbers], Numbers]:
    def change(x: Numbers) -> Numbers:
        x[at:, element] = x[at, element]
        return x

    return change


def in_the_world() -> Numbers:
    """The gyroscope's vector in the world's frame, by turning it with the integrated rotation."""
    rate, turn, out = SOUND["gyro"], np.eye(3), np.empty_like(SOUND["gyro"])
    for k in range(len(rate)):
        out[k] = turn @ rate[k]
        x, y, z = PERIOD_S * 0.5 * (rate[k] + rate[min(k + 1, len(rate) - 1)])
        angle = max(float(np.linalg.norm([x, y, z])), 1e-12)
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) / angle
        turn = turn @ (np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross)
    return out


_BOTH = lambda change: {"joint_pos": change, "joint_vel": change}  # noqa: E731
_DEGREES = lambda x: np.rad2deg(x)  # noqa: E731
CASES: dict[str, tuple[Values, str, tuple[str, ...], tuple[int, ...]]] = {
    "two joints": (with_(**_BOTH(exchanged(1, 4))), "permuted", ("joint_pos", "joint_vel"), (1, 4)),
    "two velocities": (with_(joint_vel=exchanged(0, 5)), "permuted", ("joint_vel",), (0, 5)),
    "a joint's sign": (with_(**_BOTH(turned(2))), "sign", ("joint_pos", "joint_vel"), (2,)),
    "a velocity's sign": (with_(joint_vel=turned(3)), "sign", ("joint_vel",), (3,)),
    "degrees": (with_(**_BOTH(_DEGREES)), "degrees", ("joint_pos", "joint_vel"), ()),
    "degrees of positions": (with_(joint_pos=_DEGREES), "degrees", ("joint_pos",), ()),
    "degrees of the gyro": (with_(gyro=_DEGREES), "degrees", ("gyro",), ()),
    "half the velocity": (with_(joint_vel=lambda x: 0.5 * x), "scale", ("joint_vel",), ()),
    "half the gyro": (with_(gyro=lambda x: 0.5 * x), "scale", ("gyro",), ()),
    "gravity in m/s^2": (with_(projected_gravity=lambda x: 9.81 * x), "scale", ("projected_gravity",), ()),
    "an axis of the gyro": (with_(gyro=turned(0)), "sign", ("gyro",), (0,)),
    "axes of the gyro": (with_(gyro=lambda x: x[:, [1, 0, 2]]), "permuted", ("gyro",), (0, 1)),
    "the world's frame": (SOUND | {"gyro": in_the_world()}, "frame", ("gyro",), ()),
    "late positions": (with_(joint_pos=late(2)), "lag", ("joint_pos",), ()),
    "late velocities": (with_(joint_vel=late(2)), "lag", ("joint_vel",), ()),
    "a late gyro": (with_(gyro=late(2)), "lag", ("gyro",), ()),
    "late joints": (with_(**_BOTH(late(3))), "lag", ("joint_pos", "joint_vel"), ()),
    "lost messages": (with_(gyro=lost(0.1)), "loss", ("gyro",), ()),
    "a frozen joint": (with_(joint_pos=frozen(4, 400)), "frozen", ("joint_pos",), (4,)),
    "a frozen gyro": (with_(gyro=frozen(slice(None), 300)), "frozen", ("gyro",), ()),
    "a clipped gyro": (with_(gyro=lambda x: x.clip(-0.8, 0.8)), "clipped", ("gyro",), (0,)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_named(case: str) -> None:
    values, kind, components, elements = CASES[case]
    said = found(values)
    first = max(said, key=lambda f: f.weight)
    if kind != "clipped":  # of every axis
        assert {f.kind for f in said} == {kind}, said
    assert first.kind == kind
    assert set(components) <= set(first.components), first
    assert set(first.components) <= {*components, "gyro", "projected_gravity"} if kind == "lag" else True
    assert first.elements == elements or kind == "clipped", first


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_nothing_is_said_of_a_sound_robot(seed: int) -> None:
    assert found(signals(seed)) == []


def walk(period: float, lost: float = 0.0, scatter: float = 0.0, late: int = 0) -> Values:
    """A gait that repeats itself, exactly or with some scatter; a share of its targets never arrives, or all of them
    do some cycles late."""
    rng, count = np.random.default_rng(3), 700
    phase = 2.0 * np.pi / period * np.arange(count)[:, None]
    phase = phase + np.array([0.0, 0.5, 1.0, np.pi, np.pi + 0.5, np.pi + 1.0])
    target = HOME + 0.25 * np.sin(phase) + 0.1 * np.sin(2.0 * phase + np.array([0.0, 0.0, 0.0, 3.0, 3.0, 3.0]))
    target += scatter * np.random.default_rng(4).standard_normal(target.shape)
    q, v, step, held = HOME.copy(), np.zeros(6), PERIOD_S / 10, target[0]
    position, velocity = np.empty_like(target), np.empty_like(target)
    for k in range(len(target)):
        position[k], velocity[k] = q, v
        held = held if rng.random() < lost else target[max(k - late, 0)]
        for _ in range(10):
            pushed = 12.0 * np.roll(np.maximum(q - HOME, 0.0), 3)  # by the ground, with the leg on the other side
            v = v + step * (40.0 * (held - q) - 1.0 * v - pushed) / 0.05
            q = q + step * v
    return SOUND | {"joint_pos": position, "joint_vel": velocity, "joint_target": target}


@pytest.mark.parametrize("period", [8.0, 11.1, 12.0, 24.9])
def test_nothing_is_said_of_a_gait_that_repeats_itself_exactly_but_that_it_cannot_be_told(period: float) -> None:
    """Every target follows from the others' past there, so that a joint is explained by any of them, at any shift."""
    values = walk(period)
    assert found(values) == []
    (text,) = unjudged(facts_of(recording(log(values), contract(), {})))
    assert "the gait repeats itself in 100% of the log" in text


def test_what_departs_from_a_gait_shows_how_late_what_is_sent_arrives() -> None:
    assert found(walk(12.0, scatter=0.02)) == []
    (late,) = found(walk(12.0, scatter=0.02, late=2))
    assert (late.kind, set(late.components) >= {"joint_pos", "joint_vel"}) == ("lag", True)
    assert late.figures["lag_ms"] == pytest.approx(40.0, abs=5.0)


def test_commands_that_never_arrive_are_counted() -> None:
    (said,) = arrival_findings(facts_of(recording(log(walk(12.0, lost=0.1, scatter=0.02)), contract(), {})))
    gone = np.random.default_rng(3).random(700) < 0.1
    assert (said.kind, said.components) == ("loss", ("joint_target",))
    assert said.figures["share"] == pytest.approx(gone.mean(), abs=0.01)
    assert said.figures["by_chance"] < 0.005
    assert arrival_findings(facts_of(recording(log(SOUND), contract(), {}))) == []
    assert arrival_findings(facts_of(recording(log(walk(12.0, scatter=0.02)), contract(), {}))) == []


def test_sensors_of_a_robot_that_lies_still_are_not_frozen() -> None:
    """Without noise what does not move stays the same to the last bit: an axis of gravity, a joint at rest."""
    values = {name: array.copy() for name, array in SOUND.items()}
    rng = np.random.default_rng(0)
    for array in values.values():
        array[400:] = array[400] + 1e-6 * rng.standard_normal(array[400:].shape)
    values["projected_gravity"][400:] = values["projected_gravity"][400:].astype(np.float32)
    values["projected_gravity"][400:, 2] = -1.0
    values["joint_pos"][400:, 1] = values["joint_pos"][400, 1]
    assert "frozen" not in {f.kind for f in found(values)}
    values["joint_pos"][400:] = values["joint_pos"][400]
    values["joint_vel"][400:] = SOUND["joint_vel"][400:]  # positions stand still and the robot does not
    (frozen_,) = (f for f in found(values) if f.kind == "frozen")
    assert (frozen_.components, frozen_.elements) == (("joint_pos",), ())


def test_figures_of_a_lag_a_loss_and_an_exchange() -> None:
    (lag,) = found(with_(joint_vel=late(2)))
    assert lag.figures["lag_ms"] == pytest.approx(40.0, abs=2.0)
    low, high = lag.figures["interval_ms"]
    assert low - 1.0 <= 40.0 <= high + 1.0
    (loss,) = found(with_(joint_vel=lost(0.1)))
    assert loss.figures["share"] == pytest.approx(0.1, abs=0.03)
    (exchange,) = found(with_(joint_vel=exchanged(0, 5)))
    assert exchange.figures["after"] > 0.9 > 0.5 > exchange.figures["before"]
    assert set(exchange.figures["joints"]) == {JOINTS[0], JOINTS[5]}


def test_half_the_rate_is_said_of_the_loop_and_of_one_sensor() -> None:
    halved: dict[str, Any] = {name: array[::2] for name, array in SOUND.items()}
    (loop,) = found(halved, 2.0 * PERIOD_S)
    assert (loop.kind, loop.components) == ("rate", ())
    slow = with_(joint_vel=lambda x: np.repeat(x[::2], 2, axis=0)[: len(x)])
    (sensor,) = found(slow)
    assert (sensor.kind, sensor.components) == ("rate", ("joint_vel",))
    assert sensor.figures["rate_hz"] == pytest.approx(25.0, rel=0.01)


def still(seed: int = 1, **changed: Numbers) -> Values:
    """A robot that stands: targets, joints and gravity at rest, its sensors with noise."""
    rng = np.random.default_rng(seed)
    count = len(SOUND["gyro"])
    at_rest = {"joint_pos": HOME, "joint_vel": np.zeros(6), "joint_target": HOME, "gyro": np.zeros(3)}
    at_rest |= {"projected_gravity": np.array([-0.08, -0.23, -0.97])} | changed
    noise = {"joint_pos": 0.003, "joint_vel": 0.05, "joint_target": 0.02, "gyro": 0.2, "projected_gravity": 0.02}
    return {name: value + rng.normal(0.0, noise[name], (count, len(value))) for name, value in at_rest.items()}


@pytest.mark.parametrize("seed", range(6))
def test_noise_is_no_gyroscope_of_other_units_or_axes(seed: int) -> None:
    """Whichever reading turns gravity least by the noise explains a robot at rest best."""
    assert found(still(seed)) == []


def test_positions_of_a_standing_robot_say_nothing_of_its_velocities() -> None:
    (half,) = found(still(joint_pos=0.5 * HOME))
    assert (half.kind, half.components) == ("scale", ("joint_pos",))
    assert "velocity" not in half.evidence
    loud = still(joint_pos=np.rad2deg(HOME))
    loud["joint_vel"] = np.rad2deg(20.0 * loud["joint_vel"])
    (degrees,) = found(loud)
    assert (degrees.kind, degrees.components) == ("degrees", ("joint_pos", "joint_vel"))
