"""Objects are found where they are: labels are nobody else's, exact names win over patterns, YAML must not guess."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mujoco
import pytest
import yaml
from pydantic import ValidationError

from conftest import TinyTask, build, manual_layer
from envs.common.messages import nearest
from envs.locomotion.gymnasium_v5.common import model_path
from envs.registry import make_task
from randomization.config import first_problem
from randomization.parameters import RandomizationError, build_parameters
from randomization.samplers.frozen import entries_of
from randomization.targets.appearance import camera_names, light_names, surfaces
from randomization.targets.names import matching, object_places
from simreal.evaluation.model_variants import ModelVariant, ModelVariantError
from simreal.evaluation.worlds import WorldFile
from simreal.training.run_config import RunConfig, apply_overrides
from simreal.vision.sensors.pixels import ObservationConfig

# Nothing of the mount has a name; what hangs on it is called as the mount would be.
CLASH = """
<mujoco>
  <worldbody>
    <geom type="plane" size="1 1 .1"/>
    <body pos="0 0 1">
      <geom type="box" size=".1 .1 .1" mass="7"/><joint axis="0 0 1" damping="3"/>
      <body name="body1">
        <joint name="joint0" axis="0 1 0" damping=".5"/>
        <geom name="geom1" type="capsule" fromto="0 0 0 .3 0 0" size=".02" mass=".4"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="joint0" gear="2"/><motor name="actuator0" joint="joint0"/></actuator>
</mujoco>
"""

# Names as exporters and people make them: brackets, wildcards, what YAML takes for a number or a truth value.
ODD = """
<mujoco>
  <worldbody>
    <body name="leg[0]"><joint name="no"/><geom type="sphere" size=".1" mass="1"/></body>
    <body name="leg0"><joint name="off"/><geom type="sphere" size=".1" mass="1"/></body>
    <body name="leg*"><joint name="x"/><geom type="sphere" size=".1" mass="1"/></body>
    <body name="0"><joint name="1e-3"/><geom type="sphere" size=".1" mass="1"/></body>
    <body name="LEG0"><joint name="null"/><geom type="sphere" size=".1" mass="1"/></body>
  </worldbody>
