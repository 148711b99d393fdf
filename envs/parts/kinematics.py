"""Where a body is, from the coordinates of the joints that carry it: forward kinematics and its Jacobian, in torch.

A `Chain` is read off a model once and holds plain numbers, so that a contract can state it; `Kinematics` computes with
it for N environments. Poses equal mj_kinematics, Jacobians mj_jac; worlds that differ in the robot's geometry are not
looked at: a robot's controller, too, knows its nominal lengths only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.names import label_of
from envs.common.spatial import quat_to_matrix

Kind = Literal["free", "ball", "slide", "hinge"]
Numbers = tuple[float, ...]
WORLD = "world"
_KINDS: dict[int, tuple[Kind, int, int]] = {  # kind, coordinates, degrees of freedom
    int(mujoco.mjtJoint.mjJNT_FREE): ("free", 7, 6),
    int(mujoco.mjtJoint.mjJNT_BALL): ("ball", 4, 3),
    int(mujoco.mjtJoint.mjJNT_SLIDE): ("slide", 1, 1),
    int(mujoco.mjtJoint.mjJNT_HINGE): ("hinge", 1, 1),
}


@dataclass(frozen=True)
class Link:
    """A joint, and the fixed way to it from the joint before.

    Attributes:
        joint: its name; "" for the way from the last joint to the chain's tip.
        kind: how it moves; None for the tip.
        pos, quat: [3] m and [4] (w, x, y, z), the way to it.
        axis: [3] of a hinge or slide.
        zero: coordinate at which it does not move anything.
        qpos, dof: its addresses in the model.
    """

    joint: str
    kind: Kind | None
    pos: Numbers
    quat: Numbers
    axis: Numbers = (0.0, 0.0, 1.0)
    zero: float = 0.0
    qpos: int = -1
    dof: int = -1


@dataclass(frozen=True)
class Chain:
    """The joints between a frame of a robot and a body, site or geom that they carry.

    Attributes:
        root: a body, or "world".
        tip: a body, site or geom.
        links: the joints in order; the last link is the tip.
    """

    root: str
    tip: str
    links: tuple[Link, ...]

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints, in order."""
        return tuple(link.joint for link in self.links[:-1])

    @property
    def simple(self) -> bool:
        """Whether all joints are hinges and slides, of one coordinate each."""
        return all(link.kind in ("hinge", "slide") for link in self.links[:-1])

    def addresses(self, what: Literal["qpos", "dof"]) -> list[int]:
        """Where the joints' coordinates [nq] or velocities [nv] lie in the model."""
        sizes = {kind: sizes for kind, *sizes in _KINDS.values()}
        return [
            getattr(link, what) + i
            for link in self.links[:-1]
            if link.kind is not None
            for i in range(sizes[link.kind][what == "dof"])
        ]


def find_frame(model: mujoco.MjModel, name: str) -> tuple[int, np.ndarray, np.ndarray]:
    """The body that a body, site or geom belongs to, and its pose [3], [4] there. Raises ValueError for others."""
    if name == WORLD:
        return 0, np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
    if body >= 0:
        return body, np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    for kind, prefix in ((mujoco.mjtObj.mjOBJ_SITE, "site"), (mujoco.mjtObj.mjOBJ_GEOM, "geom")):
        i = mujoco.mj_name2id(model, kind, name)
        if i >= 0:
            body, pos, quat = (getattr(model, f"{prefix}_{what}")[i] for what in ("bodyid", "pos", "quat"))
            return int(body), np.array(pos), np.array(quat)
    raise ValueError(f"the model has no body, site or geom named {name!r}")


