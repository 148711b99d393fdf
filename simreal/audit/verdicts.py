"""From measurements to named faults of joints: whose fault a broken relation is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simreal.audit.facts import REPEATS, Facts
from simreal.audit.findings import Finding, places
from simreal.audit.relations.joints import Joints, Relation, exchanges

Numbers = NDArray[np.float64]
_SURE = 20.0  # log likelihood by which a joint follows its target before its sign is believed
_CERTAIN = 60.0  # the same where the joint is not nearer to its target with the other sign
_TIMES = 1.25  # better that joints have to fit another's signal, where joints that move in step fit each other, too
_CLOSE = 0.6  # correlation of a velocity with the rate of its position that is more than noise
_DEGREES = 180.0 / np.pi
_SCALE_OFF = 0.3  # |log| of a factor that is called wrong
_WIDE = 5.0  # times the spread in training: no noise of a joint that hardly moves


def joint_findings(facts: Facts) -> list[Finding]:
    """Exchanged joints, wrong signs, degrees and wrong scales of positions and velocities."""
    if facts.joints is None:
        return []
    out = _exchange_findings(facts, facts.joints)
    taken = {element for finding in out for element in finding.elements}
    scales = _scale_findings(facts, facts.joints, None if out else _level_factor(facts.joints))
    return out + (_sign_findings(facts, facts.joints, taken) if not scales else []) + scales


def _commanded(facts: Facts) -> list[Relation]:
    """Relations to what was sent that can be trusted in this log."""
    if not facts.dynamic:
        return [r for r in (facts.level,) if r is not None]
    return [r for r in (facts.position, facts.velocity) if r is not None]


def _cycles(moved: dict[int, int]) -> list[tuple[int, ...]]:
    """Joints that change places with each other: a map's cycles."""
    left, out = dict(moved), list[tuple[int, ...]]()
    while left:
        start = min(left)
        cycle, at = [start], left.pop(start)
        while at in left:
            cycle.append(at)
            at = left.pop(at)
        out.append(tuple(sorted(cycle)))
    return out


def _exchange_findings(facts: Facts, joints: Joints) -> list[Finding]:
    between = set(_cycles(exchanges(facts.rate, _TIMES))) if facts.rate is not None else set()
    to_position = set(_cycles(exchanges(facts.position))) if facts.position is not None else set()
    alone = (2.0, 12.0) if facts.position is not None else (5.0, 60.0)  # what one relation alone has to show
    to_velocity = set(_cycles(exchanges(facts.velocity, *alone))) if facts.velocity is not None else set()
    if not facts.dynamic:
        to_position = set(_cycles(exchanges(facts.level, _TIMES))) if facts.level is not None else set()
        to_velocity = set()
    out: list[Finding] = []
    for cycle in sorted(between):
        which = "position" if cycle in to_position and cycle not in to_velocity else "velocity"
        if cycle not in to_position and cycle not in to_velocity:
            which = _stranger(facts, joints, cycle)
        assert facts.rate is not None
        out.append(_exchange(joints, [which], cycle, facts.rate, "the rate of the position"))
    both = to_position & to_velocity if facts.position and facts.velocity else to_position | to_velocity
    if not facts.dynamic:
        both = to_position
    for cycle in sorted(both - between):
        relation = (facts.position or facts.velocity) if facts.dynamic else facts.level
        if relation is None or not _nearer(joints, cycle, not facts.dynamic and facts.repeats > REPEATS):
            continue
        kinds = ["position", "velocity"] if facts.rate is not None else ["position"]
        out.append(_exchange(joints, kinds, cycle, relation, "what was sent"))
    return out


def _stranger(facts: Facts, joints: Joints, cycle: tuple[int, ...]) -> str:
    """Whether positions or velocities of some joints are less like those of training, and so the wrong ones."""
    better: dict[str, float] = {}
    for kind in ("position", "velocity"):
        name, at = joints.component(kind, list(cycle))
        channel = facts.record.seen[name]
        mean, spread = channel.mean[list(at)], np.maximum(channel.spread[list(at)], 1e-9)
        seen, wide = channel.values[:, at].mean(axis=0), channel.values[:, at].std(axis=0)
        off = lambda m, s, mean=mean, spread=spread: float(  # noqa: E731
            (((m - mean) / spread) ** 2).sum() + (np.log(np.maximum(s, 1e-9) / spread) ** 2).sum()
        )
        better[kind] = off(seen, wide) - off(np.roll(seen, 1), np.roll(wide, 1))
    return max(better, key=lambda kind: better[kind])


