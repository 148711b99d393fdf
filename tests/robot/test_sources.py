"""What of an observation messages hold: by names and by the contract's words, never by order."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from simreal.common.errors import UserError
from simreal.robot.clock import RemoteClock
from simreal.robot.sources import ImuState, Joint, Measurements, matrix, quaternion, sources_of


def close(got: Any, expected: Any, atol: float = 1e-12) -> None:
    """Numbers are those."""
    np.testing.assert_allclose(np.asarray(got), expected, atol=atol)


def entry(name: str, size: int, unit: str, **more: Any) -> dict[str, Any]:
    """An entry of a contract's observation."""
    plain = {
        "frame": "joint",
        "description": "",
        "elements": [],
        "joints": [],
        "bodies": [],
        "measured": True,
        "derived_from": [],
    }
    return {"name": name, "shape": [size], "unit": unit} | plain | more


ACTION = [{"name": "target", "shape": [2], "unit": "rad", "joints": ["knee", "hip"]}]
JOINTS = [
    entry("pos", 2, "rad", joints=["knee", "hip"], relative_to=[0.5, 0.0]),
    entry("vel", 1, "rad/s", joints=["hip"]),
]
IMU = [
    entry("gyro", 3, "rad/s", frame="trunk", bodies=["trunk"]),
    entry("projected_gravity", 3, "1", frame="trunk", bodies=["trunk"]),
    entry("trunk_quat", 4, "1", frame="world", bodies=["trunk"], elements=["w", "x", "y", "z"]),
    entry("trunk_rot", 6, "1", frame="world", bodies=["trunk"], elements=["xx", "xy", "xz", "yx", "yy", "yz"]),
    entry("acceleration", 3, "m/s2", frame="trunk", bodies=["trunk"], description="of an accelerometer"),
]  # fmt: skip


def test_joints_come_by_name_with_their_own_stamps() -> None:
    seen = Measurements({"observation": JOINTS, "action": ACTION})
    assert seen.missing() == ["knee", "hip"]
    seen.joints |= {
        "hip": Joint(1.0, 2.0, 0.0, 7.0),
        "tail": Joint(9.0, 9.0, 9.0, 1.0),
        "knee": Joint(3.0, 4.0, 0.0, 6.0),
    }
    reading = seen.reading()
    close(reading.values["pos"], [2.5, 1.0])
    close(reading.values["vel"], [2.0])
    assert reading.stamps == {"pos": 6.0, "vel": 7.0}
    close(reading.positions["target"], [3.0, 1.0])
    close(reading.velocities["target"], [4.0, 2.0])


def test_an_orientation_becomes_what_the_contract_asks_for_as_mujoco_turns_vectors() -> None:
    seen = Measurements({"observation": IMU, "action": ACTION})
    quat = np.array([0.7, -0.3, 0.5, 0.2])
    quat /= np.linalg.norm(quat)
    seen.imu = ImuState(1.02 * quat, np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 9.81]), 4.0)
    values = {name: np.asarray(value) for name, value in seen.reading().values.items()}
    down, back, columns = np.zeros(3), np.zeros(4), np.zeros(9)
    mujoco.mju_negQuat(back, quat)
    mujoco.mju_rotVecQuat(down, np.array([0.0, 0.0, -1.0]), back)
    mujoco.mju_quat2Mat(columns, quat)
    close(values["projected_gravity"], down, atol=1e-12)
    close(values["trunk_quat"], quat, atol=1e-12)
    close(values["trunk_rot"], columns.reshape(3, 3)[:, :2].T.ravel(), atol=1e-12)
    close(values["gyro"], [1.0, 2.0, 3.0])


