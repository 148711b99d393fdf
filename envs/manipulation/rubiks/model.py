"""A Rubik's Cube in a hand, as one model: three slabs on two hinges, see `mechanism`.

| body          | what it is                                             | joint                                |
|---------------|--------------------------------------------------------|--------------------------------------|
| `cube`        | the middle slab: 8 cubelets                            | `cube`, free                         |
| `cube_top`    | 9 cubelets above it along the body's z axis            | hinge `cube_top`, axis outwards      |
| `cube_bottom` | 9 cubelets below it                                    | hinge `cube_bottom`, axis outwards   |

Each slab is one box that collides; 54 stickers are only drawn. Slabs weigh alike, as those of a solid cube. Sensors of
contact say what presses on each of the six slabs that the cube can be cut into, and on the cube as a whole.

The sticker in the middle of a face is drawn in four pieces, one of which is black, as if it had been cut out: so a
picture shows how far a face has been turned, which a plain sticker does not. It lies towards the face's first facelet
where the face has not been turned.

Friction, spring and drag are chosen, not measured: a light cube with magnets. With them a face that is let go within 45
degrees comes to rest within 3.8 degrees of aligned, and it takes 0.038 N m to leave a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import mujoco
import numpy as np

from envs.manipulation.cube.hands import CUBE_MASS_KG, FRICTION, AddCube, Hand, HandModel, build
from envs.manipulation.rubiks.state import CUBELET_OF, NORMAL_OF, NORMALS, quarter_turn
from envs.task import id_of

Turning = Literal["all", "top_and_bottom", "none"]
HINGES = ("cube_top", "cube_bottom")
SLABS = ("x+", "x-", "y+", "y-", "z+", "z-")  # of the body's frame
READING = 10  # values of a sensor of contact: found, force, torque, position

# Half way to the next quarter 0.007 N m hold a face back: a loose cube, as that of openai/robogym (0.0005 N m
# of friction in each of a face's nine joints, no spring). What friction lets stay is within `mechanism.TOLERANCE_RAD`.
FACE_FRICTION_NM = 0.0004
FACE_SPRING = 0.008  # N m/rad, towards the next aligned angle
FACE_DRAG = 0.0005  # N m s/rad

_HOLDS = 0.999  # impedance of friction: with MuJoCo's usual 0.9 what is held creeps
_ROTOR = 5e-6  # kg m^2, a third of what a slab has: without it a slab of 27 g is too quick for steps of 10 ms

# White, red, green, yellow, orange, blue: U R F D L B.
COLOURS = np.array([(0.95, 0.95, 0.95, 1.0), (0.80, 0.10, 0.12, 1.0), (0.10, 0.60, 0.25, 1.0),
                    (0.95, 0.85, 0.10, 1.0), (1.00, 0.45, 0.05, 1.0), (0.10, 0.30, 0.80, 1.0)])  # fmt: skip
PLASTIC = (0.06, 0.06, 0.07, 1.0)
_STICKER, _THICK = 0.42, 0.012  # half an edge and thickness of a sticker, in edges of a cubelet
WHOLE = -1  # corner of a piece that is a whole sticker


@dataclass(frozen=True)
class Piece:
    """A part of the cube's looks: a sticker, or a quarter of one in the middle of a face.

    Attributes:
        facelet: that it lies on, in the body's frame.
        corner: which of `CORNERS`; WHOLE of a whole sticker.
    """

    facelet: int
    corner: int

    @property
    def name(self) -> str:
        """Of the sticker, and of which quarter."""
        return str(self.facelet) if self.corner == WHOLE else f"{self.facelet}_{self.corner}"

    def box(self, cubelet: float) -> tuple[np.ndarray, np.ndarray]:
        """Centre and half sizes in the cube's frame, m."""
        normal = NORMAL_OF[self.facelet]
        at = CUBELET_OF[self.facelet] + 0.5 * normal
        wide = _STICKER if self.corner == WHOLE else 0.5 * _STICKER
        if self.corner != WHOLE:
            at = at + wide * CORNERS[self.facelet // 9, self.corner]
        return cubelet * at, cubelet * np.where(normal == 0, wide, _THICK)


def _corners() -> np.ndarray:
    """[6, 4, 3] of each face in `FACES`, from its middle to its corners, counter-clockwise as seen from outside."""
    firsts = [CUBELET_OF[9 * face] - NORMALS[face] for face in range(6)]
    turns = [[quarter_turn(normal, k) for k in range(4)] for normal in NORMALS]
    return np.array([[turn @ first for turn in four] for four, first in zip(turns, firsts, strict=True)])


CORNERS = _corners()
PIECES = tuple(Piece(i, corner) for i in range(54) for corner in (range(4) if i % 9 == 4 else (WHOLE,)))
_GEOM, _OBJ, _SENSOR = mujoco.mjtGeom, mujoco.mjtObj, mujoco.mjtSensor
_CONTACT_DATA = mujoco.mjtConDataField
_FOUND_FORCE_TORQUE_POS = sum(
    1 << int(f)
    for f in (
        _CONTACT_DATA.mjCONDATA_FOUND, _CONTACT_DATA.mjCONDATA_FORCE, _CONTACT_DATA.mjCONDATA_TORQUE,
        _CONTACT_DATA.mjCONDATA_POS,
    )
)  # fmt: skip
_NET_FORCE = 3  # reduction of a sensor of contact


def build_rubiks(hand_name: str, turning: Turning, full: tuple[int, ...] = ()) -> HandModel:
    """The model of a hand in `HANDS` holding a Rubik's Cube; `full`: see `compile_spec`."""
    parts = build(hand_name, full, _adder(turning != "none"))
    if turning != "none":
        set_resistance(parts.model)
    return parts


def set_resistance(model: mujoco.MjModel) -> None:
    """Give the faces of a model's cube their friction, spring and drag."""
    for name in HINGES:
        joint = id_of(model, _OBJ.mjOBJ_JOINT, name)
        dof = int(model.jnt_dofadr[joint])
        model.jnt_stiffness[joint] = FACE_SPRING
        model.dof_frictionloss[dof], model.dof_damping[dof] = FACE_FRICTION_NM, FACE_DRAG
        model.dof_solimp[dof, 0] = _HOLDS
        model.dof_armature[dof] = _ROTOR


@cache
def _adder(turns: bool) -> AddCube:
    """One function for each kind of cube, as `build` wants it."""
    return partial(add_rubiks, turns)


def add_rubiks(turns: bool, spec: mujoco.MjSpec, hand: Hand) -> None:
    """Add a cube for a hand to a specification, and a drawing of its goal.

    Args:
        turns: whether it has hinges.
        spec: to be added to.
        hand: whose size of a cube, start and place of the goal it has.
    """
    cubelet = hand.cube_edge / 3.0
    core = spec.worldbody.add_body(name="cube", pos=hand.cube_start)
    core.add_freejoint(name="cube")
    _add_slab(core, "cube", cubelet, 0)
    for name, side in zip(HINGES, (1, -1), strict=True):
        slab = core.add_body(name=name)
        if turns:
            slab.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, side])
        _add_slab(slab, name, cubelet, side)
    spec.add_exclude(bodyname1=HINGES[0], bodyname2=HINGES[1])
    if turns:
        _add_contact_sensors(spec, core, cubelet)
    goal = spec.worldbody.add_body(name="goal", pos=hand.goal_pos)
    goal.add_site(name="goal", type=_GEOM.mjGEOM_BOX, size=[1.5 * cubelet] * 3, rgba=PLASTIC)
    for piece in PIECES:
        at, size = piece.box(cubelet)
        goal.add_site(name=f"goal_{piece.name}", type=_GEOM.mjGEOM_BOX, pos=at, size=size, rgba=_first_colour(piece))