def _nearer(joints: Joints, cycle: tuple[int, ...], repeats: bool) -> bool:
    """Whether joints are nearer to their targets when they change places; where all repeats itself, on the average,
    as one that is late may be nearer to another's target."""
    q, u = joints.position[:, cycle], joints.target[:, cycle]
    if repeats:
        q, u = q.mean(axis=0, keepdims=True), u.mean(axis=0, keepdims=True)
    rolled = min(float(((u - np.roll(q, s, axis=1)) ** 2).mean()) for s in range(1, len(cycle)))
    return rolled < (0.3 if repeats else 1.1) * float(((u - q) ** 2).mean())


def _exchange(joints: Joints, kinds: list[str], cycle: tuple[int, ...], relation: Relation, to: str) -> Finding:
    index = [int(np.flatnonzero(relation.joints == j)[0]) for j in cycle]
    before = float(np.mean([abs(relation.strength[i, i]) for i in index]))
    after = float(np.mean([max(abs(relation.strength[k, i]) for k in index if k != i) for i in index]))
    components, elements = _where(joints, kinds, cycle)
    names = " and ".join(joints.names[j] for j in cycle)
    also = "" if to != "what was sent" else " (or what is sent to them is)"
    what = "exchanged" if len(cycle) == 2 else "in another order"
    said = " and ".join(places(c, elements) if c == components[0] else c for c in components)
    return Finding(
        "permuted", components, elements,
        f"{said} ({names}) are {what}{also}",
        f"correlation with {to} {after:.2f} after exchange, {before:.2f} before",
        "read joints by their names, in the contract's order",
        {"before": before, "after": after, "joints": [joints.names[j] for j in cycle]},
        float(sum(relation.score[:, i].max() - relation.score[i, i] for i in index)),
    )  # fmt: skip