</mujoco>
"""


class Spec(TinyTask):
    """TinyTask, compiled so that worlds can change its parts."""

    def __init__(self, xml: str) -> None:
        super().__init__(xml)
        self.compile_full(())


def written(xml: str, quantity: str, of: str, field: str) -> list[float]:
    """What twice a quantity of some objects makes of a field, as factors of what the field was."""
    task = TinyTask(xml)
    environment = build(task, 1, manual_layer(task, {quantity: {"of": of, "range": [2, 2]}}))
    nominal, live = environment.engine.nominal(field), environment.engine.field(field)[0]
    return [1.0 if was == now else float(now / was) for was, now in zip(nominal.flatten(), live.flatten(), strict=True)]


@pytest.mark.parametrize(
    ("quantity", "of", "field", "index"),
    [
        ("body_mass", "body1", "body_mass", 2),
        ("joint_damping", "joint0", "dof_damping", 1),
        ("geom_solref", "geom1", "geom_solref", 4),
        ("actuator_gain", "actuator0", "actuator_gainprm", 10),
    ],
)
def test_a_real_name_means_the_object_that_has_it(quantity: str, of: str, field: str, index: int) -> None:
    factors = written(CLASH, quantity, of, field)
    assert [i for i, factor in enumerate(factors) if factor == 2.0] == [index]


def test_everything_is_chosen_once_by_a_pattern_and_can_be_named_by_its_label() -> None:
    assert written(CLASH, "body_mass", "*", "body_mass") == [1.0, 2.0, 2.0]
    for label, index in object_places(TinyTask(CLASH), "body").items():
        assert [i for i, f in enumerate(written(CLASH, "body_mass", label, "body_mass")) if f == 2.0] == [index]


def test_a_made_up_label_is_no_real_objects() -> None:
    assert object_places(TinyTask(CLASH), "body") == {"body1_unnamed": 1, "body1": 2}
    assert object_places(TinyTask(CLASH), "joint") == {"joint0_unnamed": 0, "joint0": 1}
    worse = CLASH.replace('name="joint0" axis="0 1 0"', 'name="joint0_unnamed" axis="0 1 0"')
    worse = worse.replace('joint="joint0"', 'joint="joint0_unnamed"')
    assert object_places(TinyTask(worse), "joint") == {"joint0": 0, "joint0_unnamed": 1}
    worst = re.sub(r"</body>\s*</body>", '<body><joint name="joint0"/><geom size=".1"/></body></body></body>', worse)
    assert object_places(TinyTask(worst), "joint") == {"joint0_unnamed_unnamed": 0, "joint0_unnamed": 1, "joint0": 2}


@pytest.mark.parametrize(("body", "index"), [("body1", 2), ("body1_unnamed", 1)])
def test_a_payload_lands_on_the_body_that_it_names(body: str, index: int) -> None:
    task = TinyTask(CLASH)
    before = task.model.body_mass.copy()
    payload = {"model": {"payload": {"body": body, "mass": 1.0}}}
    model = ModelVariant.model_validate(payload).apply(task, lambda: TinyTask(CLASH))
    assert (model.body_mass - before).tolist() == pytest.approx([1.0 if i == index else 0.0 for i in range(3)])


def test_cameras_lights_and_surfaces_called_as_ours_are_keep_to_themselves() -> None:
    model = mujoco.MjModel.from_xml_string("""
      <mujoco>
        <visual><headlight active="1"/></visual>
        <asset><material name="geom1"/><material name="paint"/></asset>
        <worldbody>
          <camera name="view"/><camera/><camera name="camera1"/><light name="headlight"/><light/>
          <geom size=".1" material="paint"/><geom size=".1" rgba="1 0 0 1"/>
          <geom name="paint" size=".1" rgba="1 0 0 1"/>
          <geom size=".1" material="geom1"/>
        </worldbody>
      </mujoco>""")
    assert camera_names(model) == ["camera:view", "camera1_unnamed", "camera1", "view"]
    assert light_names(model) == ["light:headlight", "light1", "headlight"]
    assert {s.name: s.geoms for s in surfaces(model)} == {
        "geom1": (3,), "paint": (0,), "geom1_unnamed": (1,), "geom:paint": (2,)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("leg[0]", ["leg[0]"]),
        ("leg[[]0]", ["leg[0]"]),
        ("leg[01]", ["leg0"]),
        ("leg*", ["leg*"]),
        ("leg?", ["leg0", "leg*"]),
        ("l*", ["leg[0]", "leg0", "leg*"]),
        ("LEG0", ["LEG0"]),
        ("Leg0", []),
    ],
)
def test_an_exact_name_wins_over_a_pattern_and_case_counts(text: str, expected: list[str]) -> None:
    assert matching(text, list(object_places(TinyTask(ODD), "body"))) == expected


def test_a_name_with_brackets_is_found_and_frozen_ranges_find_it_again() -> None:
    (mass,) = build_parameters(TinyTask(ODD), {"body_mass": {"of": ["leg[0]", "leg*"]}})
    assert mass.targets == ("leg[0]", "leg*")
    (frozen,) = build_parameters(TinyTask(ODD), entries_of([mass]))
    assert frozen.targets == mass.targets
    with pytest.raises(RandomizationError, match=re.escape("no body matches 'leg[0' (did you mean 'leg[0]'?)")):
        build_parameters(TinyTask(ODD), {"body_mass": {"of": "leg[0"}})


def test_what_was_asked_for_is_never_suggested() -> None:
    assert nearest("leg", ["leg"]) == ""
    assert nearest("leg", ["leg", "lag"]) == " (did you mean 'lag'?)"


@pytest.mark.parametrize(
    ("block", "key", "got"),
    [
        ("body_mass: {of: 0}", "body_mass.of", "0"),
        ("joint_damping_x: {quantity: joint_armature, of: no}", "joint_damping_x.of", "False"),
        ("body_mass: {of: ['leg*', 0]}", "body_mass.of", "['leg*', 0]"),
        ("joint_armature: {of: null}", "joint_armature.of", "None"),
        ("joint_armature: {of: }", "joint_armature.of", "None"),
        ("body_mass: {of: [off]}", "body_mass.of", "[False]"),
        ("body_mass: {group: on}", "body_mass.group", "True"),
        ("off: {quantity: body_mass}", "False", "label"),
        ("1: {quantity: body_mass}", "1", "label"),
    ],
)
def test_a_name_that_yaml_reads_as_something_else_is_answered_with_quotes(block: str, key: str, got: str) -> None:
    with pytest.raises(RandomizationError) as error:
        build_parameters(TinyTask(ODD), yaml.safe_load(block))
    message = str(error.value)
    assert message.startswith(f"{key}: expected")
    assert got in message
    assert "put a name in quotes" in message
    assert "\n" not in message


def test_quoted_names_and_numbers_as_yaml_1_2_writes_them_are_taken() -> None:
    entries: dict[str, Any] = yaml.safe_load("""
      body_mass: {of: ['0', LEG0], range: [1e-1, 1e1], step: 5e-1}
      joint_stiffness_added: {of: ['no', 'off', '1e-3', 'null'], range: [0, 1e-2]}
    """)
    mass, spring = build_parameters(TinyTask(ODD), entries)
    assert (mass.targets, mass.limits, mass.step) == (("0", "LEG0"), (0.1, 10.0), 0.5)
    assert (spring.targets, spring.limits) == (("no", "off", "1e-3", "null"), (0.0, 0.01))


def test_components_of_one_name_are_refused() -> None:
    task = TinyTask(CLASH)
    task.observation = (task.observation[0], task.observation[0])
    with pytest.raises(ValueError, match="expected different names, got position, position"):
        object_places(task, "component")


def test_an_override_reaches_a_label_with_dots_that_is_there() -> None:
    document: dict[str, Any] = {
        "randomization": {"parameters": {"leg.mass": {"range": [0.5, 2]}, "leg": {}}},
        "seed": 1,
    }
    apply_overrides(
        document, ["randomization.parameters.leg.mass.range=[1, 1]", "seed=2", "randomization.parameters.leg.of=x"]
    )
    assert document == {"randomization": {"parameters": {"leg.mass": {"range": [1, 1]}, "leg": {"of": "x"}}}, "seed": 2}


def test_a_model_of_somebody_elses_for_gymnasiums_tasks_may_have_actuators_with_two_inputs(tmp_path: Path) -> None:
    source = model_path("ant.xml").read_text()
    motor = '<motor ctrllimited="true" ctrlrange="-1.0 1.0" joint="hip_4" gear="150"/>'
    assert motor in source
    path = tmp_path / "ant.xml"
    path.write_text(source.replace(motor, '<pid joint="hip_4" kp="9" gear="150" posrange="-1 1" velrange="-1 1"/>'))
    (motors,) = make_task("Ant-v5", xml_file=str(path)).action
    assert (motors.size, motors.actuators[:2]) == (9, ("actuator0", "actuator0"))
    assert motors.elements[:3] == ("actuator0[0]", "actuator0[1]", "actuator1[0]")
    assert motors.joints[:3] == ("hip_4", "hip_4", "ankle_4")


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ("model: {payload: {body: 0, mass: 1}}", "model.payload.body"),
        ("model: {backlash: {play: 0.1, of: no}}", "model.backlash.of"),
        ("name: off", "name"),
    ],
)
def test_worlds_say_how_to_quote_names_too(block: str, key: str) -> None:
    with pytest.raises(ValidationError) as error:
        WorldFile.model_validate(yaml.safe_load(block))
    message = first_problem(error.value, WorldFile)
    assert message.startswith(f"{key}: input should be a valid string, got ")
    assert "put a name in quotes" in message


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"pixels": {"size": -7}}, "pixels.size: input should be greater than or equal to 1, got -7"),
        ({"pixels": {"crop": [0, 0, "a", 8]}}, "pixels.crop.2: input should be a valid integer"),
    ],
)
def test_keys_are_those_of_the_file(block: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        ObservationConfig.model_validate(block)
    assert first_problem(error.value, ObservationConfig).startswith(said)


def test_what_was_got_is_said_once() -> None:
    with pytest.raises(ValidationError) as error:
        RunConfig.model_validate({"task": "Hopper-v5", "learner": {"algorithm": "ppo"}, "observation": "pixel"})
    said = "observation: expected state, pixels or a mapping with pixels, got 'pixel'"
    assert first_problem(error.value, RunConfig) == said


def test_a_driven_joint_is_named_exactly_or_by_pattern() -> None:
    xml = ODD.replace("</worldbody>", '</worldbody><actuator><motor joint="no"/><motor joint="off"/></actuator>')
    xml = xml.replace('"no"', '"hip[0]"').replace('"off"', '"hip0"')
    for of, joints in (("hip[0]", ["hip[0]~slack"]), ("hip*", ["hip[0]~slack", "hip0~slack"])):
        make = lambda: Spec(xml)  # noqa: E731
        backlash = {"model": {"backlash": {"play": 0.1, "of": of}}}
        model = ModelVariant.model_validate(backlash).apply(make(), make)
        names = [model.joint(i).name for i in range(model.njnt)]
        assert [name for name in names if name.endswith("~slack")] == joints
    with pytest.raises(ModelVariantError, match=re.escape("no driven joint matches 'hip[0' (did you mean 'hip[0]'?)")):
        ModelVariant.model_validate({"model": {"backlash": {"play": 0.1, "of": "hip[0"}}}).apply(Spec(xml), make)