def chain_to(model: mujoco.MjModel, tip: str, root: str = WORLD) -> Chain:
    """The chain from a body (or the world) to a body, site or geom.

    Raises:
        ValueError: a name is unknown, `root` does not carry `tip`, or a mocap body does, which no joint moves.
    """
    body, tip_pos, tip_quat = find_frame(model, tip)
    base = 0 if root == WORLD else mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, root)
    if base < 0:
        raise ValueError(f"the model has no body named {root!r}")
    path: list[int] = []
    while body not in (base, 0):
        path.insert(0, body)
        body = int(model.body_parentid[body])
    if body != base:
        raise ValueError(f"{root!r} does not carry {tip!r}")
    moved = next((i for i in path if model.body_mocapid[i] >= 0), None)
    if moved is not None:
        raise ValueError(f"{tip!r} hangs on the mocap body {label_of(model, 'body', moved)!r}, which no joint moves")
    links: list[Link] = []
    pos, quat = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])  # the way since the last joint
    for body in path:
        pos, quat = _after(pos, quat, model.body_pos[body], model.body_quat[body])
        first = int(model.body_jntadr[body])
        for joint in range(first, first + int(model.body_jntnum[body])):
            anchor = model.jnt_pos[joint] if int(model.jnt_type[joint]) else np.zeros(3)
            pos = pos + _rotated(quat, anchor)
            links.append(_link(model, joint, pos, quat))
            pos, quat = -np.array(anchor), np.array([1.0, 0.0, 0.0, 0.0])
    pos, quat = _after(pos, quat, tip_pos, tip_quat)
    return Chain(root, tip, (*links, Link("", None, tuple(pos.tolist()), tuple(quat.tolist()))))


def _link(model: mujoco.MjModel, joint: int, pos: np.ndarray, quat: np.ndarray) -> Link:
    kind, *_ = _KINDS[int(model.jnt_type[joint])]
    address = int(model.jnt_qposadr[joint])
    zero = float(model.qpos0[address]) if kind in ("hinge", "slide") else 0.0
    axis = tuple(model.jnt_axis[joint].tolist())
    place = tuple(pos.tolist()), tuple(quat.tolist())
    return Link(label_of(model, "joint", joint), kind, *place, axis, zero, address, int(model.jnt_dofadr[joint]))