def _where(joints: Joints, kinds: list[str], chosen: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Components of these kinds of signals, and places of the joints in the first."""
    found = [joints.component(kind, list(chosen)) for kind in kinds]
    return tuple(dict.fromkeys(name for name, _ in found)), tuple(sorted(found[0][1]))


def _sign_findings(facts: Facts, joints: Joints, taken: set[int]) -> list[Finding]:
    flipped: dict[str, set[int]] = {"between": set(), "sent": set()}
    rate, commanded = facts.rate, _commanded(facts)
    if rate is not None:
        sure = (rate.score.diagonal() > _SURE) & (np.abs(rate.strength.diagonal()) > _CLOSE) & (abs(rate.lag) < 2.5)
        flipped["between"] = {
            int(j) for j, s, ok in zip(rate.joints, rate.sign.diagonal(), sure, strict=True) if s < 0 and ok
        }
    for number, relation in enumerate(commanded):
        own, sign = relation.score.diagonal(), relation.sign.diagonal()
        best = (own >= relation.score.max(axis=0)) | (own > _CERTAIN)
        rows = zip(relation.joints, sign, own, best, strict=True)
        good = {int(j) for j, s, g, b in rows if s < 0 and g > _SURE / 2 and (b or _mirrored(joints, int(j), 0.3))}
        flipped["sent"] = good if number == 0 else flipped["sent"] & good
    out: list[Finding] = []
    for j in sorted(flipped["between"] | flipped["sent"]):
        mirrored = _mirrored(joints, j)
        if j in flipped["between"]:
            kinds = ["position"] if mirrored and j in _negative(facts.position) else ["velocity"]
        elif mirrored or (facts.dynamic and all(_certain(r, j) for r in commanded) and j in _negative(facts.level)):
            kinds = ["position", "velocity"] if rate is not None else ["position"]
        else:
            continue
        components, elements = _where(joints, kinds, (j,))
        if set(elements) & taken:
            continue
        out.append(_sign(facts, joints, j, components, elements, j in flipped["between"]))
    return out


def _certain(relation: Relation, j: int) -> bool:
    """Whether a joint follows its own target, and with the wrong sign, beyond doubt."""
    at = int(np.flatnonzero(relation.joints == j)[0])
    own = relation.score[at, at]
    return bool(own > _CERTAIN and own == relation.score[:, at].max() and relation.sign[at, at] < 0.0)


def _negative(relation: Relation | None) -> set[int]:
    if relation is None:
        return set()
    return {int(j) for j, s in zip(relation.joints, relation.sign.diagonal(), strict=True) if s < 0}


def _mirrored(joints: Joints, j: int, than: float = 1.2) -> bool:
    """Whether a joint is nearer to its targets with the other sign; True where nothing is sent to it."""
    q, u = joints.position[:, j], joints.target[:, j]
    if not (np.isfinite(u).all() and np.isfinite(q).all()):
        return True
    return float(((u + q) ** 2).mean()) < than * float(((u - q) ** 2).mean())


def _sign(
    facts: Facts, joints: Joints, j: int, components: tuple[str, ...], elements: tuple[int, ...], between: bool
) -> Finding:
    relation = facts.rate if between else ((facts.position or facts.velocity) if facts.dynamic else facts.level)
    assert relation is not None
    at = int(np.flatnonzero(relation.joints == j)[0])
    score = float(relation.score[at, at])
    strength = float(abs(relation.strength[at, at]))
    to = "the rate of the position" if between else "what was sent"
    name = " and ".join(places(c, elements) for c in components)
    return Finding(
        "sign", components, elements, f"{name} ({joints.names[j]}) has the wrong sign",
        f"correlation with {to} {-strength:.2f}, expected above 0 (log likelihood {score:.0f})",
        "turn the sign round, of what is read and of what is sent alike if the motor is mounted the other way",
        {"correlation": -strength, "joint": joints.names[j]}, score,
    )  # fmt: skip


def _scale_findings(facts: Facts, joints: Joints, level: float | None) -> list[Finding]:
    """Positions or velocities of all joints in another unit or off by a factor; `level`: see `_level_factor`."""
    between: float | None = None  # of a robot that does not move nothing is known
    single: list[Finding] = []
    if facts.rate is not None and len(facts.rate.joints):
        own = np.abs(facts.rate.strength.diagonal())
        strong = (own > 0.7) & (own >= np.abs(facts.rate.strength).max(axis=0))
        if strong.any():
            between = float(np.median(facts.rate.slope[strong]))
            if not _off(between):
                single = _single_scales(joints, facts.rate, strong)
    velocity = position = 1.0
    if between is not None and _off(between):
        shown = level is not None and _off(level) and abs(np.log(abs(level) * between)) < 0.5
        if shown or (level is None and _spread_factor(facts, joints)):
            position = 1.0 / between
        else:
            velocity = between
            position = level if level is not None and _far(level) else 1.0
    elif level is not None and _far(level):
        position = level
        velocity = level if between is not None or _spreads(facts, joints)["velocity"] > _WIDE else 1.0
    out: list[Finding] = []
    same = _off(position) and _off(velocity) and abs(np.log(position / velocity)) < 0.3
    groups = [(["position", "velocity"], position)] if same else [(["position"], position), (["velocity"], velocity)]
    for kinds, factor in groups:
        if _off(factor):
            kinds = [k for k in kinds if any(p is not None for p in joints.place[k])]
            out.append(_scale(joints, kinds, factor, between, level))
    return out or single


def _off(factor: float) -> bool:
    return abs(np.log(max(factor, 1e-9))) > _SCALE_OFF


def _far(factor: float) -> bool:
    """Whether positions are so far from their targets on the whole that no load explains it."""
    return abs(np.log(max(factor, 1e-9))) > 0.5


def _level_factor(joints: Joints) -> float | None:
    """What all positions are, in parts of their targets; None where nothing is sent or the targets are about 0."""
    chosen = joints.has("position", "target")
    if not len(chosen):
        return None
    q, u = joints.position[:, chosen], joints.target[:, chosen]
    far = np.abs(u.mean(axis=0)) > 0.3
    if far.sum() < 2:
        return None
    slope = float(np.median((u * q).sum(axis=0)[far] / (u * u).sum(axis=0)[far]))  # whatever one joint does
    return slope if abs(slope) > 0.005 else None


def _spread_factor(facts: Facts, joints: Joints) -> bool:
    """Whether positions spread as a wrong factor of theirs would make them, and velocities as in training."""
    ratio = {which: abs(float(np.log(max(wide, 1e-9)))) for which, wide in _spreads(facts, joints).items()}
    return ratio["position"] > ratio["velocity"]


def _spreads(facts: Facts, joints: Joints) -> dict[str, float]:
    """How widely positions and velocities spread, in parts of what they do in training; 0 without any."""
    out: dict[str, float] = {}
    for which in ("position", "velocity"):
        chosen = joints.has(which)
        out[which] = 0.0
        if len(chosen):
            name, at = joints.component(which, chosen)
            channel = facts.record.seen[name]
            wide = channel.values[:, at].std(axis=0) / np.maximum(channel.spread[list(at)], 1e-9)
            out[which] = float(np.median(wide))
    return out


def _single_scales(joints: Joints, rate: Relation, strong: NDArray[np.bool_]) -> list[Finding]:
    """Velocities of single joints off by a factor of 1.6 or more, against those of the others."""
    usual = float(np.median(rate.slope))
    out: list[Finding] = []
    for at, j in enumerate(rate.joints):
        factor = float(rate.slope[at] / usual)
        if not strong[at] or abs(np.log(factor)) < 0.5 or abs(rate.strength[at, at]) < 0.9:
            continue
        component, elements = joints.component("velocity", [int(j)])
        out.append(
            Finding(
                "scale", (component,), elements,
                f"{places(component, elements)} ({joints.names[j]}) is {factor:.2g} times what it should be",
                f"slope against the rate of the position {rate.slope[at]:.2f}, of the other joints {usual:.2f}",
                "look at this joint's gear ratio in the driver", {"factor": factor},
                float(rate.score[at, at]),
            )
        )  # fmt: skip
    return out


def _scale(joints: Joints, kinds: list[str], factor: float, between: float | None, level: float | None) -> Finding:
    chosen = joints.has(kinds[0])
    components = tuple(dict.fromkeys(joints.component(kind, joints.has(kind))[0] for kind in kinds))
    evidence = [f"the velocity is {between:.2f} times the rate of the position"] if between is not None else []
    if level is not None:
        evidence.append(f"positions are {level:.3g} times their targets")
    score = 100.0 * len(chosen)
    return scale_finding(components, factor, "; ".join(evidence), score)


def scale_finding(components: tuple[str, ...], factor: float, evidence: str, weight: float) -> Finding:
    """A factor, named degrees where it is about that of degrees."""
    name, are = " and ".join(components), "is" if len(components) == 1 else "are"
    turns = np.log(abs(factor)) / np.log(_DEGREES)
    if 0.87 < turns < 1.13:
        return Finding(
            "degrees", components, (), f"{name} {are} in degrees, expected radians", evidence,
            "multiply by pi / 180", {"factor": factor}, weight,
        )  # fmt: skip
    if -1.13 < turns < -0.87:
        return Finding(
            "degrees", components, (), f"{name} {are} in radians, divided by another 57.3", evidence,
            "convert from degrees once, not twice", {"factor": factor}, weight,
        )  # fmt: skip
    nice = min(
        (0.1, 0.25, 1 / 3, 0.5, 2 / 3, 1.5, 2.0, 3.0, 4.0, 10.0, 1000.0), key=lambda x: abs(np.log(x / abs(factor)))
    )
    shown = nice if abs(np.log(nice / abs(factor))) < 0.12 else factor
    return Finding(
        "scale", components, (), f"{name} {are} {shown:.3g} times what it should be", evidence,
        f"multiply by {1.0 / shown:.3g}, or look for a wrong gear ratio or unit in the driver",
        {"factor": factor}, weight,
    )  # fmt: skip
