"""Hands that hold a cube: robots of MuJoCo Menagerie with a cube in their palm, as one model.

Both hands have their palm up and their fingers along +x; the thumb is on the side of -y. What differs from the
Menagerie's models, and why:

* The integrator is implicitfast and a physics step 10 ms. With rotor inertia (below) nothing in these models is faster
  than that, a control step is five of them, and a CPU makes four times as many as with 2 ms.
* The Allegro's servos are those of Isaac Lab's Allegro hand (edition of 2025: gain 3 N m/rad, effort 0.5 N m, dry
  friction 0.01 N m, damping 0.1 N m s/rad), with a rotor inertia of 0.001 kg m^2. The Menagerie has a gain of 1,
  no limit, no friction and no inertia: a finger of 10 g without a rotor takes physics steps of 2 ms to be stable, and
  factors on friction and inertia, which ADR varies, would do nothing.
* The Shadow hand's rotor inertia is 0.001 kg m^2 for the same reason. Its fingertips are capsules in place of meshes:
  cheaper contacts, and a size that can be randomized. Its forearm touches nothing.
  Its tendons, which couple the outer two joints of a finger, end where those joints do: a range to be randomized.
* What collides has a name (that of its body, numbered where a body has several shapes). What is only drawn is called
  look_... and touches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import mujoco
import numpy as np

from envs.platform.menagerie import load_robot
from envs.task import SpecEdit, compile_spec, id_of, spec_edits

Vector = tuple[float, float, float]

_GEOM, _JOINT = mujoco.mjtGeom, mujoco.mjtObj.mjOBJ_JOINT
_TIMESTEP_S = 0.01
_FACES = ((0.85, 0.2, 0.2), (1.0, 0.55, 0.1), (0.2, 0.65, 0.3), (0.2, 0.4, 0.85), (0.95, 0.95, 0.95), (0.95, 0.85, 0.2))
_TEXELS = 32  # along an edge of a face
_BORDER = 2  # texels
CUBE_MASS_KG = 0.08
FRICTION = (0.8, 0.005, 0.0001)  # sliding, spinning (m), rolling (m)


@dataclass(frozen=True)
class Hand:
    """A hand and how it holds a cube; lengths in m, angles in rad.

    Attributes:
        robot: name of the model, see `load_robot`.
        root: its outermost body.
        root_pos: where that is.
        fingertips: bodies at the ends of the fingers, with the capsule that stands for each: the height of its middle
            above the body's origin, radius and half length.
        grasp: joint angles at which the hand holds the cube; joints that are not named are at 0.
        cube_edge: of the cube.
        cube_rest: where the cube's centre comes to rest in that grasp.
        cube_start: where it is when an episode begins: above the palm, so that no shape begins inside another.
        goal_pos: where the goal is drawn.
        armature: rotor inertia at every joint, kg m^2.
        servo: gain in N m/rad and largest torque in N m of every servo; None leaves the model's.
        dry_friction: of every joint, N m; None leaves the model's.
        replaced_tips: the model's fingertips are meshes, to be replaced.
        ghosts: bodies whose shapes touch nothing.
    """

    robot: str
    root: str
    root_pos: Vector
    fingertips: dict[str, Vector]
    grasp: dict[str, float]
    cube_edge: float
    cube_rest: Vector
    cube_start: Vector
    goal_pos: Vector
    armature: float = 0.001
    servo: tuple[float, float] | None = None
    dry_friction: float | None = None
    replaced_tips: bool = False
    ghosts: tuple[str, ...] = field(default=())


AddCube = Callable[[mujoco.MjSpec, Hand], None]

_CURLED = {"j1": 0.5, "j2": 0.7, "j3": 0.7}
ALLEGRO = Hand(
    robot="wonik_allegro/right_hand",
    root="palm",
    root_pos=(0.0, 0.0, 0.0),
    fingertips={f"{f}_tip": (0.019, 0.012, 0.01) for f in ("ff", "mf", "rf")} | {"th_tip": (0.035, 0.012, 0.008)},
    grasp={f"{f}{j}": angle for f in ("ff", "mf", "rf") for j, angle in _CURLED.items()}
    | {"thj0": 0.8, "thj1": 0.5, "thj2": 0.3, "thj3": 0.3},
    cube_edge=0.065,
    cube_rest=(-0.0135, 0.0, 0.0445),
    cube_start=(-0.012, 0.0, 0.049),
    goal_pos=(0.0, 0.17, 0.045),
    servo=(3.0, 0.5),
    dry_friction=0.01,
)
_BENT = {"J3": 0.6, "J2": 0.6, "J1": 0.5}
SHADOW = Hand(
    robot="shadow_hand/right_hand",
    root="rh_forearm",
    root_pos=(-0.3, 0.0, 0.0),
    fingertips={f"rh_{f}distal": (0.0165, 0.0075, 0.0085) for f in ("ff", "mf", "rf", "lf")}
    | {"rh_thdistal": (0.019, 0.009, 0.007)},
    grasp={f"rh_{f}{j}": angle for f in ("FF", "MF", "RF", "LF") for j, angle in _BENT.items()}
    | {"rh_LFJ5": 0.3, "rh_WRJ1": -0.15, "rh_THJ4": 0.8, "rh_THJ2": 0.2, "rh_THJ1": 0.5},
    cube_edge=0.055,
    cube_rest=(0.0195, -0.0045, 0.0385),
    cube_start=(0.012, 0.0, 0.054),
    goal_pos=(0.02, 0.17, 0.05),
    replaced_tips=True,
    ghosts=("rh_forearm",),
)


@dataclass(frozen=True)
class HandModel:
    """A compiled hand with a cube, and what a task has to know of it.

    Attributes:
        model: the hand's joint coordinates come first, then the cube's pose, then what its faces have.
        joints: of the hand, in the order of the coordinates.
        grasp: [njoints] angles at which the hand holds the cube.
        targets: [nu] what the actuators are told in that grasp: angles, or sums of angles of coupled joints.
    """

    model: mujoco.MjModel
    joints: tuple[str, ...]
    grasp: np.ndarray
    targets: np.ndarray


def build(hand_name: str, full: tuple[int, ...] = (), add_cube: AddCube | None = None) -> HandModel:
    """The model of a hand in `HANDS` holding a cube.

    Args:
        hand_name: a key of `HANDS`.
        full: see `compile_spec`.
        add_cube: adds to the specification a body "cube" with a free joint of that name, and how its goal is shown;
            None: a cube in one piece. One function for one kind of cube: models are cached.
    """
    return _build(hand_name, full, add_cube or _add_cube, spec_edits())


@cache
def _build(hand_name: str, full: tuple[int, ...], add_cube: AddCube, _edits: tuple[SpecEdit, ...]) -> HandModel:
    """`_edits` are those that `compile_spec` makes: each set has a cached model of its own."""
    hand = HANDS[hand_name]
    spec = load_robot(hand.robot)
    _set_options(spec)
    _edit_hand(spec, hand)
    add_cube(spec, hand)
    _add_surroundings(spec)
    model = compile_spec(spec, full)
    _strengthen(model, hand)
    joints = tuple(model.joint(i).name for i in range(id_of(model, _JOINT, "cube")))
    grasp = np.array([hand.grasp.get(name, 0.0) for name in joints])
    data = mujoco.MjData(model)
    data.qpos[: len(grasp)] = grasp
    mujoco.mj_forward(model, data)
    return HandModel(model, joints, grasp, data.actuator_length.copy())


def _set_options(spec: mujoco.MjSpec) -> None:
    spec.option.timestep = _TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST


def _edit_hand(spec: mujoco.MjSpec, hand: Hand) -> None:
    """Place the hand, name what collides, put a sensor of touch on every fingertip."""
    spec.body(hand.root).pos = hand.root_pos
    for body in spec.bodies:
        shapes = [g for g in body.geoms if g.contype and body.name not in hand.ghosts]
        for i, geom in enumerate(g for g in body.geoms if g not in shapes):
            geom.name, geom.contype, geom.conaffinity = f"look_{body.name}{i}", 0, 0
        tip = hand.fingertips.get(body.name)
        if tip is not None and hand.replaced_tips:
            for geom in shapes:
                spec.delete(geom)
            height, radius, half = tip
            shapes = [body.add_geom(type=_GEOM.mjGEOM_CAPSULE, pos=[0, 0, height], size=[radius, half, 0], group=3)]
            shapes[0].mass = 0.0
        for i, geom in enumerate(shapes):
            geom.name = body.name if len(shapes) == 1 else f"{body.name}{i}"
            geom.friction = FRICTION
        if tip is not None:
            _add_touch(spec, body, *tip)


def _add_touch(spec: mujoco.MjSpec, body: mujoco.MjsBody, height: float, radius: float, half: float) -> None:
    """A sensor of what presses on a fingertip, around its capsule."""
    site = body.add_site(name=f"{body.name}_touch", type=_GEOM.mjGEOM_CAPSULE, pos=[0, 0, height])
    site.size, site.rgba, site.group = [1.05 * radius, half, 0], [0, 0, 0, 0], 4
    spec.add_sensor(
        name=f"{body.name}_touch", type=mujoco.mjtSensor.mjSENS_TOUCH, objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname=f"{body.name}_touch",
    )  # fmt: skip


def _add_cube(spec: mujoco.MjSpec, hand: Hand) -> None:
    """The cube, and beside the hand a copy that shows the goal."""
    spec.add_texture(
        name="faces", type=mujoco.mjtTexture.mjTEXTURE_CUBE, width=_TEXELS, height=6 * _TEXELS, nchannel=3,
        data=_faces().ravel().tolist(),
    )  # fmt: skip
    material = spec.add_material(name="cube", specular=0.2, shininess=0.3)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "faces"
    half = [hand.cube_edge / 2.0] * 3
    body = spec.worldbody.add_body(name="cube", pos=hand.cube_start)
    body.add_freejoint(name="cube")
    # Contact dimension 4: a fingertip that pivots on a face meets friction against turning, as a soft one does.
    body.add_geom(
        name="cube", type=_GEOM.mjGEOM_BOX, size=half, mass=CUBE_MASS_KG, material="cube", condim=4, friction=FRICTION
    )
    spec.worldbody.add_site(name="goal", type=_GEOM.mjGEOM_BOX, pos=hand.goal_pos, size=half, material="cube")


def _faces() -> np.ndarray:
    """Six coloured faces with a dark border, [6 * edge, edge, 3]: right, left, up, down, front, back."""
    image = np.full((6, _TEXELS, _TEXELS, 3), 30, dtype=np.uint8)
    inside = slice(_BORDER, _TEXELS - _BORDER)
    for face, colour in zip(image, _FACES, strict=True):
        face[inside, inside] = np.round(255.0 * np.array(colour))
    return image.reshape(6 * _TEXELS, _TEXELS, 3)


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    """Light, a sky and a floor to be seen; nothing touches them."""
    world = spec.worldbody
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.35] * 3, [0.35] * 3
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.75, 0.82, 0.9], rgb2=[0.35, 0.4, 0.5], width=64, height=384,
    )  # fmt: skip
    world.add_light(name="lamp", pos=[0.1, 0.3, 1.2], dir=[-0.1, -0.25, -1.0], diffuse=[0.6, 0.6, 0.6])
    spec.add_material(name="floor", rgba=[0.5, 0.53, 0.57, 1.0])
    world.add_geom(
        name="floor", type=_GEOM.mjGEOM_PLANE, pos=[0, 0, -0.25], size=[0, 0, 1], material="floor", contype=0,
        conaffinity=0,
    )  # fmt: skip


def _strengthen(model: mujoco.MjModel, hand: Hand) -> None:
    """Rotors, friction and servos of the hand, as the module's docstring says."""
    cube = int(model.jnt_dofadr[id_of(model, _JOINT, "cube")])
    model.dof_armature[:cube] = hand.armature
    if hand.dry_friction is not None:
        model.dof_frictionloss[:cube] = hand.dry_friction
    if hand.servo is not None:
        gain, torque = hand.servo
        model.actuator_gainprm[:, 0], model.actuator_biasprm[:, 1] = gain, -gain
        model.actuator_forcelimited[:], model.actuator_forcerange[:] = 1, (-torque, torque)
    for tendon in range(model.ntendon):  # fixed ones: sums of angles
        wraps = slice(int(model.tendon_adr[tendon]), int(model.tendon_adr[tendon] + model.tendon_num[tendon]))
        ends = model.wrap_prm[wraps, None] * model.jnt_range[model.wrap_objid[wraps]]
        model.tendon_limited[tendon], model.tendon_range[tendon] = 1, ends.sum(axis=0)


HANDS = {"allegro": ALLEGRO, "shadow": SHADOW}
