"""The whole look at a robot's file."""

from __future__ import annotations

from dataclasses import replace

from envs.robots.doctor.contacts import examine_contacts
from envs.robots.doctor.joints import examine_joints
from envs.robots.doctor.keyframes import examine_keyframes
from envs.robots.doctor.masses import examine_masses
from envs.robots.doctor.moving import examine_moving
from envs.robots.doctor.symptom import Symptom
from envs.robots.doctor.urdf import examine_urdf
from envs.robots.files import RobotFile

_ORDER = ("error", "warning", "note")


def examine(robot: RobotFile) -> list[Symptom]:
    """What is wrong with a robot's file, errors first; each once, by its cause where that is known.

    What is found in the file decides what is still asked: a robot that does not compile is not moved.
    """
    found: list[Symptom] = []
    if robot.urdf is not None:
        found += examine_urdf(robot.urdf)
    else:
        found += [Symptom("error", "mesh", f"file {name!r}", "is not there", "put it there, or mend the path to it")
                  for name in robot.missing]  # fmt: skip
    if robot.model is not None:  # as MuJoCo was told to spread inertias
        found = [replace(s, severity="warning") if (s.severity, s.kind) == ("error", "inertia") else s for s in found]
    if robot.model is None:
        if not any(symptom.severity == "error" for symptom in found):
            found.append(_refused(robot))
        return _sorted(found)
    model = robot.model
    found += examine_masses(model)
    found += examine_joints(model, robot.urdf is not None)
    found += examine_contacts(model)
    found += examine_keyframes(model)
    if not any(symptom.severity == "error" and symptom.kind != "actuators" for symptom in found):
        found += examine_moving(robot.again(), robot.path.name)
    return _sorted(found)


_WORDS = {  # of MuJoCo's messages -> kind and remedy
    "mass and inertia of moving bodies": ("mass", "give every body that moves mass and inertia: geoms or <inertial>"),
    "inertia must satisfy": ("inertia", "no distribution of mass has this: take it from CAD, about the centre of mass"),
    "inertia": ("inertia", "state it in kg m2, about the centre of mass"),
    "keyframe": ("keyframe", "as many values as the model has coordinates: qpos, qvel, ctrl"),
    "key": ("keyframe", "as many values as the model has coordinates: qpos, qvel, ctrl"),
    "range": ("limits", "expected lower < upper"),
    "mesh": ("mesh", "look at the file of the mesh"),
    "file": ("mesh", "look at the path"),
}


def _refused(robot: RobotFile) -> Symptom:
    """What MuJoCo said of a file that does not compile."""
    text = robot.error.lower()
    kind, remedy = next((pair for word, pair in _WORDS.items() if word in text), ("compile", "mend what MuJoCo names"))
    return Symptom("error", kind, robot.path.name, f"MuJoCo refuses it: {robot.error}", remedy)  # pyright: ignore[reportArgumentType]


def _sorted(found: list[Symptom]) -> list[Symptom]:
    unique = {(s.kind, s.of, s.evidence): s for s in found}
    return sorted(unique.values(), key=lambda symptom: _ORDER.index(symptom.severity))
