"""Joints against themselves: the velocity of a joint is the rate of its position, and both follow what is sent to it.

Three signals of one joint (position, velocity, target) make three relations. A fault of one signal spoils two of them,
so that the third says whose fault it is; `simreal.audit.verdicts` counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.audit.recording import Recording
from simreal.audit.relations.periodic import repeating

Numbers = NDArray[np.float64]
_LATEST = 8  # cycles that one signal is tried to be later than another
_GRAIN = 1e-3  # of a signal's own spread: what is smaller is its grain, and says nothing


@dataclass(frozen=True)
class Joints:
    """Joints whose position or velocity is seen, with what is sent to them where it is a position.

    Attributes:
        names: [n].
        place: "position", "velocity", "target" -> [n] component and place in it, or None for a joint without.
        position, velocity, target: [T, n]; columns of NaN where a joint has none.
        stiffness: [n] N m/rad, NaN where unknown; effort_limit alike.
    """

    names: tuple[str, ...]
    place: dict[str, list[tuple[str, int] | None]]
    position: Numbers
    velocity: Numbers
    target: Numbers
    stiffness: Numbers
    effort_limit: Numbers

    def has(self, *kinds: str) -> NDArray[np.int64]:
        """Joints that have all of these signals, moving and finite."""
        good = np.ones(len(self.names), dtype=bool)
        for kind in kinds:
            values = getattr(self, kind)
            good &= np.isfinite(values).all(axis=0) & (np.ptp(values, axis=0) > 1e-9)
        return np.flatnonzero(good)

    def component(self, kind: str, joints: NDArray[np.int64] | list[int]) -> tuple[str, tuple[int, ...]]:
        """The component of one kind of signal, and the places of joints in it."""
        entries = [entry for j in joints if (entry := self.place[kind][j]) is not None]
        return entries[0][0], tuple(place for _, place in entries)


def joints_of(record: Recording) -> Joints | None:
    """The joints of a log; None where it shows none."""
    names: list[str] = []
    place: dict[str, dict[str, tuple[str, int]]] = {"position": {}, "velocity": {}, "target": {}}
    columns: dict[str, dict[str, Numbers]] = {"position": {}, "velocity": {}, "target": {}}
    gains: dict[str, tuple[float, float]] = {}
    unit: dict[str, str] = {}

    def add(kind: str, part: dict[str, Any], values: Numbers) -> None:
        for i, joint in enumerate(part["joints"]):
            if joint not in names:
                names.append(joint)
            place[kind].setdefault(joint, (part["name"], i))
            columns[kind].setdefault(joint, values[:, i])

    for channel in record.seen.values():
        part = channel.part
        if len(part["joints"]) != len(part["scale"]) or part["frame"] not in ("joint", "") or not part["measured"]:
            continue
        if part["unit"] in ("rad", "m") and "veloc" not in part["description"]:
            add("position", part, channel.values)
            unit |= dict.fromkeys(part["joints"], part["unit"])
        elif part["unit"] in ("rad/s", "m/s"):
            add("velocity", part, channel.values)
    for part in record.contract["action"]:
        sent = record.sent.get(part["name"])
        same = part["joints"] and all(unit.get(joint) == part["unit"] for joint in part["joints"])
        if sent is None or not same or len(part["joints"]) != sent.shape[1] or part["afterwards"]:
            continue
        add("target", part, sent)
        for i, joint in enumerate(part["joints"]):
            known = part["stiffness"] and part["effort_limit"]
            gains[joint] = (part["stiffness"][i], part["effort_limit"][i]) if known else (np.nan, np.nan)
    if not names:
        return None
    blank = np.full(len(record.time), np.nan)
    stack = {kind: np.stack([columns[kind].get(n, blank) for n in names], axis=1) for kind in columns}
    stiffness, limit = np.array([gains.get(n, (np.nan, np.nan)) for n in names]).T
    places = {kind: [place[kind].get(n) for n in names] for kind in place}
    return Joints(tuple(names), places, stack["position"], stack["velocity"], stack["target"], stiffness, limit)


@dataclass(frozen=True)
class Relation:
    """How one signal of n joints follows another.

    Attributes:
        joints: [n] indices into `Joints`.
        score: [n, n] log likelihood gained for signal b of joint j (columns) by signal a of joint i (rows), at `lag`.
        sign: [n, n] of the relation.
        by_lag: [L] summed over the joints, each with its best partner.
        lag: cycles that b is later than a, where the sum is largest.
        interval: of the lag (95 %, bootstrap over stretches of the log), cycles.
        strength: [n, n] correlation at `lag`.
        slope: [n] of b on a of the same joint, where it means something.
        repeats: share of the log in which everything repeats itself, where that was left out.
    """

    joints: NDArray[np.int64]
    score: Numbers
    sign: Numbers
    by_lag: Numbers
    lag: float
    interval: tuple[float, float]
    strength: Numbers
    slope: Numbers
    repeats: float = 0.0


def usual_steps(record: Recording) -> NDArray[np.bool_]:
    """Whether the step from one cycle to the next takes about as long as most do [T - 1]."""
    step = np.diff(record.time)
    return (step > 0.5 * record.step_s) & (step < 1.5 * record.step_s)


def rate_relation(record: Recording, joints: Joints) -> Relation | None:
    """Velocities against the rates of positions."""
    chosen = joints.has("position", "velocity")
    if not len(chosen):
        return None
    q, v = joints.position[:, chosen], joints.velocity[:, chosen]
    rate = np.diff(q, axis=0) / np.diff(record.time)[:, None]
    return _pairwise(chosen, rate, 0.5 * (v[1:] + v[:-1]), usual_steps(record))


def level_relation(record: Recording, joints: Joints) -> Relation | None:
    """Positions against targets, as they are: for a robot that is moved so gently that its joints are where they were
    told to be, and nothing else makes them move in step."""
    chosen = joints.has("position", "target")
    if not len(chosen):
        return None
    return _pairwise(chosen, joints.target[:-1, chosen], joints.position[:-1, chosen], usual_steps(record))


def _pairwise(chosen: NDArray[np.int64], a: Numbers, b: Numbers, good: NDArray[np.bool_]) -> Relation:
    """How signals b [T, n] follow signals a [T, n] of the same joints, by correlation."""
    lags = np.arange(-_LATEST, _LATEST + 1)
    tables = [_correlation(*_shifted(a, b, good, int(lag))) for lag in lags]
    counts = [_count(good, int(lag)) for lag in lags]
    scores = [-0.5 * n * np.log1p(-np.minimum(c**2, 0.999999)) for c, n in zip(tables, counts, strict=True)]
    best = int(np.argmax([score.max(axis=0).sum() for score in scores]))
    partner = scores[best].argmax(axis=0)
    blocks = _blocks(len(good))
    curves = np.array([[_block_score(a, b, good, int(g), partner, block) for g in lags] for block in blocks])
    lag, interval = _peak(lags.astype(float), curves)
    x, y = _shifted(a, b, good, int(lags[best]))
    slope = y.std(axis=0) / np.maximum(x.std(axis=0), 1e-12)
    return Relation(chosen, scores[best], np.sign(tables[best]), curves.sum(axis=0), lag, interval, tables[best], slope)


def _shifted(a: Numbers, b: Numbers, good: NDArray[np.bool_], lag: int) -> tuple[Numbers, Numbers]:
    """a[k] and b[k + lag] where both are good."""
    n = len(good)
    first, last = max(0, -lag), min(n, n - lag)
    k = np.arange(first, last)
    k = k[good[k] & good[k + lag]]
    return a[k], b[k + lag]


def _count(good: NDArray[np.bool_], lag: int) -> int:
    return max(int(good.sum()) - abs(lag), 1)


def _correlation(a: Numbers, b: Numbers) -> Numbers:
    """[n, n] between columns of a and of b."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a.T @ b) / np.maximum(np.sqrt((a**2).sum(axis=0))[:, None] * np.sqrt((b**2).sum(axis=0)), 1e-12)


