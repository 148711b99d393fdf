"""The Unitree Go1 of MuJoCo Menagerie as `go1` simulates it: actuators of the machine, contacts, terrain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import mujoco
import numpy as np

from envs.platform.menagerie import load_robot, robot_path
from envs.task import SpecEdit, compile_spec, spec_edits

Terrain = Literal["flat", "rough"]

ROBOT = "unitree_go1"

FEET = ("FR", "FL", "RR", "RL")  # front right, front left, rear right, rear left: the order of the machine's interface
LEG_JOINTS = ("hip", "thigh", "calf")  # abduction, hip, knee
JOINTS = tuple(f"{foot}_{joint}_joint" for foot in FEET for joint in LEG_JOINTS)
ACTUATORS = tuple(f"{foot}_{joint}" for foot in FEET for joint in LEG_JOINTS)
FOOT_RADIUS_M = 0.023

# Standing, with the feet under the hips (rad).
STANCE = tuple(value for foot in FEET for value in (0.1 if foot.endswith("L") else -0.1, 0.9, -1.8))
STANCE_HEIGHT_M = 0.278

# The machine's motors (unitree_ros, go1.urdf): rotor inertia, and gears that the knee's linkage makes 1.5 times slower.
_ROTOR_INERTIA = 1.11842e-4  # kg m^2
ARMATURE = tuple(_ROTOR_INERTIA * gear**2 for _ in FEET for gear in (6.0, 6.0, 9.0))  # as joints feel it, kg m^2
EFFORT_NM = (23.7, 23.7, 35.55) * 4
# Gains of the joints' controllers. With less stiffness the machine does not stand when it holds still (25 N m/rad: the
# trunk sags by 10 cm; 20: it falls); published controllers of the Go1 use 20 to 40 N m/rad and 0.5 to 1 N m s/rad.
# Torque = KP (target - q) - KD qvel, within +-EFFORT_NM.
KP = 35.0  # N m/rad
KD = 0.8  # N m s/rad

TERRAIN_HALF_SIZE_M = 16.0
_TERRAIN_CELL_M = 0.1


def terrain_heights(roughness_m: float, seed: int = 0) -> np.ndarray:
    """Heights [rows along y, columns along x] in [0, 1] of uneven ground: bumps of 0.2 to 0.4 m on waves of 2 m.

    Args:
        roughness_m: height of the bumps; only decides how they compare with the waves.
        seed: of the ground; the same for every simulation.
    """
    size = round(2 * TERRAIN_HALF_SIZE_M / _TERRAIN_CELL_M) + 1
    generator = np.random.default_rng(seed)
    heights = np.zeros((size, size))
    for wavelength_m, amplitude in ((0.2, 0.5 * roughness_m), (0.4, roughness_m), (2.0, 1.5 * roughness_m)):
        coarse = generator.random((round(2 * TERRAIN_HALF_SIZE_M / wavelength_m) + 2,) * 2)
        at = np.arange(size) * _TERRAIN_CELL_M / wavelength_m
        low, part = at.astype(int), at - at.astype(int)
        along_y = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
        heights += amplitude * (along_y[:, low] * (1 - part) + along_y[:, low + 1] * part)
    heights -= heights.min()
    return heights / heights.max()


def terrain_amplitude_m(roughness_m: float) -> float:
    """Height of the highest point of `terrain_heights` above the lowest."""
    return 2.5 * roughness_m


def build_model(terrain: Terrain, roughness_m: float, full: Sequence[int] = ()) -> mujoco.MjModel:
    """Compile the robot on its ground.

    Feet and trunk touch the ground; legs do not touch each other. Contacts are harder to compute in the Menagerie
    (elliptic cones with rolling friction and a large impratio), at a third of the speed.

    Args:
        terrain: what it stands on.
        roughness_m: see `terrain_heights`.
        full: see `compile_spec`.

    Raises:
        ModelUnavailableError: the robot's files are not there.
        ValueError: rough ground without roughness, or the robot is not the one that this was written for.
    """
    if terrain == "rough" and not 0.0 < roughness_m < math.inf:
        raise ValueError(f"roughness_m: expected more than 0 on rough ground, got {roughness_m}")
    return _compiled(
        str(robot_path(ROBOT)), terrain, roughness_m if terrain == "rough" else 0.0, tuple(full), spec_edits()
    )


@cache
def _compiled(
    _path: str, terrain: Terrain, roughness_m: float, full: tuple[int, ...], _edits: tuple[SpecEdit, ...]
) -> mujoco.MjModel:
    """One model of all tasks that ask for the same; `_edits` are those that `compile_spec` makes."""
    spec = load_robot(ROBOT)
    option = spec.option
    option.timestep = 0.005
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    option.impratio = 1.0
    _set_contacts(spec)
    _set_motors(spec)
    _add_ground(spec, terrain, roughness_m)
    _add_sensors(spec)
    return compile_spec(spec, full)


def _set_contacts(spec: mujoco.MjSpec) -> None:
    feet = set(FEET)
    for body in spec.bodies[1:]:
        for geom in body.geoms:
            if geom.contype == 0 and geom.conaffinity == 0:
                continue  # looks only
            touches = geom.name in feet or body.name == "trunk"
            geom.contype, geom.conaffinity = int(touches), 0
            if geom.name in feet:
                geom.condim = 3
                feet.remove(geom.name)
    if feet:
        raise ValueError(f"unitree_go1: no foot geom named {', '.join(sorted(feet))}")


def _set_motors(spec: mujoco.MjSpec) -> None:
    parts = zip(ACTUATORS, JOINTS, ARMATURE, EFFORT_NM, strict=True)
    for name, joint_name, armature, effort in parts:
        actuator, joint = spec.actuator(name), spec.joint(joint_name)
        if actuator is None or joint is None:
            raise ValueError(f"unitree_go1: no actuator {name} or joint {joint_name}")
        joint.armature = armature
        actuator.gainprm[0], actuator.biasprm[1], actuator.biasprm[2] = KP, -KP, -KD
        actuator.forcerange = (-effort, effort)
    if [actuator.name for actuator in spec.actuators] != list(ACTUATORS):
        raise ValueError("unitree_go1: its actuators are not in the order of the machine's interface")


def _add_ground(spec: mujoco.MjSpec, terrain: Terrain, roughness_m: float) -> None:
    world = spec.worldbody
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.75, 0.84, 0.92), rgb2=(0.96, 0.97, 0.98), width=64, height=384,
    )  # fmt: skip
    spec.add_texture(
        name="ground", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=(0.62, 0.66, 0.70), rgb2=(0.72, 0.76, 0.80), width=256, height=256,
    )  # fmt: skip
    material = spec.add_material(name="ground", texrepeat=(1, 1), texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "ground"
    world.add_light(  # without a shadow: that of a directional light covers the origin only
        pos=(0, 0, 4), dir=(0.2, 0.2, -1), type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, diffuse=(0.5, 0.5, 0.5),
        castshadow=False,
    )  # fmt: skip
    ground = world.add_geom(name="floor", material="ground", contype=1, conaffinity=1, condim=3)
    if terrain == "flat":
        ground.type, ground.size = mujoco.mjtGeom.mjGEOM_PLANE, (0, 0, 0.05)
        return
    heights, half = terrain_heights(roughness_m), TERRAIN_HALF_SIZE_M
    spec.add_hfield(
        name="ground", nrow=len(heights), ncol=len(heights), userdata=heights.flatten(),
        size=(half, half, terrain_amplitude_m(roughness_m), 0.1),
    )  # fmt: skip
    ground.type, ground.hfieldname = mujoco.mjtGeom.mjGEOM_HFIELD, "ground"


def _add_sensors(spec: mujoco.MjSpec) -> None:
    """Feet: does it touch, with what force (world frame, of all its contacts), how fast does it move."""
    found, force = int(mujoco.mjtConDataField.mjCONDATA_FOUND), int(mujoco.mjtConDataField.mjCONDATA_FORCE)
    net_force = 3
    for foot in FEET:
        spec.add_sensor(
            name=f"{foot}_contact", type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_GEOM,
            objname=foot, intprm=[1 << found | 1 << force, net_force, 1],
        )  # fmt: skip
    for foot in FEET:
        spec.add_sensor(
            name=f"{foot}_velocity", type=mujoco.mjtSensor.mjSENS_FRAMELINVEL, objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname=foot,
        )  # fmt: skip
    spec.add_sensor(
        name="trunk_contact", type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="trunk",
        intprm=[1 << found, 0, 1],
    )  # fmt: skip
