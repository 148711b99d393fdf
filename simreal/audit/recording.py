"""A log laid out as the contract says: what was seen, decided and sent in every control cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.common.messages import listed, nearest
from simreal.common.errors import UserError
from simreal.common.logs import Log, Signal

Numbers = NDArray[np.float64]
_FIELDS = {"rad": "position", "m": "position", "rad/s": "velocity", "m/s": "velocity", "N m": "effort", "N": "effort"}


@dataclass(frozen=True)
class Channel:
    """One component of the observation.

    Attributes:
        part: its entry in the contract.
        values: [T, n], the newest at every control cycle, in the contract's order.
        stamp: [T] s, when those were measured.
        raw_time, raw: all samples of the log [S], [S, n].
    """

    part: dict[str, Any]
    values: Numbers
    stamp: Numbers
    raw_time: Numbers
    raw: Numbers

    @property
    def name(self) -> str:
        return self.part["name"]

    @property
    def mean(self) -> Numbers:
        """Mean in training [n]."""
        return np.array(self.part["offset"], dtype=np.float64)

    @property
    def spread(self) -> Numbers:
        """Standard deviation in training [n]."""
        return np.array(self.part["scale"], dtype=np.float64)


@dataclass(frozen=True)
class Recording:
    """A log of one policy on one robot.

    Attributes:
        contract: of the bundle.
        time: [T] s of the control cycles, from 0.
        seen: components of the observation that the log has.
        action: [T, A], None where the log has none.
        sent: action component -> [T, n].
        asked: action component -> what the policy wanted before the controller's clamps, where the log has it.
        missing: components of the observation that the log lacks.
    """

    contract: dict[str, Any]
    time: Numbers
    seen: dict[str, Channel]
    action: Numbers | None
    sent: dict[str, Numbers]
    asked: dict[str, Numbers]
    missing: tuple[str, ...]

    @property
    def period_s(self) -> float:
        """The contract's control period."""
        return float(self.contract["control_period_s"])

    @property
    def step_s(self) -> float:
        """The median time between two cycles of the log."""
        return float(np.median(np.diff(self.time)))

    def part(self, name: str) -> dict[str, Any]:
        """The entry of an observation component."""
        return next(p for p in self.contract["observation"] if p["name"] == name)


def recording(log: Log, contract: dict[str, Any], chosen: Mapping[str, str]) -> Recording:
    """Lay a log out.

    Args:
        log: any log.
        contract: of the bundle.
        chosen: component -> name of a signal, where the names in the log do not say it.

    Raises:
        UserError: the log is of another robot, a chosen signal does not exist, or the log is too short.
    """
    _same_robot(log, contract)
    parts = {p["name"]: p for p in contract["observation"]}
    actions = {p["name"]: p for p in contract["action"]}
    for name, signal in chosen.items():
        known = [*parts, *actions, "action"]
        if name not in known:
            raise UserError(f"--map {name}: no such component{nearest(name, known)}; there are: {', '.join(known)}")
        if signal not in log.signals:
            there = nearest(signal, log.signals)
            raise UserError(f"--map {name}: {log.source} has no {signal!r}{there}; it has: {listed(log.signals)}")
    found = {name: _find(log, part, chosen, ("observation", "inputs")) for name, part in parts.items()}
    sent = {name: _find(log, part, chosen, ("sent", "target")) for name, part in actions.items()}
    asked = {name: log.signals.get(f"/simreal/target/{name}") for name in actions}
    action = log.signals.get(chosen.get("action", "/simreal/action")) or log.signals.get("action")
    found, sent, asked = ({n: _filled(s) for n, s in signals.items()} for signals in (found, sent, asked))
    action = _filled(action)
    there = {name: s for name, s in found.items() if s is not None}
    if not any(parts[name]["measured"] for name in there):
        wanted = ", ".join(name for name, p in parts.items() if p["measured"])
        raise UserError(
            f"{log.source}: none of {wanted} is in it; it has: {listed(log.signals)}; say which is which: "
            f"--map {next(iter(parts))}=TOPIC"
        )
    clock = _clock(log, action, sent, there, parts)
    seen: dict[str, Channel] = {}
    cycle = log.signals.get("/simreal/cycle")  # of our controller: one row for each, whatever the stamps of its sensors
    for name, signal in there.items():
        values = ordered(log.source, signal, parts[name])
        rows = cycle is not None and signal.name.startswith("/simreal/") and len(signal.time) == len(cycle.time)
        index = _held(cycle.time if rows and cycle is not None else signal.time, clock)
        seen[name] = Channel(parts[name], values[index], signal.time[index] - clock[0], signal.time - clock[0], values)
    size = contract["action"][-1]["index"][1]
    return Recording(
        contract, clock - clock[0], seen,
        None if action is None or action.values.shape[1] != size else action.values[_held(action.time, clock)],
        {n: ordered(log.source, s, actions[n])[_held(s.time, clock)] for n, s in sent.items() if s is not None},
        {n: ordered(log.source, s, actions[n])[_held(s.time, clock)] for n, s in asked.items() if s is not None},
        tuple(name for name in parts if name not in seen),
    )  # fmt: skip