def _blocks(count: int, most: int = 10) -> list[NDArray[np.int64]]:
    """Stretches of a log, each long enough to be shifted in."""
    return np.array_split(np.arange(count), max(min(most, count // (4 * _LATEST)), 1))


def _block_score(
    a: Numbers, b: Numbers, good: NDArray[np.bool_], lag: int, partner: NDArray[np.int64], block: NDArray[np.int64]
) -> float:
    x, y = _shifted(a[block], b[block], good[block], lag)
    if len(x) < 8:
        return 0.0
    c = _correlation(x[:, partner], y).diagonal()
    return float(-0.5 * len(x) * np.log1p(-np.minimum(c**2, 0.9999)).sum())


def _peak(lags: Numbers, curves: Numbers, draws: int = 200) -> tuple[float, tuple[float, float]]:
    """Where the sum of curves [blocks, L] is largest, and a 95 % interval by drawing blocks."""

    def top(curve: Numbers) -> float:
        i = int(curve.argmax())
        if 0 < i < len(curve) - 1:
            left, mid, right = curve[i - 1 : i + 2]
            bend = left - 2.0 * mid + right
            return float(lags[i] + (0.5 * (left - right) / bend if bend < 0.0 else 0.0))
        return float(lags[i])

    rng = np.random.default_rng(0)
    drawn = [top(curves[rng.integers(len(curves), size=len(curves))].sum(axis=0)) for _ in range(draws)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return top(curves.sum(axis=0)), (float(low), float(high))


def response_relation(record: Recording, joints: Joints, of: str) -> Relation | None:
    """Positions or velocities (`of`) of the next cycle against targets that were sent before.

    For each joint the next value is predicted from what the joint did and from all targets, with and without one of
    them; the gain of log likelihood says whether the joint follows that target, whatever moves in step with it. What
    repeats itself does not count (see `periodic`).
    """
    chosen = joints.has(of, "target")
    if not len(chosen):
        return None
    y, u = getattr(joints, of)[:, chosen], joints.target[:, chosen]
    history = [getattr(joints, kind)[:, chosen] for kind in ("position", "velocity")]
    history = [h for h in history if np.isfinite(h).all()]
    good = usual_steps(record)
    k = np.arange(_LATEST + 2, len(y) - 1)
    k = k[good[k] & good[k - 1]]
    waves, repeats = repeating(u, k)
    past = [_unpredicted(y, history, k, j, waves) for j in range(len(chosen))]
    lags = np.arange(0, _LATEST + 1)
    scores = [_drop_one(u, k, (int(lag),), past) for lag in lags]  # one tap for the lag, two for a lag between cycles
    best = int(np.argmax([s.max(axis=0).sum() for s, _, _ in scores]))
    partner = scores[best][0].argmax(axis=0)
    score, sign, _ = _drop_one(u, k, (best, best + 1), past)
    curves = np.stack([blocks[:, partner, np.arange(len(chosen))].sum(axis=1) for _, _, blocks in scores], axis=1)
    lag, interval = _peak(lags.astype(float), curves)
    strength = np.sqrt(-np.expm1(-2.0 * score / len(k)))
    slope = np.full(len(chosen), np.nan)
    return Relation(chosen, score, sign, curves.sum(axis=0), lag, interval, strength, slope, repeats)


@dataclass(frozen=True)
class _Past:
    """A basis [K, m] of what a joint did in cycles k and before, and of what repeats itself; what of its value in the
    next cycle does not follow from it [K]; the sum of squares below which nothing is worth explaining."""

    basis: Numbers
    rest: Numbers
    floor: float


def _unpredicted(y: Numbers, history: list[Numbers], k: NDArray[np.int64], j: int, waves: Numbers) -> _Past:
    """What joint j does beyond its past; `waves` [K, c] orthonormal."""
    past = np.column_stack([np.ones(len(k)), *(h[k - back, j] for h in history for back in (0, 1))])
    past[:, 1:] -= past[:, 1:].mean(axis=0)
    past /= np.maximum(np.linalg.norm(past, axis=0), 1e-300)
    for _ in range(2):  # once more for what rounding leaves
        past = past - waves @ (waves.T @ past)
    basis, size = np.linalg.qr(past)
    basis = np.column_stack([waves, basis[:, np.abs(size.diagonal()) > _GRAIN]])
    value = y[k + 1, j]
    return _Past(basis, value - basis @ (basis.T @ value), len(k) * float(_GRAIN * value.std()) ** 2)


def _drop_one(
    u: Numbers, k: NDArray[np.int64], lags: tuple[int, ...], past: list[_Past], blocks: int = 10
) -> tuple[Numbers, Numbers, Numbers]:
    """Log likelihood that every target adds to all others for every joint [n, n], its sign, and the same by stretches
    of the log [blocks, n, n]."""
    n, count = u.shape[1], len(k)
    taps = np.column_stack([u[k - lag] for lag in lags])
    least = _GRAIN * np.linalg.norm(taps - taps.mean(axis=0), axis=0)
    score, sign, parts = np.zeros((n, n)), np.zeros((n, n)), np.zeros((blocks, n, n))
    edges = np.linspace(0, count, blocks + 1).astype(int)[:-1]
    for j, known in enumerate(past):
        x = taps - known.basis @ (known.basis.T @ taps)
        x[:, np.linalg.norm(x, axis=0) < least] = 0.0
        inverse = np.linalg.pinv(x.T @ x, rcond=1e-9, hermitian=True)
        weights = inverse @ (x.T @ known.rest)
        error = known.rest - x @ weights
        total = float(error @ error) + known.floor + 1e-300
        for i in range(n):
            own = [i + n * tap for tap in range(len(lags))]
            # Leaving regressors out: what the others cannot take over comes back into the error.
            back = x @ (inverse[:, own] @ (np.linalg.pinv(inverse[np.ix_(own, own)]) @ weights[own]))
            without = error + back
            score[i, j] = 0.5 * count * np.log(max(float(without @ without) + known.floor, total) / total)
            sign[i, j] = np.sign(weights[own][np.abs(weights[own]).argmax()])
            parts[:, i, j] = np.add.reduceat(0.5 * count / total * (without**2 - error**2), edges)
    return score, sign, parts


def lag_between(record: Recording, first: Numbers, second: Numbers) -> tuple[float, tuple[float, float], float]:
    """Cycles that signals [T, m] are later than signals [T, n] that they depend on linearly, in whatever way.

    Returns:
        The lag, its 95 % interval, and the share of the variance explained there.
    """
    good = usual_steps(record)
    k = np.arange(_LATEST, len(first) - _LATEST - 1)
    k = k[good[k]]
    lags = np.arange(-_LATEST, _LATEST + 1)
    x = np.column_stack([np.ones(len(k)), first[k]])
    basis, _ = np.linalg.qr(x)
    edges = np.linspace(0, len(k), 11).astype(int)[:-1]
    curves, explained = [], []
    for lag in lags:
        y = second[k + lag]
        rest = y - basis @ (basis.T @ y)
        error, total = (rest**2).sum(axis=0), ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        explained.append(float(1.0 - (error / np.maximum(total, 1e-12)).mean()))
        curves.append(-np.add.reduceat(rest**2 / np.maximum(total, 1e-12), edges).sum(axis=1))
    lag, interval = _peak(lags.astype(float), np.array(curves).T)
    return lag, interval, max(explained)


def exchanges(relation: Relation, times: float = 2.0, least: float = 12.0) -> dict[int, int]:
    """Joints whose signal is that of another one: joint -> the joint that it shows, of `Joints`.

    Starts from everything in its place and exchanges pairs as long as both joints of a pair are then explained better:
    together by a log likelihood of `least`, and each at least `times` as well as by its own partner; or as well, where
    both follow their own with the wrong sign.
    """
    n, score, sign = len(relation.joints), relation.score, relation.sign
    source = list(range(n))
    while True:
        gains: list[tuple[float, int, int]] = []
        for i in range(n):
            for j in range(i):
                before, after = (score[source[i], i], score[source[j], j]), (score[source[j], i], score[source[i], j])
                turned = sign[source[i], i] < 0.0 and sign[source[j], j] < 0.0
                right = sign[source[j], i] > 0.0 and sign[source[i], j] > 0.0
                more = 1.0 if turned and right else times
                if after[0] > more * before[0] and after[1] > more * before[1]:
                    gains.append((after[0] + after[1] - before[0] - before[1], i, j))
        if not gains or max(gains)[0] < least:
            break
        _, i, j = max(gains)
        source[i], source[j] = source[j], source[i]
    joints = relation.joints
    return {int(joints[i]): int(joints[s]) for i, s in enumerate(source) if s != i}
