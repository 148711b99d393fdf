"""The messages of ROS 2 that a robot's joints and its IMU speak, as rosidl lays them out on the wire (CDR).

Type names are those of ROS 2's DDS implementations: `sensor_msgs::msg::dds_::JointState_` on topic `rt/joint_states`.
Definitions: common_interfaces, branch humble. Imported only where messages are sent: needs the extra `robot`.
Annotations are types in this file, which Cyclone DDS reads, and no text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float64, int32, sequence, uint32
from numpy.typing import ArrayLike

if TYPE_CHECKING:  # Cyclone DDS reads what is below; a type checker cannot
    Floats: TypeAlias = list[float]
    Names: TypeAlias = list[str]
    Nine: TypeAlias = tuple[float, ...]
else:
    Floats, Names, Nine = sequence[float64], sequence[str], array[float64, 9]


class _Kept:
    """Bytes of a message, parsed when somebody asks."""

    sample_info: Any

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


class Message(IdlStruct):
    """A message of ROS 2. What is received stays bytes until `parse`."""

    @classmethod
    def deserialize(cls, data: bytes, has_header: bool = True, use_version_2: bool | None = None) -> Any:
        """Keep the bytes; see `parse`."""
        return _Kept(data)

    @classmethod
    def deserialize_key(cls, data: bytes, has_header: bool = True, use_version_2: bool | None = None) -> Any:
        """Of a sample that says that its writer is gone."""
        return _Kept(data)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The message of CDR bytes with their header.

        Raises:
            ValueError: they are not such a message.
        """
        try:
            return cast(Self, cls.__idl__.deserialize(raw, has_header=True))
        except Exception as error:  # whatever Cyclone's parser raises on bytes that it did not expect
            raise ValueError(f"not a {cls.__idl_typename__}: {type(error).__name__}: {error}") from None


@dataclass
class Time(Message, typename="builtin_interfaces::msg::dds_::Time_"):
    """A time since 1970."""

    sec: int32 = 0
    nanosec: uint32 = 0

    @classmethod
    def of(cls, seconds: float) -> "Time":
        """A time in s since 1970."""
        ns = round(seconds * 1e9)
        return cls(ns // 1_000_000_000, ns % 1_000_000_000)

    @property
    def seconds(self) -> float:
        """In s since 1970."""
        return self.sec + 1e-9 * self.nanosec


@dataclass
class Duration(Message, typename="builtin_interfaces::msg::dds_::Duration_"):
    """A time span."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(Message, typename="std_msgs::msg::dds_::Header_"):
    """When and in which frame."""

    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
class Vector3(Message, typename="geometry_msgs::msg::dds_::Vector3_"):
    """Three numbers."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0


@dataclass
class Quaternion(Message, typename="geometry_msgs::msg::dds_::Quaternion_"):
    """A rotation."""

    x: float64 = 0.0
    y: float64 = 0.0
    z: float64 = 0.0
    w: float64 = 1.0


_UNKNOWN = (0.0,) * 9  # a covariance that is not known


@dataclass
class JointState(Message, typename="sensor_msgs::msg::dds_::JointState_"):
    """What joints show, each list as long as `name`, or empty."""

    header: Header = field(default_factory=Header)
    name: Names = field(default_factory=list)
    position: Floats = field(default_factory=list)
    velocity: Floats = field(default_factory=list)
    effort: Floats = field(default_factory=list)


@dataclass
class Imu(Message, typename="sensor_msgs::msg::dds_::Imu_"):
    """What an IMU shows, in the frame that the header names; the orientation is that of this frame in the world."""

    header: Header = field(default_factory=Header)
    orientation: Quaternion = field(default_factory=Quaternion)
    orientation_covariance: Nine = _UNKNOWN
    angular_velocity: Vector3 = field(default_factory=Vector3)
    angular_velocity_covariance: Nine = _UNKNOWN
    linear_acceleration: Vector3 = field(default_factory=Vector3)
    linear_acceleration_covariance: Nine = _UNKNOWN


@dataclass
class MultiArrayDimension(Message, typename="std_msgs::msg::dds_::MultiArrayDimension_"):
    """One dimension of an array."""

    label: str = ""
    size: uint32 = 0
    stride: uint32 = 0


if TYPE_CHECKING:
    Dimensions: TypeAlias = list[MultiArrayDimension]
else:
    Dimensions = sequence[MultiArrayDimension]


@dataclass
class MultiArrayLayout(Message, typename="std_msgs::msg::dds_::MultiArrayLayout_"):
    """All dimensions of an array."""

    dim: Dimensions = field(default_factory=list)
    data_offset: uint32 = 0


@dataclass
class Float64MultiArray(Message, typename="std_msgs::msg::dds_::Float64MultiArray_"):
    """What forward command controllers take."""

    layout: MultiArrayLayout = field(default_factory=MultiArrayLayout)
    data: Floats = field(default_factory=list)

    @classmethod
    def of(cls, names: Sequence[str], values: ArrayLike) -> "Float64MultiArray":
        """Values of joints, whose names stand in the label of the only dimension."""
        dimension = MultiArrayDimension(",".join(names), len(names), len(names))
        return cls(MultiArrayLayout([dimension], 0), numbers(values))


@dataclass
class JointTrajectoryPoint(Message, typename="trajectory_msgs::msg::dds_::JointTrajectoryPoint_"):
    """Where joints are to be, and when."""

    positions: Floats = field(default_factory=list)
    velocities: Floats = field(default_factory=list)
    accelerations: Floats = field(default_factory=list)
    effort: Floats = field(default_factory=list)
    time_from_start: Duration = field(default_factory=Duration)


if TYPE_CHECKING:
    Points: TypeAlias = list[JointTrajectoryPoint]
else:
    Points = sequence[JointTrajectoryPoint]


@dataclass
class JointTrajectory(Message, typename="trajectory_msgs::msg::dds_::JointTrajectory_"):
    """What joint_trajectory_controller takes."""

    header: Header = field(default_factory=Header)
    joint_names: Names = field(default_factory=list)
    points: Points = field(default_factory=list)

    @classmethod
    def of(cls, names: Sequence[str], positions: ArrayLike, within_s: float) -> "JointTrajectory":
        """Positions to be reached in a time from now on (a stamp of zero)."""
        ns = round(within_s * 1e9)
        duration = Duration(ns // 1_000_000_000, ns % 1_000_000_000)
        return cls(Header(), list(names), [JointTrajectoryPoint(numbers(positions), time_from_start=duration)])


def numbers(values: ArrayLike | Iterable[float]) -> list[float]:
    """Floats of Python: Cyclone DDS writes no NumPy arrays, and integers in their place as raw bits."""
    return np.asarray(values, dtype=np.float64).tolist()


def dds_topic(name: str) -> str:
    """ROS 2's name of a topic in DDS: `/joint_states` is `rt/joint_states`."""
    return "rt/" + name.lstrip("/")
