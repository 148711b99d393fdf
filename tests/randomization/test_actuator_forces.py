"""Every kind of actuator that MuJoCo has: a quantity scales its force as it says, or refuses; controls are its own.

An actuator may have several controls, or none, and several force outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import TinyTask, build, fixed_worlds, manual_layer
from envs.environment import Environment
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import RandomizationError, build_parameters
from randomization.targets.names import object_places
from randomization.targets.suitable import usable_names

# One hinge each, so that forces do not mix; the kinds that MuJoCo's XML reference lists.
KINDS = {
    "motor": '<motor name="motor" joint="motor" gear="3"/>',
    "position": '<position name="position" joint="position" kp="20" kv="2"/>',
    "velocity": '<velocity name="velocity" joint="velocity" kv="3"/>',
    "damped": '<general name="damped" joint="damped" gainprm="7" biastype="affine" biasprm="0 0 -2"/>',
    "offset": '<general name="offset" joint="offset" gainprm="7" biastype="affine" biasprm="4 -3 -2"/>',
    "intvelocity": '<intvelocity name="intvelocity" joint="intvelocity" kp="5" actrange="-1 1"/>',
    "filterexact": '<general name="filterexact" joint="filterexact" dyntype="filterexact" dynprm=".05" gainprm="2"/>',
    "cylinder": '<cylinder name="cylinder" joint="cylinder" area="2" timeconst=".1" bias="1 2 3"/>',
    "damper": '<damper name="damper" joint="damper" kv="3" ctrlrange="0 1"/>',
    "affine": '<general name="affine" joint="affine" gaintype="affine" gainprm="1 2 3" biastype="affine" '
    'biasprm="4 5 6"/>',
    "muscle": '<muscle name="muscle" joint="muscle" force="50" lengthrange="-2 2"/>',
    "muscle_auto": '<muscle name="muscle_auto" joint="muscle_auto" scale="90" lengthrange="-2 2"/>',
    "pid": '<pid name="pid" joint="pid" kp="20" kv="2"/>',
    "pid_integral": '<pid name="pid_integral" joint="pid_integral" kp="20" kv="2" ki="3" slewmax="9"/>',
    "pid_velocity": '<pid name="pid_velocity" joint="pid_velocity" kp="20" kv="2" input="vel"/>',
    "pid_forward": '<pid name="pid_forward" joint="pid_forward" kp="20" kv="2" input="pos vel ff"/>',
    "dcmotor": '<dcmotor name="dcmotor" joint="dcmotor" motorconst="0.5" resistance="0.5"/>',
    "dcmotor_servo": '<dcmotor name="dcmotor_servo" joint="dcmotor_servo" motorconst="0.5" resistance="0.5" '
    'input="pos vel" controller="4 0 1 0 0 0"/>',
    "brake": '<dcmotor name="brake" joint="brake" motorconst="0.5" resistance="0.5" input="none"/>',
    "limited": '<position name="limited" joint="limited" kp="200" kv="2" forcerange="-1.5 2"/>',
    "plugin": '<plugin name="plugin" joint="plugin" plugin="mujoco.pid"><config key="kp" value="4"/></plugin>',
    "orientation": '<orientation name="orientation" joint="orientation" kp="6" kv="0.5"/>',
}  # fmt: skip
FEW = ("pid", "brake", "motor")  # two inputs, none, one
NO_STRENGTH = {"pid_forward", "dcmotor", "dcmotor_servo", "brake", "plugin"}


def zoo(kinds: tuple[str, ...] = tuple(KINDS), change: tuple[str, str] = ("", "")) -> str:
    """A model with some of the actuators, in whose XML one text is replaced by another."""
    joint = lambda kind: 'type="ball"' if kind == "orientation" else 'axis="0 0 1"'  # noqa: E731
    bodies = "".join(
        f'<body pos="0 {i} 0"><joint name="{kind}" {joint(kind)}/><geom type="capsule" fromto="0 0 0 .3 0 0" '
        'size=".02"/></body>'
        for i, kind in enumerate(kinds)
    )
    actuators = (
        "".join(KINDS[kind] for kind in kinds).replace(*change) if change[0] else "".join(KINDS[k] for k in kinds)
    )
    extension = '<extension><plugin plugin="mujoco.pid"/></extension>' if "plugin" in kinds else ""
    return (
        f'<mujoco>{extension}<option timestep="0.005" gravity="0 0 0"/><worldbody>{bodies}</worldbody>'
        f"<actuator>{actuators}</actuator></mujoco>"
    )


def forces(environment: Environment) -> torch.Tensor:
    """Force [N, outputs] of every actuator in a fixed state with lively numbers."""
    engine, state = environment.engine, np.random.default_rng(3)
    for name in ("qpos", "qvel", "act", "ctrl"):
        live = engine.data(name)
        live[:] = torch.from_numpy(state.uniform(0.1, 0.9, live.shape[1]))
    engine.forward()
    return engine.data("actuator_force").clone()


def outputs(task: TinyTask, kind: str) -> slice:
    """Where an actuator's force is."""
    model, index = task.model, object_places(task, "actuator")[kind]
    return slice(int(model.actuator_outadr[index]), int(model.actuator_outadr[index] + model.actuator_outnum[index]))


