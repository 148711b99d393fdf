"""What changes nothing is refused or warned about, in one line that says why."""

from __future__ import annotations

from typing import Any

import mujoco
import pytest

from conftest import TinyTask, build, fixed_worlds
from noop import warnings_heard
from noop_models import FLAGS, JOINTS, PLANAR
from randomization.catalogue.table import QUANTITIES
from randomization.parameters import RandomizationError, build_parameters
from randomization.targets.suitable import usable_names


def slide(floor: str = "", block: str = "", contact: str = "") -> str:
    """A block on a floor, with a decoration."""
    return f"""
    <mujoco><option timestep="0.002" cone="elliptic" impratio="10"/><worldbody>
      <geom name="floor" type="plane" size="9 9 .1" {floor}/>
      <body name="block" pos="0 0 .0499"><freejoint/><geom name="block" type="box" size=".1 .1 .05" mass="1" {block}/>
        <geom name="skin" type="sphere" size=".12" contype="0" conaffinity="0" mass="0"/></body>
    </worldbody>{contact}</mujoco>"""


OFF = 'contype="0" conaffinity="0"'
PAIR = '<contact><pair geom1="floor" geom2="block" friction="1 1 .005 .0001 .0001"/></contact>'
IN_VACUUM = JOINTS.replace('density="1.2" viscosity="2e-5"', "")
PAIRED = slide(OFF, OFF, PAIR)
DIRECT = 'solref="-900 -60"'
FAST = 'solref="0.006 1"'


def slid(xml: str, entries: dict[str, Any], *factors: float) -> list[float]:
    """How far the block slides in worlds of the first parameter, m: v^2 / (2 mu g) from 2 m/s."""
    task = TinyTask(xml, decimation=1, max_episode_steps=10_000)
    worlds = [[factor] * len(entries) for factor in factors]
    env = build(task, len(worlds), fixed_worlds(task, entries, worlds))
    env.engine.data("qvel")[:, 0] = 2.0
    env.engine.step(1000)
    return env.engine.data("qpos")[:, 0].tolist()


@pytest.mark.parametrize("of", ["block", "floor", "*"])
def test_friction_of_a_declared_pair_is_that_of_its_geoms_times_the_factor(of: str) -> None:
    found = slid(PAIRED, {"geom_friction": {"of": of, "range": [0.3, 2.0]}}, 1.0, 0.3, 2.0)
    assert found == pytest.approx([4.0 / (2 * 9.81 * mu) for mu in (1.0, 0.3, 2.0)], rel=0.04)


def test_a_pair_has_the_product_of_the_factors_of_both_its_geoms() -> None:
    entries = {name: {"quantity": "geom_friction", "of": name, "range": [0.3, 2.0]} for name in ("block", "floor")}
    found = slid(PAIRED, entries, 0.5)  # both
    assert found == pytest.approx([4.0 / (2 * 9.81 * 0.25)], rel=0.02)


