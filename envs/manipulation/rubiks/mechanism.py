"""What makes a Rubik's Cube turn, for N environments: two hinges, and which of the three axes they are.

All that a cube can do follows from two facts. Faces that turn together are opposite ones; so at any time a cube is
three slabs on one axis, two hinges. And a slab looks the same after a quarter turn; so which cubelets are in it is a
matter of bookkeeping. The model (`envs.manipulation.rubiks.model`) is therefore three slabs along the z axis of the
body `cube`, and this module, after every physics step,

* counts: a face that has passed 45 degrees is put back by a quarter turn, and the stickers are moved instead. What
  touches the cube sees no difference, angles stay within 45 degrees, and a spring at 0 pulls towards the nearest
  aligned angle;
* chooses the axis: where both faces are within `TOLERANCE_RAD` of aligned and what presses on another face is more than
  friction holds, and more than what acts on the present axis, the slabs are cut anew: the body's frame is turned by a
  third of a turn about its diagonal, so that its z axis is the axis of that face. What the faces of the last axis are
  off their places then is kept until they are cut again, or until a face crosses them and they snap into place; what
  touches the cube does not see it, a millimetre or two.

So other faces are blocked while one is off its place, cubelets cannot leave the cube whatever pulls at them, and the
model needs two degrees of freedom more than a cube in one piece. A face of another axis holds for one physics step more
than friction does.

The torque between a slab and the rest of the cube is that of the contacts on it, less what accelerates it with the
cube: its share of all torque about that axis, a third (`SHARE`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.spatial import constant, quat_conjugate, quat_multiply, quat_rotate, rotate_inverse
from envs.engines.base import Engine, write_rows
from envs.manipulation.cube.hands import HandModel
from envs.manipulation.rubiks.model import COLOURS, CORNERS, PIECES, PLASTIC, READING, SLABS, WHOLE, Turning
from envs.manipulation.rubiks.notation import FACES, Move
from envs.manipulation.rubiks.state import CUBELET_OF, NORMAL_OF, SOLVED, facelet_at, turn
from envs.task import Fixed, id_of

TOLERANCE_RAD = 0.07
_DWELL = (
    3  # physics steps that an axis stays, so that its faces can begin to move: what presses changes from step to step
)
SHARE = 1.0 / 3.0
QUARTER = math.pi / 2.0
AXES = ("UD", "RL", "BF")  # faces on the hinges cube_top and cube_bottom, by axis: z, x, y of the cube's frame
_FACES_OF = tuple(tuple(FACES.index(face) for face in pair) for pair in AXES)
_THIRD = (0.5, 0.5, 0.5, 0.5)  # x to y, y to z, z to x
_THIRDS = ((1.0, 0.0, 0.0, 0.0), _THIRD, (0.5, -0.5, -0.5, -0.5))  # by axis: the body's frame in the cube's
_OBJ = mujoco.mjtObj


def face_turns() -> np.ndarray:
    """[24, 54]: where the stickers come from when face i // 4 turns by i % 4 quarters counter-clockwise."""
    rows = [SOLVED if not n else turn(Move(face, 4 - n)) for face in FACES for n in range(4)]
    return np.stack(rows)


_TURNED = [np.linalg.matrix_power(np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), axis) for axis in range(3)]


def _facelets() -> np.ndarray:
    """[3, 54]: by axis, which facelet of the cube each facelet of the body's frame is."""
    return np.array([[facelet_at(t @ c, t @ n) for c, n in zip(CUBELET_OF, NORMAL_OF, strict=True)] for t in _TURNED])