def scaled(kind: str, quantity: str, factor: float) -> torch.Tensor:
    """Force of every actuator where a quantity of one is scaled, [outputs]."""
    task = TinyTask(zoo())
    return forces(build(task, 1, fixed_worlds(task, {quantity: {"of": kind, "range": [0, 1]}}, [[factor]])))[0]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - NO_STRENGTH))
def test_the_force_at_any_state_is_strength_times_nominal(kind: str) -> None:
    task = TinyTask(zoo())
    expected, where = forces(build(task, 1))[0], outputs(task, kind)
    assert bool((expected[where].abs() > 1e-3).any())
    expected[where] *= 0.5
    assert scaled(kind, "actuator_strength", 0.5).tolist() == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("kind", sorted(NO_STRENGTH))
@pytest.mark.parametrize("quantity", ["actuator_strength", "actuator_fade"])
def test_a_force_that_no_numbers_scale_is_refused(kind: str, quantity: str) -> None:
    with pytest.raises(RandomizationError, match=f"^{quantity}.of: {kind} is no motor, servo, damper, muscle or PID"):
        build_parameters(TinyTask(zoo()), {quantity: {"of": kind, "range": [0, 1]}})


@pytest.mark.parametrize(
    ("kind", "quantity", "before", "after"),
    [
        ("position", "actuator_gain", 'kp="20" kv="2"', 'kp="10" kv="1"'),
        ("position", "actuator_kp", 'kp="20"', 'kp="10"'),
        ("position", "actuator_kd", 'kv="2"', 'kv="1"'),
        ("velocity", "actuator_kd", 'kv="3"', 'kv="1.5"'),
        ("damped", "actuator_kd", 'biasprm="0 0 -2"', 'biasprm="0 0 -1"'),
        ("offset", "actuator_gain", 'gainprm="7" biastype="affine" biasprm="4 -3 -2"',
         'gainprm="3.5" biastype="affine" biasprm="4 -1.5 -1"'),
        ("damper", "actuator_gain", 'kv="3"', 'kv="1.5"'),
        ("intvelocity", "actuator_kp", 'kp="5"', 'kp="2.5"'),
        ("pid", "actuator_gain", 'kp="20" kv="2"', 'kp="10" kv="1"'),
        ("pid", "actuator_kp", 'kp="20"', 'kp="10"'),
        ("pid", "actuator_kd", 'kv="2"', 'kv="1"'),
        ("pid_integral", "actuator_gain", 'kp="20" kv="2" ki="3"', 'kp="10" kv="1" ki="1.5"'),
        ("pid_integral", "actuator_kp", 'kp="20"', 'kp="10"'),
        ("pid_integral", "actuator_ki", 'ki="3"', 'ki="1.5"'),
        ("pid_velocity", "actuator_kd", 'kv="2"', 'kv="1"'),
        ("pid_forward", "actuator_kp", 'kp="20"', 'kp="10"'),
        ("limited", "actuator_force_range", 'forcerange="-1.5 2"', 'forcerange="-0.75 1"'),
        ("orientation", "actuator_kp", 'kp="6"', 'kp="3"'),
        ("orientation", "actuator_kd", 'kv="0.5"', 'kv="0.25"'),
    ],
)  # fmt: skip
def test_half_a_gain_is_what_the_same_model_with_half_of_it_has(
    kind: str, quantity: str, before: str, after: str
) -> None:
    line = KINDS[kind]
    assert before in line
    expected = forces(build(TinyTask(zoo(change=(line, line.replace(before, after)))), 1))[0]
    assert scaled(kind, quantity, 0.5).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    assert expected.tolist() != forces(build(TinyTask(zoo()), 1))[0].tolist()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_limp_actuator_moves_nothing(kind: str) -> None:
    task = TinyTask(zoo())
    joint = object_places(task, "joint")[kind]
    dof = int(task.model.jnt_dofadr[joint])
    whole, limp = (
        build(task := TinyTask(zoo()), 1, manual_layer(task, {"actuator_failure": {"of": kind, "range": [p, p]}}))
        for p in (0, 1)
    )
    for environment in (whole, limp):
        forces(environment)
    before, after = (e.engine.data("qfrc_actuator")[0].clone() for e in (whole, limp))
    assert float(before[dof]) != 0.0
    before[dof : dof + (3 if kind == "orientation" else 1)] = 0.0  # of a ball joint
    assert after.tolist() == pytest.approx(before.tolist(), rel=1e-12)


