"""Where values of observations come from: the simulations' true state, or joints as sensors show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import mujoco
import torch
from torch import Tensor

from envs.common.errors import TaskError
from envs.common.spatial import constant, quat_canonical, rotate_inverse
from envs.common.stateful import Stateful
from envs.engines.base import Engine
from envs.parts.kinematics import WORLD, Chain, Kinematics, chain_to, find_frame
from envs.parts.targets import Targets
from envs.task import Attached, Component

_POSES = {"body": ("xpos", "xmat"), "site": ("site_xpos", "site_xmat"), "geom": ("geom_xpos", "geom_xmat")}
_KINDS = {
    "body": mujoco.mjtObj.mjOBJ_BODY, "site": mujoco.mjtObj.mjOBJ_SITE, "geom": mujoco.mjtObj.mjOBJ_GEOM,
}  # fmt: skip


class Scene(Stateful, Attached):
    """What values are read from, in N environments.

    Attributes:
        engine: of the task.
        action, before: [N, A] the policy's last action and the one before; zeros when an episode has just begun.
        steps: [N] control steps since the episode began.
        targets: what the actions led to; not there where the task makes its commands itself.
        commanded: by name, [N, size] what is wanted of the robot.
        goal: [N, G] of a goal task.

    Args:
        action_size: A.
        commands: sizes of what is commanded, by name.
    """

    _state = ("action", "before", "steps", "targets", "commanded")

    def __init__(
        self, engine: Engine, action_size: int, commands: Mapping[str, int], targets: Targets | None,
        goal: Callable[[], Tensor] | None,
    ) -> None:  # fmt: skip
        zeros = lambda size: torch.zeros(engine.num_envs, size, dtype=engine.dtype, device=engine.device)  # noqa: E731
        self.engine, self.goal = engine, goal
        self.action, self.before = zeros(action_size), zeros(action_size)
        self.steps = torch.zeros(engine.num_envs, dtype=torch.int64, device=engine.device)
        if targets is not None:
            self.targets = targets
        self.commanded = {name: zeros(size) for name, size in commands.items()}

    def begin(self, mask: Tensor) -> None:
        """Episodes begin in mask [N], in the state that was written."""
        self.action = self.action.masked_fill(mask[:, None], 0.0)
        self.before = self.before.masked_fill(mask[:, None], 0.0)
        self.steps = self.steps.masked_fill(mask, 0)

    def decided(self, action: Tensor) -> None:
        """Take note of the policy's own action [N, A]."""
        self.before, self.action = self.action, action.to(self.action.dtype, copy=True)


@dataclass(frozen=True)
class Source:
    """One component and where its values [N, size] come from.

    Attributes:
        component: as the contract states it.
        read: from the scene; of components derived from others, the same as `derive` from clean ones.
        derive: from what sensors show, by component [N, size]; None where that is what the sensor says.
    """

    component: Component
    read: Callable[[Scene], Tensor]
    derive: Callable[[Mapping[str, Tensor]], Tensor] | None = None


def columns_of(engine: Engine, name: str, places: Sequence[int]) -> Tensor:
    """Columns [N, k] of a field of mjData."""
    values, first = engine.data(name), places[0]
    if list(places) == list(range(first, first + len(places))):
        return values[:, first : first + len(places)]
    return values[:, constant(tuple(places), torch.int64, engine.device)]


def targets_of(scene: Scene) -> Targets:
    """What actions led to. Raises RuntimeError in a task that makes its commands itself."""
    if not hasattr(scene, "targets"):
        raise RuntimeError("this task makes its commands itself: there is no last target to show")
    return scene.targets


def goal_of(scene: Scene) -> Tensor:
    """The goal [N, G]. Raises RuntimeError where there is none."""
    if scene.goal is None:
        raise RuntimeError("this task has no goal to show")
    return scene.goal()


@cache
def kinematics(chain: Chain, dtype: torch.dtype, device: torch.device) -> Kinematics:
    """The kinematics of a chain, made once."""
    return Kinematics(chain, dtype, device)


@dataclass(frozen=True)
class TruePose:
    """The pose of a body, site or geom of a simulation, in the frame of another or of the world.

    Attributes:
        of, frame: kind and index; `frame` is None for the world.
    """

    of: tuple[str, int]
    frame: tuple[str, int] | None

    def __call__(self, engine: Engine) -> tuple[Tensor, Tensor]:
        """Position [N, 3] and rotation matrix [N, 3, 3]."""
        pos, rot = _world_pose(engine, *self.of)
        if self.frame is None:
            return pos, rot
        origin, turned = _world_pose(engine, *self.frame)
        back = turned.transpose(1, 2)
        return (back * (pos - origin)[:, None]).sum(dim=2), (back[..., None] * rot[:, None]).sum(dim=2)


def _world_pose(engine: Engine, kind: str, index: int) -> tuple[Tensor, Tensor]:
    pos, rot = (engine.data(name)[:, index] for name in _POSES[kind])
    return pos.clone(), rot.reshape(-1, 3, 3)


def true_pose(model: mujoco.MjModel, of: str, frame: str) -> TruePose:
    """The pose of a body, site or geom `of` in the frame of a body, site or geom or "world". Raises TaskError."""
    return TruePose(_object(model, of), None if frame == WORLD else _object(model, frame))


def _object(model: mujoco.MjModel, name: str) -> tuple[str, int]:
    for kind, of_kind in _KINDS.items():
        i = mujoco.mj_name2id(model, of_kind, name)
        if i >= 0:
            return kind, i
    raise TaskError(f"the model has no body, site or geom named {name!r}")