def _rotated(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    out = np.zeros(3)
    mujoco.mju_rotVecQuat(out, np.array(vector, dtype=np.float64), quat)
    return out


def _after(pos: np.ndarray, quat: np.ndarray, then: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pose, and from there another one."""
    out = np.zeros(4)
    mujoco.mju_mulQuat(out, quat, np.array(turned, dtype=np.float64))
    mujoco.mju_normalize4(out)
    return pos + _rotated(quat, then), out


class Kinematics:
    """Computes poses of a chain's tip, in the frame of its root.

    Args:
        chain: from `chain_to`.
        dtype, device: of results.
    """

    def __init__(self, chain: Chain, dtype: torch.dtype, device: torch.device) -> None:
        self.chain = chain
        tensor = lambda x: torch.tensor(x, dtype=dtype, device=device)  # noqa: E731
        self._pos = [tensor(link.pos) for link in chain.links]
        self._fixed = [quat_to_matrix(tensor(link.quat)) for link in chain.links]
        self._axis = [tensor(link.axis) for link in chain.links]
        starts, start = [], 0
        for link in chain.links[:-1]:
            starts.append(start)
            start += next(nq for kind, nq, _ in _KINDS.values() if kind == link.kind)
        self._starts = starts
        # A hinge's rotation by q, after the fixed one before it: A + cos(q) B + sin(q) C (Rodrigues), each [H, 3, 3].
        hinges = [i for i, link in enumerate(chain.links[:-1]) if link.kind == "hinge"]
        self._columns = torch.tensor([starts[i] for i in hinges], dtype=torch.int64, device=device)
        self._zero = tensor([chain.links[i].zero for i in hinges])
        parts = [_rodrigues(self._fixed[i], self._axis[i]) for i in hinges]
        self._turn = torch.stack([torch.stack(part) for part in parts]) if parts else tensor([]).reshape(0, 3, 3, 3)

    def pose(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Position [N, 3] and rotation matrix [N, 3, 3] of the tip for coordinates [N, nq] of the chain's joints."""
        *_, (pos, rot) = self._frames(q)
        return pos, rot

    def jacobian(self, q: Tensor) -> Tensor:
        """[N, 6, nv]: linear, then angular velocity of the tip for velocities [nv] of the chain's joints, as mj_jac."""
        *frames, (tip, _) = self._frames(q)
        columns: list[Tensor] = []
        for i, (pos, rot) in enumerate(frames):
            kind, axis = self.chain.links[i].kind, self._axis[i]
            if kind == "slide":
                linear = _times_vector(rot, axis)
                columns.append(torch.cat((linear, torch.zeros_like(linear)), dim=1))
                continue
            if kind == "free":
                eye = torch.eye(6, dtype=q.dtype, device=q.device)[:, :3]
                columns += [eye[:, k].expand(len(q), -1) for k in range(3)]
            for turn in [_times_vector(rot, axis)] if kind == "hinge" else rot.unbind(dim=2):
                columns.append(torch.cat((torch.linalg.cross(turn, tip - pos), turn), dim=1))
        return torch.stack(columns, dim=2)

    def _frames(self, q: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Position and rotation behind each joint, and of the tip."""
        angle = q[:, self._columns] - self._zero
        a, b, c = self._turn.unbind(dim=1)
        turns = iter((a + angle.cos()[..., None, None] * b + angle.sin()[..., None, None] * c).unbind(dim=1))
        pos = torch.zeros(len(q), 3, dtype=q.dtype, device=q.device)
        rot = torch.eye(3, dtype=q.dtype, device=q.device).expand(len(q), 3, 3)
        frames: list[tuple[Tensor, Tensor]] = []
        for i, link in enumerate(self.chain.links):
            pos = pos + _times_vector(rot, self._pos[i])
            if link.kind == "hinge":
                rot = _times(rot, next(turns))
            elif link.kind == "free":
                pos, rot = q[:, self._starts[i] :][:, :3], quat_to_matrix(q[:, self._starts[i] + 3 :][:, :4])
            else:
                rot = _times(rot, self._fixed[i])
                if link.kind == "slide":
                    pos = pos + _times_vector(rot, self._axis[i]) * (q[:, self._starts[i], None] - link.zero)
                elif link.kind == "ball":
                    rot = _times(rot, quat_to_matrix(q[:, self._starts[i] :][:, :4]))
            frames.append((pos, rot))
        return frames


def damped_least_squares(jacobian: Tensor, wanted: Tensor, damping: float) -> Tensor:
    """Steps dq [N, nv] of joints that move a tip by about `wanted` [N, k]: J^T (J J^T + damping^2 1)^-1 wanted.

    Wampler 1986. Away from singular poses the tip moves as wanted; near them joints move little, and the tip less.

    Args:
        jacobian: J [N, k, nv].
        wanted: [N, k] m, or m and rad.
        damping: in the same units.
    """
    j = jacobian
    square = (j[:, :, None, :] * j[:, None, :, :]).sum(dim=3)
    square = square + damping**2 * torch.eye(j.shape[1], dtype=j.dtype, device=j.device)
    lower, _ = torch.linalg.cholesky_ex(square)  # positive definite, whatever J is; checking would stall a GPU
    solved = torch.cholesky_solve(wanted[..., None], lower)
    return (j * solved).sum(dim=1)


def _rodrigues(fixed: Tensor, axis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = axis.unbind()
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero)).reshape(3, 3)
    along, eye = axis[:, None] * axis[None, :], torch.eye(3, dtype=axis.dtype, device=axis.device)
    return fixed @ along, fixed @ (eye - along), fixed @ cross


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Products [N, 3, 3] of small matrices, the same bits for any N and any number of threads."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(dim=-2)


def _times_vector(a: Tensor, v: Tensor) -> Tensor:
    """[N, 3]: matrices [N, 3, 3] times a vector [3] or vectors [N, 3]."""
    return (a * v[..., None, :]).sum(dim=-1)