def test_an_imu_that_is_mounted_askew_is_turned_into_its_body() -> None:
    # Turned by 90 degrees about z: the IMU's x points where the body's y does.
    seen = Measurements({"observation": IMU, "action": ACTION}, mount=[np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)])
    lying = np.array([np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0])  # of the IMU: rolled, its y points up
    seen.imu = ImuState(lying, np.array([1.0, 0.0, 0.0]), None, 0.0)
    with pytest.raises(ValueError, match="say no acceleration"):
        seen.reading()
    seen.imu.acceleration = np.array([0.0, 9.81, 0.0])
    values = seen.reading().values
    close(values["gyro"], [0.0, 1.0, 0.0], atol=1e-12)
    close(values["projected_gravity"], [1.0, 0.0, 0.0], atol=1e-12)  # down is -y of the IMU: +x
    close(values["acceleration"], [-9.81, 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_quaternions_survive_the_way_through_a_matrix(seed: int) -> None:
    quat = np.random.default_rng(seed).normal(size=4)
    quat[seed] *= 5.0
    quat *= np.sign(quat[0]) / np.linalg.norm(quat)
    np.testing.assert_allclose(quaternion(matrix(quat)), quat, atol=1e-12)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (entry("cube", 4, "1", frame="world", bodies=["cube"], elements=["w", "x", "y", "z"]), "'cube'"),
        (entry("hand_pos", 3, "m", frame="world", bodies=["hand"], description="position"), "in no message"),
        (entry("old", 2, "rad", joints=["knee", "hip"], derived_from=["pos"]), "computed from pos"),
        (entry("pos2", 2, "rad", joints=["knee", "hip"], description="from the stance"), "export its run again"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_no_message_holds_is_named_unless_it_is_given(odd: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        sources_of([*IMU, odd])
    assert len(sources_of([*IMU, odd], given=[odd["name"]]).imu) == len(IMU)


def test_goals_and_commands_are_left_to_the_controller() -> None:
    assert sources_of([entry("command", 3, "m/s", frame="trunk", measured=False)]).names == {}


def test_a_quaternion_of_another_length_is_refused() -> None:
    seen = Measurements({"observation": IMU[:2], "action": ACTION})
    seen.imu = ImuState(np.zeros(4), np.zeros(3), None, 0.0)
    with pytest.raises(ValueError, match=r"expected a quaternion of length 1, got \[0.0, 0.0, 0.0, 0.0\]"):
        seen.reading()


def test_stamps_of_a_clock_of_its_own_tell_age_beyond_the_quickest_message() -> None:
    clock = RemoteClock()
    # Its clock is 1000 s behind; the way takes 2 ms at best, and once 30 ms.
    assert clock.local(0.0, 1000.004) == pytest.approx(1000.004)
    assert clock.local(0.02, 1000.022) == pytest.approx(1000.022)
    assert clock.local(0.04, 1000.070) == pytest.approx(1000.042)
    assert clock.local(0.04, 1000.090) == pytest.approx(1000.042)  # nothing has come since
    assert clock.local(0.00, 1000.100) == pytest.approx(1000.100)  # it was switched off and on


def test_a_clock_that_runs_fast_is_followed() -> None:
    clock, ages = RemoteClock(), []
    for i in range(6000):  # 60 s, 100 ppm
        now = 0.01 * i
        ages.append(now - clock.local(now * (1.0 - 1e-4), now))
    assert max(ages) < 2.1e-3  # 20 s of 100 ppm


def test_stamps_of_a_shared_clock_show_all_of_the_delay() -> None:
    clock = RemoteClock(shared=True, wall=lambda: 1e9, clock=lambda: 50.0)
    assert clock.local(1e9 - 0.04, 50.0) == pytest.approx(49.96)
    assert clock.local(1e9 + 0.04, 50.0) == 50.0  # nothing comes from the future


def test_a_contract_states_the_stance_that_positions_are_shown_from() -> None:
    from envs.parts.observations import JointState
    from simreal.export.contract import contract_of
    from simreal.export.source import prepare
    from small_arm import SmallArm

    task = SmallArm(observations=[JointState(stance=0.2), JointState(prefix="plain")])
    policy = torch.nn.Linear(sum(part.size for part in task.components("policy")), task.action_size)
    entries = contract_of(prepare(policy, task), "arm")["observation"]
    assert [entry.get("relative_to") for entry in entries] == [[0.2] * 3, None, None, None]
    assert sources_of(entries).joints[0].relative_to.tolist() == [0.2] * 3
