"""The limits of an actuator's force, wherever MuJoCo keeps them: all of them weaken with the actuator."""

from __future__ import annotations

from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from conftest import TinyTask, build, fixed_worlds
from envs.environment import Environment
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import RandomizationError, build_parameters


def urdf(kind: str = "revolute", effort: float = 6.0) -> str:
    """One link on a joint, as a robot's description states it."""
    return f"""<robot name="arm"><link name="base"/>
    <link name="upper"><inertial><origin xyz=".2 0 0"/><mass value="2"/>
    <inertia ixx=".01" iyy=".03" izz=".03" ixy="0" ixz="0" iyz="0"/></inertial>
    </link>
    <joint name="shoulder" type="{kind}"><parent link="base"/><child link="upper"/><axis xyz="0 1 0"/>
    <limit lower="-2" upper="2" effort="{effort}" velocity="5"/><dynamics damping="0.2" friction="0"/></joint>
    </robot>"""


def from_urdf(text: str, *actuators: dict[str, Any]) -> str:
    """A robot's description with actuators added, as MJCF."""
    spec = mujoco.MjSpec.from_string(text)
    for i, settings in enumerate(actuators):
        a = spec.add_actuator(name=f"motor{i}", target="shoulder", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        a.gear[0] = settings.get("gear", 1.0)
        if "kp" in settings:
            a.set_to_position(kp=settings["kp"], kv=0.0)
        else:
            a.set_to_motor()
            a.gainprm[0] = settings["gain"]
        if "force" in settings:
            a.forcelimited, a.forcerange = True, [-settings["force"], settings["force"]]
    spec.compile()
    return spec.to_xml()


TENDON = """
<mujoco><option gravity="0 0 0"/><worldbody>
  <body><joint name="a" axis="0 1 0" actuatorfrcrange="-{joint} {joint}"/>
    <geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
  <body pos="0 1 0"><joint name="b" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
</worldbody>
<tendon><fixed name="pull" actuatorfrcrange="-{tendon} {tendon}"><joint joint="a" coef="1"/><joint joint="b" coef="2"/>
</fixed></tendon>
<actuator><general name="motor0" tendon="pull" gainprm="50"/></actuator></mujoco>
"""
# description, largest force at the first dof of the nominal world
ROBOTS: dict[str, tuple[str, float]] = {
    "position servo": (from_urdf(urdf(), {"kp": 600.0}), 6.0),
    "motor": (from_urdf(urdf(effort=9.0), {"gain": 50.0}), 9.0),
    "slide": (from_urdf(urdf("prismatic", 40.0), {"gain": 500.0}), 40.0),
    "gear of 5, own limit as well": (from_urdf(urdf(effort=20.0), {"gain": 100.0, "gear": 5.0, "force": 3.0}), 15.0),
    "two motors at one joint": (from_urdf(urdf(effort=8.0), {"gain": 50.0}, {"gain": 70.0}), 8.0),
    "no effort stated: unlimited": (from_urdf(urdf(effort=0.0), {"gain": 50.0}), 50.0),
    "limit at a tendon": (TENDON.format(joint=1000, tendon=7), 7.0),
    "limit at a joint behind a tendon": (TENDON.format(joint=4, tendon=7), 4.0),
}


def worlds(xml: str, entries: dict[str, Any], lam: list[list[float]], episode: int = 10) -> Environment:
    task = TinyTask(xml, decimation=1, max_episode_steps=episode)
    return build(task, len(lam), fixed_worlds(task, entries, lam))


def torques(env: Environment, action: float = 1.0) -> Tensor:
    """Force at the first dof after a step under full command, N m or N [N]."""
    force = env.engine.data("qfrc_actuator")
    env.step(torch.full((env.num_envs, env.task.action_size), action, dtype=torch.float64))
    return force[:, 0].clone()


@pytest.mark.parametrize("quantity", ["actuator_strength", "actuator_fade"])
@pytest.mark.parametrize("robot", ROBOTS)
def test_the_largest_force_is_the_strength_times_the_nominal_one(robot: str, quantity: str) -> None:
    xml, largest = ROBOTS[robot]
    if quantity == "actuator_strength":
        env = worlds(xml, {quantity: {"range": [0.1, 1.0]}}, [[1.0], [0.8], [0.3]])
    else:  # at the third step of four, half of the fade has happened
        env = worlds(xml, {quantity: {"range": [0.0, 1.0]}}, [[0.0], [0.4], [1.0]], episode=4)
        torques(env, 0.0)
        torques(env, 0.0)
    expected = [largest, 0.8 * largest, (0.3 if quantity == "actuator_strength" else 0.5) * largest]
    torch.testing.assert_close(torques(env), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("robot", [name for name in ROBOTS if "unlimited" not in name])
def test_a_factor_of_the_force_range_is_one_of_every_limit(robot: str) -> None:
    xml, largest = ROBOTS[robot]
    env = worlds(xml, {"actuator_force_range": {"range": [0.1, 2.0]}}, [[0.5], [1.0]])
    torch.testing.assert_close(torques(env), torch.tensor([0.5 * largest, largest], dtype=torch.float64))


def test_a_joint_without_a_stated_effort_has_no_force_range() -> None:
    task = TinyTask(ROBOTS["no effort stated: unlimited"][0])
    with pytest.raises(RandomizationError, match="motor0 is no actuator with a force range"):
        build_parameters(task, {"actuator_force_range": {"of": "motor0"}})


def test_a_limit_of_two_motors_is_multiplied_by_the_mean_of_their_strengths() -> None:
    strength = {"quantity": "actuator_strength", "range": [0.1, 1.0]}
    entries = {"first": {**strength, "of": "motor0"}, "second": {**strength, "of": "motor1"}}
    lam = [[1.0, 1.0], [0.3, 1.0], [0.5, 0.5], [0.2, 0.6]]
    env = worlds(ROBOTS["two motors at one joint"][0], entries, lam)
    mean = torch.tensor([1.0, 0.65, 0.5, 0.4], dtype=torch.float64)
    torch.testing.assert_close(torques(env), 8.0 * mean, rtol=1e-12, atol=0)
    alone = worlds(ROBOTS["two motors at one joint"][0], {"first": entries["first"]}, [[1.0], [0.3]])
    assert alone.engine.field("jnt_actfrcrange")[0].tolist() == [[-8.0, 8.0]]  # nominal, bit for bit
    torch.testing.assert_close(torques(alone), torch.tensor([8.0, 5.2], dtype=torch.float64))


def test_strength_and_force_range_of_shared_limits_multiply() -> None:
    entries = {
        "weak": {"quantity": "actuator_strength", "of": "motor0", "range": [0.1, 1.0]},
        "cut": {"quantity": "actuator_force_range", "range": [0.1, 1.0]},
    }
    env = worlds(ROBOTS["two motors at one joint"][0], entries, [[0.5, 0.5]])
    torch.testing.assert_close(torques(env), torch.tensor([8.0 * (0.25 + 0.5) / 2], dtype=torch.float64))


def test_a_motor_at_the_joint_owns_its_limit_alone_though_a_tendon_pulls_too() -> None:
    xml = TENDON.format(joint=4, tendon=7).replace("</actuator>", '<motor name="own" joint="a" gear="50"/></actuator>')
    task = TinyTask(xml)
    fields = [[(e.field, e.sharers) for e in QUANTITIES["actuator_force_range"].edits(task.model, i)] for i in (0, 1)]
    assert fields == [[("tendon_actfrcrange", 1)], [("jnt_actfrcrange", 1)]]


def test_a_limp_motor_takes_its_share_of_the_limit_along_and_leaves_its_rotor() -> None:
    xml = from_urdf(urdf(effort=8.0), {"gain": 50.0}, {"gain": 70.0})
    spec = mujoco.MjSpec.from_string(xml)
    for a in spec.actuators:
        a.armature, a.damping[0] = 0.3, 0.7
    spec.compile()
    env = worlds(spec.to_xml(), {"actuator_failure": {"of": "motor0", "range": [0, 1]}}, [[0.0], [1.0]])
    torch.testing.assert_close(torques(env), torch.tensor([8.0, 4.0], dtype=torch.float64))
    assert env.engine.field("actuator_gear")[:, 0, 0].tolist() == [1.0, 1.0]
    env.engine.reset()
    env.engine.data("qvel")[:] = 1.0
    env.engine.forward()
    damping = env.engine.data("qfrc_damper")[:, 0]
    torch.testing.assert_close(damping, torch.full((2,), -(0.2 + 2 * 0.7), dtype=torch.float64))
    layer: Any = env.layer
    layer.sampler.worlds = layer.sampler.worlds.flip(0)
    env.reset()
    torch.testing.assert_close(torques(env), torch.tensor([4.0, 8.0], dtype=torch.float64))


PARTS = """
<mujoco><option gravity="0 0 0"/><worldbody>
  <body><joint name="a" axis="0 1 0" {joint}/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body>
</worldbody>
<tendon><fixed name="t" {tendon}><joint joint="a" coef="1"/></fixed></tendon>
<actuator><motor name="m" joint="a" gear="3" {motor}/></actuator></mujoco>
"""


@pytest.mark.parametrize(
    ("quantity", "parts", "force"),
    [
        ("joint_damping", {"joint": 'damping="1 2 3"'}, "qfrc_damper"),
        ("joint_damping", {"joint": 'damping="0 2 0"'}, "qfrc_damper"),
        ("joint_damping", {"joint": 'damping="1"', "motor": 'damping="0.4 0.2 0.1"'}, "qfrc_damper"),
        ("joint_damping", {"motor": 'damping="0.4"'}, "qfrc_damper"),
        ("joint_stiffness", {"joint": 'stiffness="1 2 3"'}, "qfrc_spring"),
        ("joint_stiffness", {"joint": 'stiffness="0 0 3"'}, "qfrc_spring"),
        ("tendon_stiffness", {"tendon": 'stiffness="1 2 3" springlength="0"'}, "qfrc_spring"),
        ("tendon_stiffness", {"tendon": 'stiffness="0 2 0" springlength="0"'}, "qfrc_spring"),
    ],
)
def test_twice_the_coefficient_is_twice_the_force_wherever_it_is_kept(
    quantity: str, parts: dict[str, str], force: str
) -> None:
    xml = PARTS.format(**{"joint": "", "tendon": "", "motor": ""} | parts)
    env = worlds(xml, {quantity: {"range": [0.5, 2.0]}}, [[1.0], [2.0], [0.5]])
    env.engine.data("qpos")[:], env.engine.data("qvel")[:] = 0.4, 0.7
    values = env.engine.data(force)
    env.engine.forward()
    assert abs(float(values[0, 0])) > 0.1
    torch.testing.assert_close(values[:, 0], float(values[0, 0]) * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))


def test_a_rotor_is_one_whether_the_joint_or_its_motor_states_it() -> None:
    xml = PARTS.format(joint='armature="0.5"', tendon="", motor='armature="0.1"')
    env = worlds(xml, {"joint_armature": {"range": [0.5, 2.0]}}, [[1.0], [2.0]])
    inertia = [env.engine.export_to_mujoco(i)[1].M[0] for i in range(2)]
    assert inertia[1] - inertia[0] == pytest.approx(0.5 + 3**2 * 0.1, rel=1e-12)