def test_adhesion_goes_limp_though_no_gear_transmits_it() -> None:
    adhesion = """<mujoco><worldbody><geom type="plane" size="1 1 .1"/>
      <body name="pad" pos="0 0 .1"><freejoint/><geom size=".1"/></body></worldbody>
      <actuator><adhesion name="pad" body="pad" gain="40" ctrlrange="0 1"/></actuator></mujoco>"""
    task = TinyTask(adhesion)
    environment = build(task, 1, manual_layer(task, {"actuator_failure": {"of": "pad", "range": [1, 1]}}))
    assert float(environment.engine.field("actuator_gainprm")[0, 0, 0]) == 0.0
    (weak,) = build_parameters(TinyTask(adhesion), {"actuator_strength": {}})
    assert weak.targets == ("pad",)


def commands(entries: dict[str, Any], kinds: tuple[str, ...] = FEW) -> list[float]:
    """What arrives of a command of ones in the model with few actuators."""
    task = TinyTask(zoo(kinds))
    environment = build(task, 1, manual_layer(task, entries))
    environment.step(torch.ones(1, task.action_size))
    return environment.engine.data("ctrl")[0].tolist()


def test_a_stuck_actuator_ignores_all_of_its_inputs_and_no_others() -> None:
    stuck = lambda of: commands({"actuator_stuck": {"of": of, "range": [1, 1]}})  # noqa: E731
    assert stuck("pid") == [0.0, 0.0, 1.0]
    assert stuck("motor") == [1.0, 1.0, 0.0]
    assert stuck("*") == [0.0, 0.0, 0.0]
    with pytest.raises(RandomizationError, match=r"^actuator_stuck\.of: brake is no actuator with an input"):
        stuck("brake")


def test_backlash_acts_on_the_control_of_its_own_actuator() -> None:
    slack = commands({"actuator_backlash": {"of": "motor", "range": [0.5, 0.5]}})
    assert slack[:2] == [1.0, 1.0]
    assert slack[2] < 1.0
    with pytest.raises(RandomizationError, match=r"^actuator_backlash\.of: pid is no motor, servo or PID with one"):
        commands({"actuator_backlash": {"of": "pid"}})


def test_a_servo_behind_an_actuator_of_three_outputs_rests_where_its_own_joint_is() -> None:
    task = TinyTask(zoo(("orientation", "position")), decimation=1)
    entries = {"actuator_backlash": {"of": "position", "range": [0.5, 0.5]}}
    environment = build(task, 1, manual_layer(task, entries))
    for _ in range(3):
        environment.step(torch.zeros(1, task.action_size))
    environment.engine.data("qpos")[0, 4] = 0.5
    environment.engine.forward()
    environment.step(torch.full((1, task.action_size), 0.5))
    # the command is where the joint is, so that nothing of it is slack
    assert float(environment.engine.data("ctrl")[0, 3]) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("quantity", [name for name, q in QUANTITIES.items() if q.target == "actuator"])
def test_a_pattern_chooses_the_actuators_that_it_can_act_on(quantity: str) -> None:
    task = TinyTask(zoo())
    names = usable_names(task, QUANTITIES[quantity])
    assert names
    needed = QUANTITIES[quantity].needs
    entries = {quantity: {"of": "*"}} | ({needed: {}} if needed else {})
    assert build_parameters(task, entries)[0].targets == tuple(names)
    for kind in KINDS:
        if kind not in names:
            with pytest.raises(RandomizationError, match=f"^{quantity}.of: {kind} is no "):
                build_parameters(task, entries | {quantity: {"of": kind}})


def test_an_actuator_that_never_has_a_force_has_none_to_scale() -> None:
    xml = zoo(("motor", "position")).replace('kp="20" kv="2"', 'kp="0" kv="0" forcerange="-1 1"')
    (weak,) = build_parameters(TinyTask(xml), {"actuator_strength": {}})
    assert weak.targets == ("motor",)


def test_an_actuators_effect_on_a_task_without_controls_is_refused() -> None:
    task = TinyTask(zoo(FEW))
    task.command_fields = ("mocap_pos",)
    for quantity in ("actuator_stuck", "actuator_backlash"):
        with pytest.raises(RandomizationError, match=f"^{quantity}: Tiny-v0 writes its controls itself"):
            build_parameters(task, {quantity: {}})
