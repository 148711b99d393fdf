"""Everything that is measured on one log, before anything is concluded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simreal.audit.messages import Arrivals, arrivals, without_repeats
from simreal.audit.recording import Channel, Recording, cut
from simreal.audit.relations.arrival import Commands, commands_lost
from simreal.audit.relations.attitude import Attitude, attitude, imu_of
from simreal.audit.relations.joints import (
    Joints,
    Relation,
    joints_of,
    lag_between,
    level_relation,
    rate_relation,
    response_relation,
)

Numbers = NDArray[np.float64]
_DYNAMIC = 20.0  # log likelihood that targets add for a typical joint where the robot does more than follow gently
_MORE = 3.0  # times what another joint's target adds
REPEATS = 0.5  # of the log: a gait that repeats itself
_FEWEST = 200  # cycles before a sensor froze that are worth looking at


@dataclass(frozen=True)
class Facts:
    """What was measured.

    Attributes:
        record: the log.
        came: component -> how its messages came.
        joints: of the part of the log in which all sensors work; None without any.
        rate, position, velocity, level: relations of velocity to position, of both to targets, and of position to
            target as they are; None where the log does not have the signals.
        dynamic: whether the robot does more than follow its targets gently, and its joints answer their own targets.
        imu: the IMU's halves.
        imu_lag: cycles that the gyroscope is later than the joints, its interval, and the share of variance explained.
        commands: what became of what was sent; None where that does not show.
    """

    record: Recording
    came: dict[str, Arrivals]
    joints: Joints | None
    rate: Relation | None
    position: Relation | None
    velocity: Relation | None
    level: Relation | None
    dynamic: bool
    imu: Attitude | None
    imu_lag: tuple[float, tuple[float, float], float] | None
    commands: Commands | None

    @property
    def repeats(self) -> float:
        """The share of the log in which the gait repeats itself, so that it says nothing of what was sent."""
        response = self.velocity or self.position
        return 0.0 if response is None else response.repeats


def facts_of(record: Recording) -> Facts:
    """Measure a log."""
    came = {name: arrivals(record, channel) for name, channel in record.seen.items()}
    whole = _without_frozen(without_repeats(record, list(came.values())), came)
    joints = joints_of(whole)
    rate = position = velocity = level = lag = None
    if joints is not None:
        rate = rate_relation(whole, joints)
        position = response_relation(whole, joints, "position")
        velocity = response_relation(whole, joints, "velocity")
        level = level_relation(whole, joints)
        lag = _imu_lag(whole, joints)
    response = velocity or position
    dynamic = response is not None and _answers(response)
    if dynamic and velocity is not None and position is not None and not _answers(position):
        position = None  # joints that hardly move: what they do shows in their velocities alone
    commands = commands_lost(whole, joints, int(response.lag)) if dynamic and joints and response else None
    return Facts(record, came, joints, rate, position, velocity, level, dynamic, attitude(whole), lag, commands)


def _answers(response: Relation) -> bool:
    """Whether joints answer their own targets, or each that of another one, and much more than all the others.

    What departs from a gait that repeats itself may be so little that any target explains a joint as well.
    """
    score, best = response.score, response.score.argmax(axis=0)
    every = np.arange(len(best))
    typical, others = float(np.median(score[best, every])), score[best[None, :] != every[:, None]]
    own = 2 * int((best == every).sum()) >= len(best) or len(set(best.tolist())) == len(best)
    return own and typical > _DYNAMIC and (len(best) < 4 or typical > _MORE * float(np.median(others)))


def _without_frozen(record: Recording, came: dict[str, Arrivals]) -> Recording:
    """The log until its first sensor froze, where that is long enough; else without the values that froze."""
    firsts = [
        first for arrival in came.values() if arrival.channel.part["measured"] for first, _ in arrival.frozen.values()
    ]
    if not firsts:
        return record
    if min(firsts) >= _FEWEST:
        return cut(record, min(firsts))
    seen: dict[str, Channel] = {}
    for name, channel in record.seen.items():
        values = channel.values.copy()
        values[:, list(came[name].frozen)] = np.nan
        seen[name] = replace(channel, values=values)
    return replace(record, seen=seen)


def _imu_lag(record: Recording, joints: Joints) -> tuple[float, tuple[float, float], float] | None:
    """How much later the gyroscope is than the joints: a robot on its feet turns as its joints move."""
    pair = imu_of(record)
    chosen = joints.has("position", "velocity")
    if pair is None or len(chosen) < 4 or not np.isfinite(pair[0].values).all():
        return None
    first = np.column_stack([joints.velocity[:, chosen], joints.position[:, chosen]])
    return lag_between(record, first, pair[0].values)