def _same_robot(log: Log, contract: dict[str, Any]) -> None:
    """Raise UserError where the log's own contract is of a robot with other components or joints."""
    if log.contract is None:
        return
    for group in ("observation", "action"):
        ours = {p["name"]: list(p.get("joints") or p.get("elements") or ()) for p in contract[group]}
        try:
            theirs = {p["name"]: list(p.get("joints") or p.get("elements") or ()) for p in log.contract[group]}
        except (KeyError, TypeError):
            raise UserError(f"{log.source}: its contract is damaged; expected the policy.json of a bundle") from None
        if ours != theirs:
            other = next(n for n in [*ours, *theirs] if ours.get(n) != theirs.get(n))
            what = f"{group} component {other!r}: the log's robot has {listed(theirs.get(other, ()), 4)}"
            raise UserError(
                f"{log.source}: is a log of another robot (task {log.contract.get('task')!r}, the bundle's is "
                f"{contract.get('task')!r}): {what}, the bundle's {listed(ours.get(other, ()), 4)}"
            )


def _find(log: Log, part: dict[str, Any], chosen: Mapping[str, str], kinds: tuple[str, ...]) -> Signal | None:
    """The signal of a component: chosen, of simreal's own topics, of its name, or the only one that has its joints."""
    name = part["name"]
    if name in chosen:
        return log.signals[chosen[name]]
    for candidate in (*(f"/simreal/{kind}/{name}" for kind in kinds), name, f"/{name}"):
        for suffix in ("", ":" + _FIELDS.get(part["unit"], "position"), ":position", ":velocity", ":effort"):
            if candidate + suffix in log.signals:
                return log.signals[candidate + suffix]
    if any(signal.startswith("/simreal/") for signal in log.signals) or kinds[0] == "sent":
        return None
    if part["joints"] and part["unit"] in _FIELDS:
        field = _FIELDS[part["unit"]]
        fits = [s for n, s in log.signals.items() if n.endswith(f":{field}") and set(part["joints"]) <= set(s.elements)]
        return fits[0] if len(fits) == 1 else None
    if not part["joints"] and len(part["scale"]) == 3:
        ending = {"rad/s": ":angular_velocity", "1": ":orientation"}.get(part["unit"])
        fits = [s for n, s in log.signals.items() if ending is not None and n.endswith(ending)]
        return fits[0] if len(fits) == 1 else None
    return None


def _filled(signal: Signal | None) -> Signal | None:
    """A signal without the samples in which there is nothing: a controller that has not started sends no action."""
    if signal is None:
        return None
    there = ~np.isnan(signal.values).all(axis=1)
    if there.all():
        return signal
    return Signal(signal.name, signal.time[there], signal.values[there], signal.elements) if there.any() else None


def ordered(source: Path, signal: Signal, part: dict[str, Any]) -> Numbers:
    """Values [S, n] of a signal in the order of a component; by names of joints where it has any.

    Raises:
        UserError: the names or the number of values are others.
    """
    size = len(part["scale"])
    joints = part["joints"] if len(part["joints"]) == size else []
    names = list(signal.elements)
    if set(signal.elements) == {"w", "x", "y", "z"} and size == 3:
        return _down(signal.values[:, [names.index(axis) for axis in "wxyz"]])
    for wanted in (joints, part["elements"]):
        if len(wanted) == size and set(wanted) <= set(names):
            return signal.values[:, [names.index(name) for name in wanted]]
    numbers = all(name.isdigit() for name in names)
    if len(names) == size and (numbers or not joints):
        return signal.values
    if joints and not numbers:
        lacks = next(joint for joint in joints if joint not in names)
        raise UserError(
            f"{source}: {signal.name}: is of another robot: it has no joint {lacks!r}{nearest(lacks, names)} of "
            f"{part['name']!r}; it has: {listed(names)}"
        )
    raise UserError(f"{source}: {signal.name}: expected {size} values of {part['name']!r}, got {len(names)}")


def _down(quat: Numbers) -> Numbers:
    """The direction of gravity [S, 3] in the frame of a body with orientations w, x, y, z [S, 4]."""
    w, x, y, z = (quat / np.linalg.norm(quat, axis=1, keepdims=True).clip(1e-9)).T
    return -np.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), axis=1)


def _clock(
    log: Log, action: Signal | None, sent: Mapping[str, Signal | None], seen: Mapping[str, Signal],
    parts: Mapping[str, dict[str, Any]],
) -> Numbers:  # fmt: skip
    """Times of the control cycles [T]: of the actions, of what was sent, or of the slowest measured component."""
    commands = [s for s in (action, *sent.values()) if s is not None]
    measured = [s for name, s in seen.items() if parts[name]["measured"]]
    clock = commands[0].time if commands else min(measured, key=lambda s: len(s.time)).time
    first = max(s.time[0] for s in measured)
    clock = clock[clock >= first - 1e-9] if (clock >= first - 1e-9).any() else clock
    if len(clock) < 50:
        raise UserError(f"{log.source}: has {len(clock)} control cycles, expected at least 50: record some seconds")
    if not clock[-1] > clock[0]:
        raise UserError(f"{log.source}: all its times are {clock[0]:g} s, expected s that go on")
    return clock


def _held(time: Numbers, clock: Numbers) -> NDArray[np.int64]:
    """Which sample is the newest at each cycle [T]; a controller's own log has one for each, whatever its stamp."""
    if len(time) == len(clock):
        return np.arange(len(clock))
    tolerance = 0.05 * float(np.median(np.diff(clock)))
    return np.clip(np.searchsorted(time, clock + tolerance, side="right") - 1, 0, len(time) - 1)


def cut(record: Recording, count: int) -> Recording:
    """The first cycles of a log."""
    seen = {n: replace(c, values=c.values[:count], stamp=c.stamp[:count]) for n, c in record.seen.items()}
    action = None if record.action is None else record.action[:count]
    sent = {name: values[:count] for name, values in record.sent.items()}
    asked = {name: values[:count] for name, values in record.asked.items()}
    return replace(record, time=record.time[:count], seen=seen, action=action, sent=sent, asked=asked)