def _add_slab(body: mujoco.MjsBody, name: str, cubelet: float, side: int) -> None:
    """A slab that collides, and its stickers."""
    wide = 1.5 * cubelet
    # Contact dimension 4: as of the cube in one piece.
    body.add_geom(
        name=name, type=_GEOM.mjGEOM_BOX, pos=[0, 0, side * cubelet], size=[wide, wide, 0.5 * cubelet],
        mass=CUBE_MASS_KG / 3.0, condim=4, friction=FRICTION, rgba=PLASTIC,
    )  # fmt: skip
    for piece in PIECES:
        if CUBELET_OF[piece.facelet, 2] != side:
            continue
        at, size = piece.box(cubelet)
        body.add_geom(
            name=f"look_sticker{piece.name}", type=_GEOM.mjGEOM_BOX, pos=at, size=size, mass=0.0, contype=0,
            conaffinity=0, rgba=_first_colour(piece),
        )  # fmt: skip


def _first_colour(piece: Piece) -> np.ndarray:
    """Of a solved cube whose faces have not been turned."""
    return np.array(PLASTIC) if piece.corner == 0 else COLOURS[piece.facelet // 9]


def _add_contact_sensors(spec: mujoco.MjSpec, core: mujoco.MjsBody, cubelet: float) -> None:
    """What presses on each of the six slabs `SLABS` (sensors `contact_x+` ...) and on the whole cube (`contact`)."""
    for slab in SLABS:
        axis, sign = "xyz".index(slab[0]), 1.0 if slab[1] == "+" else -1.0
        at, size = np.zeros(3), np.full(3, 3.0 * cubelet)
        at[axis], size[axis] = 2.0 * sign * cubelet, 1.5 * cubelet  # from where the slab begins to well outside of it
        core.add_site(name=f"slab_{slab}", type=_GEOM.mjGEOM_BOX, pos=at, size=size, rgba=[0, 0, 0, 0], group=4)
    for slab in (*SLABS, ""):
        spec.add_sensor(
            name=f"contact_{slab}".rstrip("_"), type=_SENSOR.mjSENS_CONTACT,
            objtype=_OBJ.mjOBJ_SITE if slab else _OBJ.mjOBJ_UNKNOWN, objname=f"slab_{slab}" if slab else "",
            reftype=_OBJ.mjOBJ_XBODY, refname="cube", intprm=[_FOUND_FORCE_TORQUE_POS, _NET_FORCE, 1],
        )  # fmt: skip
