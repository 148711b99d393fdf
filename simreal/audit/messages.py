"""What every component of a log shows by itself: whether messages came, when, and how far its values reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.audit.findings import Finding, places
from simreal.audit.recording import Channel, Recording

Numbers = NDArray[np.float64]
_LOST, _LATE_CYCLES, _FROZEN_S = 0.04, 0.1, 1.0  # shares of cycles that are worth a word; the shortest freeze
_MOVES = 0.01  # of the spread of training: the change from cycle to cycle of a robot that moves, or has noise
_LONGEST_LOSS = 10  # cycles without news that count as lost messages; more is a frozen sensor


@dataclass(frozen=True)
class Arrivals:
    """How one component came.

    Attributes:
        channel: the component.
        repeated: [T] bool, the values of this cycle are those of the one before, though something else moved.
        lost: share of the cycles.
        every: cycles between news, where that is regular and more than 1.
        frozen: element -> first and last cycle of its longest standstill.
        rate_hz: of the component's own messages.
        age_s: median age by the stamps.
    """

    channel: Channel
    repeated: NDArray[np.bool_]
    lost: float
    every: int
    frozen: dict[int, tuple[int, int]]
    rate_hz: float
    age_s: float


def arrivals(record: Recording, channel: Channel) -> Arrivals:
    """Look at one component."""
    values = channel.values
    same = np.zeros(len(values), dtype=bool)
    same[1:] = (values[1:] == values[:-1]).all(axis=1)
    frozen = _standstills(record, channel)
    whole = [frozen[i] for i in range(values.shape[1])] if len(frozen) == values.shape[1] else []
    counted = np.ones(len(values), dtype=bool)
    if whole:
        counted[max(first for first, _ in whole) : min(last for _, last in whole) + 1] = False
    starts, lengths = _runs(same & counted)
    every = 1
    alive = int((counted[1:] & ~same[1:]).sum())
    if len(lengths) and len(lengths) > 0.8 * alive:
        common = int(np.median(lengths))
        every = common + 1 if (lengths == common).mean() > 0.8 else 1
    lost = 0.0
    if every == 1 and alive > 20:
        lost = _missed(values, same, starts, lengths, channel) / max(int(counted.sum()), 1)
    raw = np.diff(channel.raw_time)
    moving = raw[raw > 1e-9]
    usual = float(np.median(moving)) if len(moving) else float("nan")
    if len(channel.raw_time) != len(record.time) and len(moving) > 20 and not lost and every == 1:
        gaps = np.round(moving[moving > 1.6 * usual] / usual) - 1.0
        gaps = gaps[gaps <= _LONGEST_LOSS]
        lost = float(gaps.sum() / (len(moving) + gaps.sum()))
    age = float(np.median(record.time - channel.stamp))
    return Arrivals(channel, same & counted, lost, every, frozen, 1.0 / usual, age)


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and lengths of the runs of True."""
    edges = np.diff(np.r_[0, mask.astype(int), 0])
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return starts, ends - starts


def _missed(
    values: Numbers, same: NDArray[np.bool_], starts: NDArray[np.int64], lengths: NDArray[np.int64], channel: Channel
) -> int:
    """Cycles that showed old values while the robot moved: the next news is then a jump as large as usual ones."""
    scale = np.maximum(channel.spread, 1e-12)
    jump = np.linalg.norm(np.diff(values, axis=0) / scale, axis=1)
    usual = float(np.median(jump[~same[1:]])) if (~same[1:]).any() else 0.0
    total = 0
    for start, length in zip(starts, lengths, strict=True):
        after = start + length - 1
        if length <= _LONGEST_LOSS and after < len(jump) and jump[after] > 0.5 * usual:
            total += int(length)
    return total