def _corners() -> np.ndarray:
    """[3, pieces]: by axis, which corner of its face on the cube each piece lies at; WHOLE of whole stickers."""
    found = np.full((3, len(PIECES)), WHOLE)
    for axis, turned in enumerate(_TURNED):
        for i, piece in enumerate(PIECES):
            if piece.corner != WHOLE:
                face = piece.facelet // 9
                on = CORNERS[facelet_at(turned @ CUBELET_OF[piece.facelet], turned @ NORMAL_OF[piece.facelet]) // 9]
                found[axis, i] = int((on == turned @ CORNERS[face, piece.corner]).all(axis=1).argmax())
    return found


def _right_products(quats: Sequence[Sequence[float]]) -> np.ndarray:
    """[k, 4, 4]: what a quaternion, a row, is multiplied with to be turned by each of these first."""
    out = np.zeros((len(quats), 4, 4))
    for table, quat in zip(out, quats, strict=True):
        for row, unit in zip(table, np.eye(4), strict=True):
            mujoco.mju_mulQuat(row, unit, np.array(quat))
    return out


class _Tables(Fixed):
    """Constants on the engine's device."""

    def __init__(self, engine: Engine) -> None:
        tensor = lambda values, kind=torch.int64: torch.as_tensor(values, dtype=kind, device=engine.device)  # noqa: E731
        self.turns, self.facelets = tensor(face_turns()), tensor(_facelets())
        self.faces = tensor(_FACES_OF)  # [3, 2]
        self.thirds = tensor(_THIRDS, engine.dtype)  # [3, 4]
        self.by_third = tensor(_right_products(_THIRDS), engine.dtype)  # [3, 4, 4]
        self.along = tensor(np.stack([np.roll(range(3), -third) for third in range(3)]))  # [3, 3]
        self.order = self.faces.flatten().argsort()  # of U R F D L B in the faces by axis
        self.colours = tensor(np.vstack((COLOURS, PLASTIC)), torch.float64)  # [7, 4]
        self.shown = self.facelets[:, [piece.facelet for piece in PIECES]]  # [3, pieces] facelets of the cube
        self.corners = tensor(_corners())


class Mechanism:
    """Angles, stickers and axes of N cubes.

    Args:
        engine: runs the model.
        parts: of `build_rubiks`.
        turning: which faces do.

    Attributes:
        labels: [N, 54] of stickers, see `envs.manipulation.rubiks.state`.
        quarters: [N, 6] by how many quarter turns each face has turned, counter-clockwise as seen from outside.
        axis: [N] index in `AXES` of the present axis.
        kept: [N, 3, 2] by axis, what the faces of those that are not the present one are off aligned, rad.
        stayed: [N] physics steps since the present axis was chosen.
        torque: [N, 6] N m that motors on the faces exert between face and cube; of tests, and of robots that have some.
    """

    state_tensors = ("labels", "quarters", "axis", "kept", "stayed", "torque")

    def __init__(self, engine: Engine, parts: HandModel, turning: Turning) -> None:
        n, model, k = engine.num_envs, engine.model, len(parts.joints)
        self.engine, self.turning = engine, turning
        self._tables = _Tables(engine)
        self._qpos, self._qvel = engine.data("qpos"), engine.data("qvel")
        self._pos, self._quat, self._spin = slice(k, k + 3), slice(k + 3, k + 7), slice(k + 3, k + 6)
        self._hinges, self._dofs = slice(k + 7, k + 9), slice(k + 6, k + 8)
        ids = [id_of(model, _OBJ.mjOBJ_GEOM, f"look_sticker{piece.name}") for piece in PIECES]
        self._stickers = torch.tensor(ids, device=engine.device)
        self._rgba = engine.field("geom_rgba")
        integers = lambda *shape: torch.zeros(n, *shape, dtype=torch.int64, device=engine.device)  # noqa: E731
        self.labels, self.quarters, self.axis = integers(54) + self._tables.turns[0], integers(6), integers()
        self.torque = torch.zeros(n, 6, dtype=engine.dtype, device=engine.device)
        self.kept, self.stayed = torch.zeros(n, 3, 2, dtype=engine.dtype, device=engine.device), integers()
        self._unpainted = torch.zeros(n, dtype=torch.bool, device=engine.device)  # [N] changed in this control step
        self._written = self._unpainted  # [N] changed after its last physics step
        self._waits = engine.device.type == "cpu"  # whether looking at numbers costs nothing
        self._driven = False  # whether motors may exert something
        if turning == "none":
            return
        first = int(model.sensor_adr[id_of(model, _OBJ.mjOBJ_SENSOR, f"contact_{SLABS[0]}")])
        self._readings = slice(first, first + READING * (len(SLABS) + 1))
        self._sensors, self._friction = engine.data("sensordata"), engine.field("dof_frictionloss")
        self._site_pos = engine.field("site_pos")
        self._slabs = [id_of(model, _OBJ.mjOBJ_SITE, f"slab_{slab}") for slab in SLABS]
        self._sizes, self._core = engine.field("geom_size"), id_of(model, _OBJ.mjOBJ_GEOM, "cube")
        self._applied = engine.data("qfrc_applied")

    @property
    def offsets(self) -> Tensor:
        """Angles [N, 2] of the two faces of the present axis from aligned, rad, counter-clockwise as seen from
        outside."""
        if self.turning == "none":
            return torch.zeros_like(self._qpos[:, :2])
        return self._qpos[:, self._hinges]

    @property
    def offset_rates(self) -> Tensor:
        """Velocities [N, 2] of the two faces of the present axis, rad/s."""
        if self.turning == "none":
            return torch.zeros_like(self._qvel[:, :2])
        return self._qvel[:, self._dofs]

    def by_face(self, values: Tensor) -> Tensor:
        """Values [N, 2] of the two faces of the present axis as values [N, 6] of all faces, 0 for the others."""
        return torch.zeros_like(values[:, :1]).repeat(1, 6).scatter(1, self._tables.faces[self.axis], values)

    def off(self) -> Tensor:
        """By how much [N, 6] all faces are off aligned, rad, counter-clockwise as seen from outside."""
        kept = self.kept.flatten(1)[:, self._tables.order]
        return self.by_face(self.offsets) + kept

    def angles(self) -> Tensor:
        """Angles [N, 6] of all faces since the start, rad from -pi to pi."""
        return wrapped(QUARTER * self.quarters + self.off())

    def facelets(self) -> Tensor:
        """Which facelet [N, 54] of the cube each drawn sticker of the model lies on, see `state`."""
        return self._tables.facelets[self.axis]

    def quat(self) -> Tensor:
        """Orientations [N, 4] of the cubes in the world."""
        return quat_multiply(self._qpos[:, self._quat], quat_conjugate(self._tables.thirds[self.axis]))

    def begin(
        self, mask: Tensor, labels: Tensor, quarters: Tensor, axis: Tensor, quat: Tensor, offsets: Tensor
    ) -> None:
        """Put cubes in `mask` [N] into a state.

        Args:
            mask: environments.
            labels, quarters, axis: as the attributes.
            quat: [N, 4] of the cubes.
            offsets: [N, 2] rad, of the faces of that axis.
        """
        rows = mask[:, None]
        self.labels, self.quarters = torch.where(rows, labels, self.labels), torch.where(rows, quarters, self.quarters)
        self.axis = torch.where(mask, axis, self.axis)
        self.kept = self.kept.masked_fill(rows[:, None], 0.0)
        self.stayed = self.stayed.masked_fill(mask, _DWELL)
        write_rows(self._qpos[:, self._quat], quat_multiply(quat, self._tables.thirds[self.axis]), mask)
        if self.turning != "none":
            write_rows(self._qpos[:, self._hinges], offsets.to(self._qpos.dtype), mask)
            self._place_sensors()
        self._paint(mask)

    def exert(self, torque: Tensor) -> None:
        """From now on, have motors exert torques [N, 6] (N m) between faces and cube, counter-clockwise; friction,
        spring and blocked faces act against them."""
        self.torque = torque.to(self.torque.dtype).clone()
        self._driven = True
        self._drive()

    def advance(self) -> None:
        """Count quarter turns and choose axes; called after every physics step."""
        if self.turning == "none":
            return
        offsets = self._qpos[:, self._hinges]
        turned = torch.round(offsets / QUARTER)  # [N, 2]
        self.stayed += 1
        self._written = torch.zeros_like(self._unpainted)
        # Never both: the body's frame is turned where faces are aligned.
        self._changed(turned.any(dim=1), self._count, turned)
        if self.turning == "all":
            third = self._chosen(offsets)
            self._changed(third != 0, self._recut, third)

    def _changed(self, which: Tensor, change: Callable[[Tensor, Tensor], None], by: Tensor) -> None:
        """Change cubes `which` [N] by rows [N, ...], and note that they were; a GPU would wait to learn of none."""
        if not self._waits:
            change(torch.arange(len(which), device=which.device), by)
        elif bool(which.any()):
            rows = which.nonzero()[:, 0]
            change(rows, by[rows])
        else:
            return
        self._written = self._written | which
        self._unpainted |= which

    def settle(self) -> None:
        """Bring up to date what depends on changes of `advance`; called after a control step."""
        if self.turning == "none" or (self._waits and not bool(self._unpainted.any())):
            return
        self._paint(self._unpainted)
        self._unpainted = torch.zeros_like(self._unpainted)
        # Of the last physics step's: a later one has done it for the others.
        self.engine.forward(self._written, "kinematics")

    def _count(self, rows: Tensor, turned: Tensor) -> None:
        """Count quarter turns [k, 2] of the faces of the present axis, of cubes `rows` [k]; 0 changes nothing."""
        quarters, labels, faces = turned.long(), self.labels[rows], self._tables.faces[self.axis[rows]]
        for side in range(2):
            labels = labels.gather(1, self._tables.turns[4 * faces[:, side] + quarters[:, side] % 4])
        self.labels[rows] = labels
        self.quarters[rows] = self.quarters[rows].scatter_add(1, faces, quarters)
        self._qpos[rows, self._hinges] -= QUARTER * turned
        # A face that crosses others puts them into place.
        self.kept[rows] = self.kept[rows].masked_fill(turned.any(dim=1)[:, None, None], 0.0)

    def _recut(self, rows: Tensor, third: Tensor) -> None:
        """Turn bodies' frames by thirds [k], of cubes `rows` [k]; 0 changes nothing."""
        axis, stays = self.axis[rows], (third == 0)[:, None]
        following = (axis + third) % 3
        # What faces of the last axis are off is kept.
        self.kept[rows, axis] = self._qpos[rows, self._hinges]
        self._qpos[rows, self._hinges] = self.kept[rows, following]
        self.kept[rows, following] = 0.0
        self._qvel[rows, self._dofs] *= stays
        # Not summed along a dimension: the order would depend on the number of rows.
        w, x, y, z = (self._qpos[rows, self._quat].unsqueeze(2) * self._tables.by_third[third]).unbind(1)
        self._qpos[rows, self._quat] = w + x + y + z
        self._qvel[rows, self._spin] = self._qvel[rows, self._spin].gather(1, self._tables.along[third])
        self.axis[rows] = following
        self.stayed[rows] *= stays[:, 0]
        if not self._waits or self._driven:
            self._drive()

    def state_dict(self) -> dict[str, Any]:
        """All that changes during an episode, beside the engine's state."""
        return {name: getattr(self, name).clone() for name in self.state_tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name in self.state_tensors:
            getattr(self, name).copy_(state[name])
        self._driven = bool(self.torque.any())

    def _chosen(self, offsets: Tensor) -> Tensor:
        """By how many thirds of a turn [N] the body's frame is to be turned, so that z is the axis forced most."""
        readings = self._sensors[:, self._readings].view(-1, len(SLABS) + 1, READING)
        arm = readings[..., 7:10] - self._qpos[:, None, self._pos]
        world = readings[..., 4:7] + torch.linalg.cross(arm, readings[..., 1:4])  # 0 where nothing presses
        torque = rotate_inverse(self._qpos[:, None, self._quat].expand(-1, len(SLABS) + 1, -1), world)  # [N, 7, 3]
        on_slabs = torque[:, :6].view(-1, 3, 2, 3).diagonal(dim1=1, dim2=3).transpose(1, 2)  # [N, axis, side], about it
        between = on_slabs - SHARE * torque[:, 6, :, None]
        if not self._waits or self._driven:
            sign = constant((1.0, -1.0), torque.dtype, torque.device)
            between = between + self.torque.gather(1, self._present_faces().flatten(1)).view(-1, 3, 2) * sign
        held = self._friction[:, self._dofs].amax(dim=1, keepdim=True)
        excess = between.abs().amax(dim=2) - held  # [N, 3]
        free = (offsets.abs() <= TOLERANCE_RAD).all(dim=1)
        x, y, z = excess.unbind(1)
        most = torch.maximum(x, y)
        wanted = free & (self.stayed >= _DWELL) & (most > 0) & (most > z)
        return torch.where(wanted, torch.where(x >= y, 1, 2), 0)

    def _present_faces(self) -> Tensor:
        """Faces [N, 3, 2] at the two ends of the body's x, y and z axes."""
        order = constant((1, 2, 0), torch.int64, self.axis.device)
        return self._tables.faces[(self.axis[:, None] + order) % 3]

    def _drive(self) -> None:
        """Motors on the faces of the present axis act on its hinges."""
        if self.turning != "none":
            self._applied[:, self._dofs] = self.torque.gather(1, self._tables.faces[self.axis])

    def _place_sensors(self) -> None:
        """Slabs of a cube of another size begin where its do; where the volumes of the sensors end does not matter."""
        begins = self._sizes[:, self._core, 2]  # half a cubelet
        for site, slab in zip(self._slabs, SLABS, strict=True):
            axis = "xyz".index(slab[0])
            at = begins + float(self.engine.model.site_size[site, axis])
            self._site_pos[:, site, axis] = at if slab[1] == "+" else -at

    def _paint(self, mask: Tensor) -> None:
        """Give the drawn stickers of `mask` [N] the colours that they have."""
        rows = mask.nonzero()[:, 0] if self._waits else torch.arange(len(mask), device=mask.device)
        tables = self._tables
        facelets = tables.shown[self.axis[rows]]  # [k, pieces]
        shown = self.labels[rows].gather(1, facelets) // 9
        cut = tables.corners[self.axis[rows]] == self.quarters[rows].gather(1, facelets // 9) % 4
        shown = torch.where(cut, len(COLOURS), shown)
        colours, place = tables.colours[shown].to(self._rgba.dtype), (rows[:, None], self._stickers)
        self._rgba[place] = torch.where(mask[rows, None, None], colours, self._rgba[place])


def wrapped(angle: Tensor) -> Tensor:
    """Angles [...] in rad brought to [-pi, pi]."""
    return angle - 2.0 * math.pi * torch.round(angle / (2.0 * math.pi))


def velocity_of_cube(qvel: Tensor, quat: Tensor) -> Tensor:
    """Linear and angular velocity [N, 6] in the world of free bodies with qvel [N, 6] and orientations [N, 4]."""
    return torch.cat((qvel[:, :3], quat_rotate(quat, qvel[:, 3:])), dim=1)
