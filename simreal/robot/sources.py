"""What of a policy's observation is in messages: joints by their names, an IMU by the words of the contract."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.common.messages import listed
from simreal.common.errors import UserError
from simreal.deploy import Reading

Numbers = NDArray[np.float64]
JointQuantity = Literal["position", "velocity", "effort"]
ImuQuantity = Literal["gyro", "gravity", "orientation", "columns", "acceleration"]
_UNITS: dict[str, JointQuantity] = {
    "rad": "position", "m": "position", "rad/s": "velocity", "m/s": "velocity", "N m": "effort", "N": "effort",
}  # fmt: skip
_QUAT, _COLUMNS = ["w", "x", "y", "z"], ["xx", "xy", "xz", "yx", "yy", "yz"]


@dataclass(frozen=True)
class FromJoints:
    """An observation component that joints show: `quantity` of `joints`, less `relative_to`."""

    component: str
    quantity: JointQuantity
    joints: tuple[str, ...]
    relative_to: Numbers


@dataclass(frozen=True)
class FromImu:
    """An observation component that an IMU shows, in the axes of the body that carries it."""

    component: str
    quantity: ImuQuantity


@dataclass(frozen=True)
class Sources:
    """Where the components of an observation come from."""

    joints: tuple[FromJoints, ...]
    imu: tuple[FromImu, ...]

    @property
    def names(self) -> dict[str, None]:
        """Joints that are read, each once, in order."""
        return {name: None for source in self.joints for name in source.joints}


def sources_of(entries: Sequence[Mapping[str, Any]], given: Container[str] = ()) -> Sources:
    """Where the components of a contract's observation come from.

    Args:
        entries: `observation` of the contract.
        given: components that the user gives by other ways.

    Raises:
        UserError: a measured component is in no message.
    """
    joints, imu = list[FromJoints](), list[FromImu]()
    bodies = {body for e in entries if _of_imu(e) in ("gyro", "gravity") for body in e.get("bodies") or []}
    for entry in entries:
        name = str(entry["name"])
        if name in given or not entry.get("measured", True):
            continue
        quantity, size = _UNITS.get(str(entry.get("unit"))), int(entry["shape"][0])
        names = tuple(entry.get("joints") or ())
        seen = _of_imu(entry)
        if quantity and len(names) == size == len(set(names)) and not entry.get("derived_from"):
            joints.append(FromJoints(name, quantity, names, _stance(entry, size)))
        elif seen in ("orientation", "columns") and bodies and not bodies & set(entry.get("bodies") or []):
            raise _nowhere(entry)  # of something else than what carries the IMU
        elif seen is not None:
            imu.append(FromImu(name, seen))
        else:
            raise _nowhere(entry)
    return Sources(tuple(joints), tuple(imu))


def _of_imu(entry: Mapping[str, Any]) -> ImuQuantity | None:
    """What an IMU shows, if a component is that."""
    size, unit, said = int(entry["shape"][0]), entry.get("unit"), f"{entry['name']} {entry.get('description')}".lower()
    elements, frame = list(entry.get("elements") or []), entry.get("frame")
    if entry.get("joints") or entry.get("derived_from") or not entry.get("measured", True):
        return None
    if size == 3 and frame != "world":
        if unit == "rad/s":
            return "gyro"
        if unit == "1" and ("gravity" in said or said.endswith(" down")):
            return "gravity"
        if unit == "m/s2" and "accelerometer" in said:
            return "acceleration"
    if frame == "world" and unit == "1" and entry.get("bodies"):
        return "orientation" if elements == _QUAT else "columns" if elements == _COLUMNS else None
    return None


def _stance(entry: Mapping[str, Any], size: int) -> Numbers:
    stance = entry.get("relative_to")
    if stance is None and "from the stance" in str(entry.get("description")):
        raise UserError(
            f"{entry['name']}: shows positions from a stance that this bundle does not state; export its run again"
        )
    return np.zeros(size) if not stance else np.array(stance, dtype=np.float64)


def _nowhere(entry: Mapping[str, Any]) -> UserError:
    derived = entry.get("derived_from")
    more = f", computed from {', '.join(derived)}" if derived else f", {entry.get('description')}"
    return UserError(
        f"{entry['name']!r} ({entry['shape'][0]} values in {entry.get('unit')}{more}) is in no message of joints or of "
        "an IMU; give it with --input, or from a program of yours (docs/robot.md)"
    )


@dataclass
class Joint:
    """What a joint showed last: NaN where a message does not say it."""

    position: float
    velocity: float
    effort: float
    stamp: float  # s, on this machine's monotonic clock


@dataclass
class ImuState:
    """What an IMU showed last.

    Attributes:
        orientation: [4] w, x, y, z: from the IMU's axes to the world's; None where a message does not say it.
        gyro: [3] rad/s, in the IMU's axes.
        acceleration: [3] m/s2, of an accelerometer: at rest 9.81 upwards; None where a message does not say it.
        stamp: s, on this machine's monotonic clock.
    """

    orientation: Numbers | None
    gyro: Numbers
    acceleration: Numbers | None
    stamp: float


class Measurements:
    """What messages said last, as readings of a controller.

    Args:
        contract: of the policy.
        given: see `sources_of`.
        mount: [4] quaternion that turns the IMU's axes into those of the body that the contract means.

    Attributes:
        sources: where components come from.
        joints: what each showed last, by name.
        imu: what it showed last.
        driven: the joints of each action component.
    """

    def __init__(self, contract: Mapping[str, Any], given: Container[str] = (), mount: ArrayLike | None = None) -> None:
        self.sources = sources_of(contract["observation"], given)
        self.joints: dict[str, Joint] = {}
        self.imu: ImuState | None = None
        self.driven = {str(entry["name"]): driven_joints(entry) for entry in contract["action"]}
        self._mount = None if mount is None else _unit(np.asarray(mount, dtype=np.float64), "the IMU's mount")

    @property
    def needed(self) -> list[str]:
        """Joints that have to be in the messages."""
        return list(self.sources.names | {name: None for names in self.driven.values() for name in names})

    def missing(self) -> list[str]:
        """Joints that no message has shown yet."""
        return [name for name in self.needed if name not in self.joints]

    def reading(self) -> Reading:
        """What is known now; components of which nothing has come are missing."""
        values, stamps = dict[str, ArrayLike](), dict[str, float]()
        for source in self.sources.joints:
            try:
                shown = [self.joints[name] for name in source.joints]
            except KeyError:
                continue
            values[source.component] = np.array([getattr(j, source.quantity) for j in shown]) - source.relative_to
            stamps[source.component] = min(joint.stamp for joint in shown)
        if self.imu is not None:
            for part in self.sources.imu:
                values[part.component] = self._of_imu(part.quantity, self.imu)
                stamps[part.component] = self.imu.stamp
        present = {part: names for part, names in self.driven.items() if all(n in self.joints for n in names)}
        positions, velocities = (
            {part: np.array([getattr(self.joints[n], what) for n in names]) for part, names in present.items()}
            for what in ("position", "velocity")
        )
        return Reading(values, stamps, positions, {p: v for p, v in velocities.items() if np.isfinite(v).all()})

    def _of_imu(self, quantity: ImuQuantity, imu: ImuState) -> Numbers:
        """A quantity of the IMU in the axes of the body that carries it. Raises ValueError."""
        if quantity == "gyro":
            return self._into_body(imu.gyro)
        if quantity == "acceleration":
            if imu.acceleration is None:
                raise ValueError("the IMU's messages say no acceleration")
            return self._into_body(imu.acceleration)
        if imu.orientation is None:
            raise ValueError("the IMU's messages say no orientation")
        turn = matrix(_unit(imu.orientation, "the IMU's orientation"))
        if self._mount is not None:
            turn = turn @ matrix(self._mount).T  # world from body = world from IMU, IMU from body
        if quantity == "gravity":
            return -turn[2]
        return turn[:, :2].T.ravel() if quantity == "columns" else quaternion(turn)

    def _into_body(self, vector: Numbers) -> Numbers:
        return vector if self._mount is None else matrix(self._mount) @ vector


def driven_joints(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The joints that an action component tells targets, in order.

    Raises:
        UserError: the contract does not say which.
    """
    inverse = entry.get("inverse")
    names = [link["joint"] for link in inverse["links"]] if inverse else list(entry.get("joints") or [])
    size = len(names) if inverse else int(entry["shape"][0])
    if len(names) != size or entry.get("afterwards"):
        what = entry.get("afterwards") or f"it names {listed(names)}"
        raise UserError(f"{entry['name']!r}: not one target for each of its joints ({what}): messages cannot tell it")
    return tuple(names)


def _unit(quat: Numbers, what: str) -> Numbers:
    length = float(np.linalg.norm(quat))
    if quat.shape != (4,) or not 0.9 < length < 1.1:
        raise ValueError(f"{what}: expected a quaternion of length 1, got {np.round(quat, 4).tolist()}")
    return quat / length


def matrix(quat: Numbers) -> Numbers:
    """The rotation matrix [3, 3] of a unit quaternion w, x, y, z."""
    w, x, y, z = quat.tolist()
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def quaternion(turn: Numbers) -> Numbers:
    """The quaternion w, x, y, z with w >= 0 of a rotation matrix [3, 3] (Shepperd 1978)."""
    squares = np.array([1 + turn.trace(), *(1 + 2 * turn[i, i] - turn.trace() for i in range(3))]) / 4
    skew = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 4
    product = (turn + turn.T) / 4
    k = int(np.argmax(squares))
    found = np.empty(4)
    if k == 0:
        found[0], found[1:] = squares[0], skew
    else:
        found[0], found[1:] = skew[k - 1], product[k - 1]
        found[k] = squares[k]
    found /= np.sqrt(squares[k])
    return -found if found[0] < 0 else found