def _standstills(record: Recording, channel: Channel) -> dict[int, tuple[int, int]]:
    """Elements whose value stays exactly the same for a second or more while the robot's other readings move: first and
    last cycle. Of several that do so, those that do so together."""
    least = max(int(_FROZEN_S / record.step_s), 25)
    others = [(c.values, c.spread) for c in record.seen.values() if c.part["measured"] and c is not channel]
    values, found = channel.values, dict[int, tuple[int, int]]()
    for i in range(values.shape[1]):
        same = np.r_[False, values[1:, i] == values[:-1, i]]
        starts, lengths = _runs(same)
        if not len(lengths) or lengths.max() < least:
            continue
        at = int(lengths.argmax())
        first, last = int(starts[at]) - 1, int(starts[at] + lengths[at] - 1)
        own = values[first : last + 1]
        alone = np.ptp(own, axis=0).any()  # others of its component go on
        beside = [(own, channel.spread)] if alone else [(x[first : last + 1], spread) for x, spread in others]
        if any(_moves(x, spread) for x, spread in beside):
            found[i] = (first, last)
    if not found:
        return {}
    start, stop = max(found.values(), key=lambda f: f[1] - f[0])
    return {i: (a, b) for i, (a, b) in found.items() if min(b, stop) - max(a, start) > 0.5 * (stop - start)}


def _moves(values: Numbers, spread: Numbers) -> bool:
    """Whether readings [T, n] change from cycle to cycle, a tenth of the time at least, more than where a robot lies
    still."""
    if len(values) < 2:
        return False
    change = (np.abs(np.diff(values, axis=0)) / np.maximum(spread, 1e-9)).max(axis=1)
    return float(np.quantile(change, 0.9)) > _MOVES


def message_findings(record: Recording, found: list[Arrivals]) -> list[Finding]:
    """Frozen sensors, lost messages, slow or old ones, and values that are no numbers or stop at a bound."""
    out = _rate_findings(record)
    for arrival in found:
        channel = arrival.channel
        if channel.part["measured"]:
            out += _frozen_findings(record, arrival)
            out += _loss_findings(record, arrival)
            out += _clipped_findings(channel)
        bad = ~np.isfinite(channel.values).all(axis=1)
        if bad.any():
            at = float(record.time[bad.argmax()])
            out.append(
                Finding(
                    "invalid", (channel.name,), (), f"{channel.name} is not a number in {bad.mean():.1%} of the cycles",
                    f"first at {at:.2f} s", "look for a sensor that fails or a division by zero in its driver",
                    {"share": float(bad.mean())}, 1e6,
                )
            )  # fmt: skip
    return _merged(out)


def _rate_findings(record: Recording) -> list[Finding]:
    ratio = record.step_s / record.period_s
    hz, wanted = 1.0 / record.step_s, 1.0 / record.period_s
    late = float((np.diff(record.time) > 1.5 * record.period_s).mean())
    out: list[Finding] = []
    if not 0.8 < ratio < 1.25:
        half = " (half the rate)" if 1.8 < ratio < 2.2 else " (twice the rate)" if 0.45 < ratio < 0.55 else ""
        out.append(
            Finding(
                "rate", (), (), f"the policy runs at {hz:.1f} Hz, trained at {wanted:.1f} Hz{half}",
                f"median time between two actions {1e3 * record.step_s:.1f} ms, the contract's period "
                f"{1e3 * record.period_s:.1f} ms", f"call the policy every {1e3 * record.period_s:g} ms",
                {"rate_hz": hz, "trained_hz": wanted}, 1e6,
            )
        )  # fmt: skip
    elif late > _LATE_CYCLES:
        out.append(
            Finding(
                "rate", (), (), f"{late:.0%} of the cycles are late", f"more than {1.5e3 * record.period_s:g} ms after "
                "the one before", "give the controller a processor of its own, or make its cycle shorter",
                {"late_share": late}, 1e3,
            )
        )  # fmt: skip
    return out


def _frozen_findings(record: Recording, arrival: Arrivals) -> list[Finding]:
    channel, frozen = arrival.channel, arrival.frozen
    if not frozen:
        return []
    whole = len(frozen) == channel.values.shape[1]
    first, last = max(a for a, _ in frozen.values()), min(b for _, b in frozen.values())
    elements = () if whole else tuple(sorted(frozen))
    name = places(channel.name, elements)
    values = ", ".join(f"{channel.values[last, i]:.4g}" for i in sorted(frozen)[:3])
    until = "to the end" if last >= len(record.time) - 2 else f"until {record.time[last]:.2f} s"
    return [
        Finding(
            "frozen", (channel.name,), elements, f"{name} is frozen",
            f"exactly {values} from {record.time[first]:.2f} s {until}, while other readings go on",
            "look at the sensor's cable and driver: its messages come, or are read, no more",
            {"from_s": float(record.time[first]), "until_s": float(record.time[last])}, 1e5,
        )
    ]  # fmt: skip