@pytest.mark.parametrize(
    ("xml", "entries", "message"),
    [
        (slide(), {"geom_friction": {"of": "skin"}}, "geom_friction.of: skin touches nothing"),
        (slide(OFF), {"geom_friction": {"of": "floor"}}, "geom_friction.of: floor touches nothing"),
        (slide(OFF, OFF), {"geom_solref": {}}, r"no geom that matches '\*' would do: floor touches nothing"),
        (slide(), {"geom_friction_spin": {"of": "block"}}, "condim of at least 4 that spinning friction needs"),
        (slide('condim="4"'), {"geom_friction_roll": {"of": "block"}}, "at least 6 that rolling"),
        (slide('condim="6" priority="-1"'), {"geom_friction_roll": {"of": "block"}}, "at least 6 that rolling"),
        (slide('priority="1"'), {"geom_friction": {"of": "block"}}, "from the other geom .* such as 'floor'"),
        (slide('priority="1"'), {"geom_solimp_dmax": {"of": "block"}}, "from the other geom .* such as 'floor'"),
        (slide('solmix="0"'), {"geom_solref": {"of": "floor"}}, "from the other geom .* such as 'block'"),
        (slide('solref="-900 -60"'), {"geom_solref": {"of": "block"}}, "from the other geom .* such as 'floor'"),
        (slide('priority="1"', "", PAIR.replace("/>", ' condim="1"/>')), {"geom_friction": {}}, "condim of at least 3"),
        (slide(), {"geom_pos_x": {"of": "floor"}}, "all that touches it is the same along that axis"),
        (PLANAR, {"geom_pos_y": {"of": "shin"}}, "all that touches it is the same along that axis"),
        (PLANAR, {"body_com_y": {"of": "leg"}}, "leg changes nothing: the joints that move it do not feel"),
        (PLANAR, {"gravity": {"of": "[y]"}}, "no axis that matches .* would do: y changes nothing"),
        (IN_VACUUM, {"body_inertia": {"of": "cart"}}, "body_inertia.of: cart changes nothing: no joint turns it"),
        (JOINTS, {"body_com": {"of": "cart"}}, "body_com.of: cart changes nothing"),
        (JOINTS, {"body_mass": {"of": "stand"}}, "body_mass.of: stand changes nothing: no joint moves it"),
        (JOINTS, {"joint_frictionloss": {"of": "screw"}}, "the joint is locked by its damping"),
        (JOINTS, {"tendon_length_spring": {"of": "limp"}}, "the tendon has no stiffness"),
        (JOINTS.replace("<option", '<option gravity="0 0 0"'), {"body_com_z": {"of": "cart"}}, "nothing"),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_an_error_that_says_why(xml: str, entries: dict[str, Any], message: str) -> None:
    with pytest.raises(RandomizationError, match=message) as caught:
        build_parameters(TinyTask(xml), entries)
    assert "\n" not in str(caught.value)


def test_gravity_along_which_nothing_moves_is_warned_of_and_no_pattern_takes_it() -> None:
    with warnings_heard() as heard:  # no error: one file of worlds serves planar robots and others
        build_parameters(TinyTask(PLANAR), {"gravity": {"of": ["x", "y"]}})
    assert heard == ["gravity.of: y changes nothing: nothing in the model can follow it along this axis"]
    assert usable_names(TinyTask(PLANAR), QUANTITIES["gravity"]) == ["x", "z"]


def test_gravity_that_compensation_takes_away_is_refused() -> None:
    body = '<body gravcomp="1"><joint axis="0 1 0"/><geom size=".1" pos=".2 0 0"/></body>'
    xml = f"<mujoco><worldbody>{body}</worldbody></mujoco>"
    for entries in ({"gravity": {"of": "*"}}, {"base_acceleration": {}}):
        with pytest.raises(RandomizationError, match="changes nothing"):
            build_parameters(TinyTask(xml), entries)
        build_parameters(TinyTask(xml.replace('"1"', '"0.5"', 1)), entries)


@pytest.mark.parametrize(
    ("xml", "entries", "message"),
    [
        (
            slide(), {"geom_friction": {"of": "block", "range": [0.3, 0.9]}},
            "larger of the two: lowering 'block' (1) to 0.3 times that does nothing beside 'floor' (1); name both",
        ),
        (
            slide(block='friction="0.5 0.005 0.0001"'), {"geom_friction": {"of": "block", "range": [1.0, 2.0]}},
            "raising 'block' (0.5) to 2 times that does nothing beside 'floor' (1); name both",
        ),
        (
            slide('solref="-2000 -60"', 'solref="-900 -30"'), {"geom_solref": {"of": "block", "range": [1.0, 1.5]}},
            "stiffer solref of the two: that of 'block' times 1.5 leaves 'floor' to decide; name both",
        ),
        (  # 0.02 s / 36^0.5 at steps of 2 ms
            slide(), {"contact_stiffness": {"range": [0.5, 36]}},
            "contact_stiffness: contacts of 'floor' would have a time constant of 0.00333 s at an end of the range; "
            "MuJoCo takes none below two physics steps (0.004 s), so near that end less is changed than it says",
        ),
        (slide(FAST, FAST), {"geom_solref": {"range": [0.5, 1]}}, "'floor' would have a time constant of 0.003 s"),
        (PAIRED, {"contact_damping": {"of": "block", "range": [1, 8]}}, "'block' would have a time constant of 0.0025"),
    ],
)  # fmt: skip
def test_a_range_that_the_partner_makes_idle_is_warned_of(xml: str, entries: dict[str, Any], message: str) -> None:
    with warnings_heard() as heard:
        build_parameters(TinyTask(xml), entries)
    assert len(heard) == 1
    assert message in heard[0]


def test_half_a_range_that_does_nothing_is_warned_of_once() -> None:
    task = TinyTask(slide())
    with warnings_heard() as heard:
        for _ in range(2):
            build_parameters(task, {"grip": {"quantity": "geom_friction", "of": "block", "range": [0.3, 2.0]}})
    assert heard == [
        "grip: friction of a contact is the larger of the two: lowering 'block' (1) to 0.3 times that does nothing "
        "beside 'floor' (1); name both"
    ]


def test_contacts_that_a_physics_step_allows_are_not_warned_of() -> None:
    each: dict[str, Any] = {"contact_stiffness": {"range": [1, 9]}, "contact_damping": {"range": [1, 2]}}
    unlimited = slide().replace('impratio="10"/>', 'impratio="10"><flag refsafe="disable"/></option>')
    with warnings_heard() as heard:
        for name, entry in each.items():
            build_parameters(TinyTask(slide()), {name: entry})
        for xml in (unlimited, slide(DIRECT, DIRECT)):
            build_parameters(TinyTask(xml), each)
        # the mean of 0.02 / 36^0.5 and of the floor's 0.02 s
        build_parameters(TinyTask(slide()), {"contact_stiffness": {"of": "block", "range": [1, 36]}})
    assert heard == []
    with warnings_heard() as heard:
        build_parameters(TinyTask(slide()), each)
    assert len(heard) == 1
    assert heard[0].startswith("contact_stiffness, contact_damping: contacts of 'floor' would have")


def test_both_geoms_named_in_one_or_in_two_parameters_are_not_warned_of() -> None:
    low = slide(block='friction="0.5 0.005 0.0001"')
    each = {"quantity": "geom_friction", "range": [0.3, 2.0]}
    with warnings_heard() as heard:
        for xml in (slide(), low, slide('priority="1"'), PAIRED):
            build_parameters(TinyTask(xml), {"geom_friction": {"range": [0.3, 2.0]}})
        build_parameters(TinyTask(slide()), {"a": {**each, "of": "block"}, "b": {**each, "of": "floor"}})
    assert heard == []


def test_shapes_that_touch_nothing_may_be_moved_by_name_with_a_warning_and_no_pattern_takes_them() -> None:
    task = TinyTask(slide())
    for quantity in ("geom_size", "geom_pos", "geom_pos_z"):
        assert "skin" not in usable_names(task, QUANTITIES[quantity])
        with warnings_heard() as heard:
            build_parameters(task, {quantity: {"of": "skin"}})
        assert heard == [f"{quantity}.of: skin touches nothing: this changes what is seen of it and no motion"]


def test_a_gap_without_adhesion_and_a_width_of_a_constant_impedance_are_warned_of() -> None:
    for quantity, xml in (("geom_gap", slide()), ("geom_solimp_width", slide(*['solimp="0.9 0.9 0.01"'] * 2))):
        with warnings_heard() as heard:
            build_parameters(TinyTask(xml), {quantity: {"of": "block"}})
        assert len(heard) == 1
        assert heard[0].startswith(f"{quantity}.of: block changes no motion: ")


def flagged(flag: str) -> str:
    """Everything, with one flag off."""
    spec = mujoco.MjSpec.from_string(JOINTS)
    spec.option.disableflags |= int(getattr(mujoco.mjtDisableBit, f"mjDSBL_{flag.upper()}"))
    spec.compile()
    return spec.to_xml()


GONE: dict[str, set[str]] = {
    "constraint": {
        "joint_frictionloss", "joint_frictionloss_added", "joint_range", "joint_range_lower", "joint_range_upper",
        "tendon_range", "tendon_range_lower", "tendon_range_upper",
    },
    "equality": set(),
    "frictionloss": {"joint_frictionloss", "joint_frictionloss_added"},
    "limit": {
        "joint_range", "joint_range_lower", "joint_range_upper", "tendon_range", "tendon_range_lower",
        "tendon_range_upper",
    },
    "contact": set(),
    "spring": {"joint_stiffness", "joint_stiffness_added", "tendon_stiffness", "tendon_length_spring"},
    "damper": {"joint_damping"},
    "gravity": {"gravity"},
    "actuation": set(),
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_that_switches_a_thing_off_switches_off_what_varies_it(flag: str) -> None:
    whole, less = TinyTask(JOINTS), TinyTask(flagged(flag))
    physics = [q for q in QUANTITIES.values() if q.channel == "physics" and q.target != "none"]
    gone = {q.name for q in physics if usable_names(whole, q) and not usable_names(less, q)}
    assert gone == GONE[flag]
    for name in gone:
        with pytest.raises(RandomizationError, match=f"has {flag} switched off"):
            build_parameters(less, {name: {"of": usable_names(whole, QUANTITIES[name])[0]}})


def test_air_without_passive_forces_is_refused() -> None:
    spec = mujoco.MjSpec.from_string(JOINTS)
    for flag in ("SPRING", "DAMPER"):
        spec.option.disableflags |= int(getattr(mujoco.mjtDisableBit, f"mjDSBL_{flag}"))
    spec.compile()
    for entries in ({"wind": {"of": "x"}}, {"air_density": {}}):
        with pytest.raises(RandomizationError, match="has spring and damper switched off"):
            build_parameters(TinyTask(spec.to_xml()), entries)


def test_actuators_of_a_disabled_group_and_of_a_model_without_actuation_are_refused() -> None:
    xml = PLANAR.replace('<option timestep="0.002"/>', '<option timestep="0.002" actuatorgroupdisable="0"/>')
    for quantity in ("actuator_strength", "actuator_gain", "actuator_failure", "actuator_stuck", "actuator_fade"):
        with pytest.raises(
            RandomizationError, match="hip belongs to a group of actuators that the model has switched off"
        ):
            build_parameters(TinyTask(xml), {quantity: {"of": "hip"}})
    xml = PLANAR.replace('<option timestep="0.002"/>', '<option><flag actuation="disable"/></option>')
    for entries in ({"actuator_failure": {"of": "hip"}}, {"action_noise": {"of": "ctrl"}}, {"action_delay": {}}):
        with pytest.raises(RandomizationError, match="has actuation switched off"):
            build_parameters(TinyTask(xml), entries)