@dataclass(frozen=True)
class FromJoints:
    """A pose as a robot computes it from its encoders, with the lengths of the calibrated model.

    Attributes:
        chain: whose tip it is.
        components: that show the joints.
        places: of each joint in these, one behind the other.
        stance: what is to be added to what they show.
    """

    chain: Chain
    components: tuple[str, ...]
    places: tuple[int, ...]
    stance: tuple[float, ...]

    def now(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Position [N, 3] and rotation [N, 3, 3] for the joints as they are."""
        return self._pose(columns_of(scene.engine, "qpos", self.chain.addresses("qpos")))

    def of(self, seen: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """For the joints as components [N, size] show them."""
        values = torch.cat([seen[name] for name in self.components], dim=1)
        q = values[:, constant(self.places, torch.int64, values.device)]
        return self._pose(q + constant(self.stance, q.dtype, q.device))

    def _pose(self, q: Tensor) -> tuple[Tensor, Tensor]:
        return kinematics(self.chain, q.dtype, q.device).pose(q)


def from_joints(model: mujoco.MjModel, of: str, frame: str, shown: Sequence[Component]) -> FromJoints | None:
    """How the pose of `of` in `frame` follows from joints that policy components `shown` show; None if it does not."""
    try:
        chain = chain_to(model, of, frame)
    except ValueError:
        return None
    place: dict[str, tuple[str, int, float]] = {}  # of each joint: component, column, stance
    for part in shown:
        if part.group == "policy" and part.unit in ("rad", "m", "rad, m") and not part.derived_from and part.measured:
            stance = part.relative_to or (0.0,) * part.size
            place |= {joint: (part.name, i, stance[i]) for i, joint in enumerate(part.joints)}
    if not chain.simple or not chain.joints or not set(chain.joints) <= place.keys():
        return None
    names = tuple(dict.fromkeys(place[joint][0] for joint in chain.joints))
    sizes, first = {part.name: part.size for part in shown}, dict[str, int]()
    for name in names:
        first[name] = sum(sizes[other] for other in first)
    places = tuple(first[place[joint][0]] + place[joint][1] for joint in chain.joints)
    return FromJoints(chain, names, places, tuple(place[joint][2] for joint in chain.joints))


@dataclass(frozen=True)
class TrueTurning:
    """How a body or site turns, and where down is, in its own axes."""

    chain: Chain  # from the world
    free: bool  # whether it is part of a body that floats by itself

    def velocity(self, scene: Scene) -> Tensor:
        """Angular velocity [N, 3], rad/s."""
        qvel = columns_of(scene.engine, "qvel", self.chain.addresses("dof"))
        if self.free:
            return self._local(qvel[:, 3:])
        jacobian = self._kinematics(qvel).jacobian(self._q(scene))[:, 3:]
        return self._into((jacobian * qvel[:, None]).sum(dim=2), scene)

    def down(self, scene: Scene) -> Tensor:
        """The unit vector [N, 3] that points down."""
        q = self._q(scene)
        zero = torch.zeros_like(q[:, 0])
        down = torch.stack((zero, zero, zero - 1.0), dim=1)
        return self._local(rotate_inverse(q[:, 3:], down)) if self.free else self._into(down, scene)

    def _q(self, scene: Scene) -> Tensor:
        return columns_of(scene.engine, "qpos", self.chain.addresses("qpos"))

    def _kinematics(self, like: Tensor) -> Kinematics:
        return kinematics(self.chain, like.dtype, like.device)

    def _into(self, vector: Tensor, scene: Scene) -> Tensor:
        _, rot = self._kinematics(vector).pose(self._q(scene))
        return (rot * vector[:, :, None]).sum(dim=1)

    def _local(self, vector: Tensor) -> Tensor:
        """A vector of the floating body's axes, in those of the site on it."""
        quat = self.chain.links[-1].quat
        if quat == (1.0, 0.0, 0.0, 0.0):
            return vector
        return rotate_inverse(constant(quat, vector.dtype, vector.device).expand(len(vector), 4), vector)


def true_turning(model: mujoco.MjModel, of: str) -> TrueTurning:
    """How a body, site or geom turns. Raises TaskError where it is unknown, or nothing moves it."""
    try:
        find_frame(model, of)
        chain = chain_to(model, of)
    except ValueError as error:
        raise TaskError(f"Imu {of!r}: {error}") from None
    if not chain.joints:
        raise TaskError(f"Imu {of!r}: expected a body or site that joints move")
    return TrueTurning(chain, [link.kind for link in chain.links[:-1]] == ["free"])


def accelerometer_at(model: mujoco.MjModel, site: str) -> int:
    """Where the accelerometer of a site lies in `sensordata`. Raises TaskError."""
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, site)
    for i in range(model.nsensor):
        kind = int(model.sensor_type[i]) == int(mujoco.mjtSensor.mjSENS_ACCELEROMETER)
        if index >= 0 and kind and int(model.sensor_objid[i]) == index:
            return int(model.sensor_adr[i])
    raise TaskError(f"Imu {site!r}: acceleration: the model has no accelerometer there; add <accelerometer site=.../>")


def tidied(values: Tensor) -> Tensor:
    """Rotations with the errors of sensors, made rotations again: unit quaternions [N, 4] with w >= 0; two columns
    [N, 6] of unit length at a right angle (Gram-Schmidt)."""
    if values.shape[1] == 4:
        return quat_canonical(values)
    a, b = values[:, :3], values[:, 3:]
    a = a / torch.linalg.vector_norm(a, dim=1, keepdim=True)
    b = b - (a * b).sum(dim=1, keepdim=True) * a
    return torch.cat((a, b / torch.linalg.vector_norm(b, dim=1, keepdim=True)), dim=1)