def _loss_findings(record: Recording, arrival: Arrivals) -> list[Finding]:
    name = arrival.channel.name
    if arrival.every > 1:
        hz = 1.0 / (arrival.every * record.step_s)
        return [
            Finding(
                "rate", (name,), (), f"{name} comes at {hz:.1f} Hz",
                f"the policy sees every value {arrival.every} times in a row",
                f"let its sensor send at {1.0 / record.period_s:.0f} Hz or more", {"rate_hz": hz},
                1e5,
            )
        ]  # fmt: skip
    if arrival.lost > _LOST:
        return [
            Finding(
                "loss", (name,), (), f"{arrival.lost:.1%} of the messages of {name} are lost",
                "in so many cycles it shows the values of the cycle before, or has a gap, while the robot moves",
                "look at the network and the queue's length; send by a cable, or ask the driver for the newest message",
                {"share": arrival.lost}, 1e4,
            )
        ]  # fmt: skip
    return []


def _clipped_findings(channel: Channel) -> list[Finding]:
    """Elements that stop at a value again and again."""
    out: list[Finding] = []
    limits = channel.part.get("limits") or []
    for i, column in enumerate(channel.values.T):
        moved = np.r_[True, column[1:] != column[:-1]]
        if np.ptp(column) < 1e-9 or moved.sum() < 50:
            continue
        for which, bound in (("above", column.max()), ("below", column.min())):
            at = column == bound
            share = float(at.mean())
            inner = column[~at]
            _, counts = np.unique(inner, return_counts=True)
            entries = int((at[1:] & ~at[:-1]).sum())
            if share > 0.02 and entries >= 3 and at.sum() > 5 * np.median(counts) and bound not in limits:
                name = places(channel.name, (i,))
                out.append(
                    Finding(
                        "clipped", (channel.name,), (i,), f"{name} is clipped at {bound:.4g}",
                        f"exactly {bound:.4g} in {share:.1%} of the cycles, nothing {which}",
                        "give the sensor a wider range", {"bound": float(bound), "share": share}, 1e3,
                    )
                )  # fmt: skip
    return out


def _merged(findings: list[Finding]) -> list[Finding]:
    """One finding where several components lose messages, or come as slowly as each other: they come in one message."""
    out: list[Finding] = []
    groups: dict[Any, list[Finding]] = {}
    for finding in findings:
        alone = (id(finding),) if finding.kind not in ("loss", "rate") or not finding.components else ()
        groups.setdefault((finding.kind, round(float(finding.figures.get("rate_hz", 0.0)), 1), *alone), []).append(
            finding
        )
    for (kind, hz, *_), same in groups.items():
        if len(same) == 1:
            out += same
            continue
        names, first = tuple(name for f in same for name in f.components), same[0]
        share = float(np.mean([f.figures.get("share", 0.0) for f in same]))
        what = f"{share:.1%} of the messages of {', '.join(names)} are lost"
        text = what if kind == "loss" else f"{', '.join(names)} come at {hz:.1f} Hz"
        figures: dict[str, Any] = {"share": share} if kind == "loss" else first.figures
        out.append(Finding(first.kind, names, (), text, first.evidence, first.fix, figures, first.weight))
    return out


def outside(channel: Channel) -> Numbers:
    """Share of the cycles in which each element [n] is outside the range of training."""
    bounds = channel.part["training_range"]
    low, high = np.array(bounds["lower"]), np.array(bounds["upper"])
    return ((channel.values < low) | (channel.values > high)).mean(axis=0)


def without_repeats(record: Recording, found: list[Arrivals]) -> Recording:
    """The log with lost messages filled in by straight lines, for what asks how values change."""
    seen = dict(record.seen)
    for arrival in found:
        repeated = arrival.repeated
        if arrival.channel.part["measured"] and repeated.any() and not repeated.all():
            values, fresh = arrival.channel.values, np.flatnonzero(~repeated)
            filled = np.stack([np.interp(record.time, record.time[fresh], c[fresh]) for c in values.T], axis=1)
            c = arrival.channel
            seen[c.name] = Channel(c.part, filled, c.stamp, c.raw_time, c.raw)
    return Recording(record.contract, record.time, seen, record.action, record.sent, record.asked, record.missing)
