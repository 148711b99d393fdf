"""The two halves of an IMU against each other: gravity turns in the body's frame as the gyroscope says.

The gyroscope is integrated over windows of some seconds. Within each, whatever the orientation was at its start, the
measured direction of gravity has to follow; what remains tells right readings from wrong ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simreal.audit.recording import Channel, Recording

Numbers = NDArray[np.float64]
DOWN = np.array([0.0, 0.0, -1.0])
_WINDOW_S, _LATEST = 2.0, 8
_DEGREES = 180.0 / np.pi
# A reading has to leave so much less unexplained than that nothing turned at all: of a robot at rest the gyroscope says
# noise, and whichever reading turns gravity least by it would be best.
_MOVES = 0.8


@dataclass(frozen=True)
class Reading:
    """One way to read an IMU, with what it leaves unexplained.

    Attributes:
        what: "gyro" or "gravity", whichever is wrong in it; "" for both being right.
        kind: of fault; see `Finding`.
        detail: axes and signs, or a factor.
        error: rms of gravity's direction that remains.
        squares: [W] its mean square in each window.
    """

    what: str
    kind: str
    detail: str
    error: float
    elements: tuple[int, ...] = ()
    value: float = 0.0
    squares: Numbers = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Attitude:
    """An IMU of the log.

    Attributes:
        gyro, gravity: its components.
        plain: the error where both are right.
        best: the reading that explains most; `plain`'s where none is clearly better.
        lag: cycles that gravity is later than the gyroscope, with its 95 % interval.
        turn: rms of the angular velocity, rad/s: how much there is to see.
    """

    gyro: Channel
    gravity: Channel
    plain: Reading
    best: Reading
    lag: float
    interval: tuple[float, float]
    turn: float
    readings: tuple[Reading, ...]


def imu_of(record: Recording) -> tuple[Channel, Channel] | None:
    """The gyroscope and the direction of gravity of the same body; None where the log does not have both."""
    gyros, gravities = [], []
    for channel in record.seen.values():
        part = channel.part
        if len(part["scale"]) != 3 or part["joints"] or not part["measured"] or part["frame"] in ("world", "joint"):
            continue
        words = f"{part['name']} {part['description']}"
        if part["unit"] == "rad/s" and ("gyro" in words or "angular" in words):
            gyros.append(channel)
        elif part["unit"] == "1" and ("gravity" in words or "down" in words):
            gravities.append(channel)
    pairs = [(a, b) for a in gyros for b in gravities if a.part["frame"] == b.part["frame"]]
    return pairs[0] if pairs else None


def attitude(record: Recording) -> Attitude | None:
    """Compare all readings of a log's IMU. None where it has none, or nothing moves."""
    pair = imu_of(record)
    if pair is None:
        return None
    gyro, gravity = pair
    w, g = gyro.values, gravity.values
    if not (np.isfinite(w).all() and np.isfinite(g).all()):
        return None
    if np.ptp(w, axis=0).max() < 1e-9 or np.ptp(g, axis=0).max() < 1e-9:
        return None
    windows = _windows(record)
    if not windows:
        return None
    fit = _Fit(record.time, w, g, windows, gravity.mean)
    plain = _reading("", "", "", fit.body(lambda x: x, lambda y: y))
    readings = [*_gyro_readings(fit), *_gravity_readings(fit, plain.error)]
    best = min(readings, key=lambda r: r.error)
    rest = _reading("", "", "", fit.body(np.zeros_like, lambda y: y))
    seen = best.error < _MOVES * rest.error and _clearly(best, plain)
    lag, interval = fit.lag()
    turn = float(np.sqrt((w**2).sum(axis=1).mean()))
    return Attitude(gyro, gravity, plain, best if seen else plain, lag, interval, turn, tuple(readings))


def _clearly(best: Reading, plain: Reading) -> bool:
    """Whether a reading explains more than the plain one does, also in nearly all draws of the windows."""
    if not (best.error < 0.95 * plain.error and plain.error > 0.015):
        return False
    if best.error < 0.5 * plain.error and plain.error > 0.06:
        return True  # also where the robot turns in a few windows only, and lies still afterwards
    gain = plain.squares - best.squares
    drawn = np.random.default_rng(0).integers(len(gain), size=(1000, len(gain)))
    return len(gain) >= 3 and float((gain[drawn].mean(axis=1) > 0.0).mean()) > 0.99


def _windows(record: Recording) -> list[NDArray[np.int64]]:
    """Stretches of the log without gaps, of some seconds each."""
    step = np.diff(record.time)
    count = max(int(_WINDOW_S / record.step_s), 20)
    breaks = np.flatnonzero(step > 5.0 * record.step_s) + 1
    out: list[NDArray[np.int64]] = []
    for part in np.split(np.arange(len(record.time)), breaks):
        out += [w for w in np.array_split(part, max(len(part) // count, 1)) if len(w) >= 20]
    return out


class _Fit:
    """Errors of readings, over the windows of a log."""

    def __init__(
        self, time: Numbers, w: Numbers, g: Numbers, windows: list[NDArray[np.int64]], usual: Numbers
    ) -> None:  # fmt: skip
        self.time, self.w, self.g, self.windows, self.usual = time, w, g, windows, usual

    def turns(self, w: Numbers, window: NDArray[np.int64]) -> Numbers:
        """Rotations [K, 3, 3] from the body at each cycle to the body at the window's first, for w in the body."""
        step = np.diff(self.time[window])
        angle = 0.5 * (w[window[1:]] + w[window[:-1]]) * step[:, None]
        small = _exponential(angle)
        out = np.empty((len(window), 3, 3))
        out[0] = np.eye(3)
        for k in range(len(small)):
            out[k + 1] = out[k] @ small[k]
        return out

    def body(self, gyro: Callable[[Numbers], Numbers], gravity: Callable[[Numbers], Numbers]) -> Numbers:
        """Mean square errors [W] where both are in the body's frame: R(t)^T g0 with the best direction g0."""
        return np.array([float((e**2).sum(axis=1).mean()) for e in self.errors(gyro(self.w), gravity(self.g))])

    def errors(self, w: Numbers, g: Numbers, shift: int = 0) -> list[Numbers]:
        out: list[Numbers] = []
        for window in self.windows:
            kept = window[(window + shift >= window[0]) & (window + shift <= window[-1])]
            turns = self.turns(w, window)[kept - window[0]]
            seen = g[kept + shift]
            at_start = np.einsum("kij,kj->ki", turns, seen).mean(axis=0)
            at_start /= max(float(np.linalg.norm(at_start)), 1e-9)
            out.append(seen - np.einsum("kji,j->ki", turns, at_start))
        return out

    def wahba(self, vectors: Callable[[NDArray[np.int64]], Numbers]) -> Numbers:
        """Mean square errors [W] where gravity is a fixed, unknown rotation of given vectors [K, 3] of each window."""
        out: list[float] = []
        for window in self.windows:
            a, b = vectors(window), self.g[window]
            u, _, vt = np.linalg.svd(b.T @ a)
            rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
            out.append(float(((b - a @ rotation.T) ** 2).sum(axis=1).mean()))
        return np.array(out)

    def lag(self) -> tuple[float, tuple[float, float]]:
        """Cycles that gravity is later than the gyroscope, and a 95 % interval from drawing windows."""
        lags = np.arange(-_LATEST, _LATEST + 1)
        curves = np.array([[float((e**2).mean()) for e in self.errors(self.w, self.g, int(s))] for s in lags]).T
        rng = np.random.default_rng(0)

        def lowest(curve: Numbers) -> float:
            i = int(curve.argmin())
            if 0 < i < len(curve) - 1:
                left, mid, right = curve[i - 1 : i + 2]
                bend = left - 2.0 * mid + right
                return float(lags[i] + (0.5 * (left - right) / bend if bend > 0.0 else 0.0))
            return float(lags[i])

        drawn = [lowest(curves[rng.integers(len(curves), size=len(curves))].mean(axis=0)) for _ in range(200)]
        low, high = np.quantile(drawn, (0.025, 0.975))
        return lowest(curves.mean(axis=0)), (float(low), float(high))


def _exponential(angle: Numbers) -> Numbers:
    """Rotation matrices [K, 3, 3] of rotation vectors [K, 3] (Rodrigues)."""
    norm = np.linalg.norm(angle, axis=1)
    x, y, z = (angle / np.maximum(norm, 1e-12)[:, None]).T
    zero = np.zeros_like(x)
    cross = np.stack([np.stack([zero, -z, y], 1), np.stack([z, zero, -x], 1), np.stack([-y, x, zero], 1)], axis=1)
    sine, cosine = np.sin(norm)[:, None, None], np.cos(norm)[:, None, None]
    return np.eye(3) + sine * cross + (1.0 - cosine) * (cross @ cross)


def _signed_axes() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Orders and signs of three axes but the right one: the simplest first."""
    every = itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    return [(order, signs) for order, signs in every if order != (0, 1, 2) or signs != (1, 1, 1)]


def _reading(
    what: str, kind: str, detail: str, squares: Numbers, elements: tuple[int, ...] = (), value: float = 0.0,
    less: float = 0.0,
) -> Reading:  # fmt: skip
    """A reading; `less` makes it less likely than a simpler one that explains as much."""
    return Reading(what, kind, detail, float(np.sqrt(squares.mean())) * (1.0 + less), elements, value, squares)


def _axes_reading(what: str, order: tuple[int, ...], signs: tuple[int, ...], squares: Numbers) -> Reading:
    names = "xyz"
    flipped = tuple(i for i, s in enumerate(signs) if s < 0)
    moved = tuple(i for i, o in enumerate(order) if o != i)
    detail = ", ".join(f"{'-' if s < 0 else ''}{names[o]}" for o, s in zip(order, signs, strict=True))
    kind = "sign" if not moved else "permuted" if not flipped else "frame"
    elements = flipped if not moved else moved if not flipped else ()
    return _reading(what, kind, detail, squares, elements, less=0.03 * (len(moved) + len(flipped)))


def _gyro_readings(fit: _Fit) -> list[Reading]:
    """Readings in which the gyroscope is wrong."""
    same = lambda x: x  # noqa: E731
    out: list[Reading] = []
    for order, signs in _signed_axes():
        change = lambda w, order=order, signs=signs: w[:, order] * np.array(signs)  # noqa: E731
        out.append(_axes_reading("gyro", order, signs, fit.body(change, same)))
    for factor in (0.25, 1.0 / 3.0, 0.5, 2.0, 3.0, 4.0):
        squares = fit.body(lambda w, f=factor: f * w, same)
        out.append(_reading("gyro", "scale", f"{1 / factor:g}", squares, (), 1 / factor))
    out.append(_reading("gyro", "degrees", "", fit.body(lambda w: w / _DEGREES, same), (), _DEGREES))
    # In the world's frame the body turns by multiplication from the left: R(t) = L(t) R(0), gravity R(0)^T L(t)^T down.
    world = fit.wahba(lambda window: np.einsum("kji,j->ki", _left_turns(fit, window), DOWN))
    out.append(_reading("gyro", "frame", "world", world, less=0.03))
    return out


def _left_turns(fit: _Fit, window: NDArray[np.int64]) -> Numbers:
    step = np.diff(fit.time[window])
    small = _exponential(0.5 * (fit.w[window[1:]] + fit.w[window[:-1]]) * step[:, None])
    out = np.empty((len(window), 3, 3))
    out[0] = np.eye(3)
    for k in range(len(small)):
        out[k + 1] = small[k] @ out[k]
    return out


def _gravity_readings(fit: _Fit, plain: float) -> list[Reading]:
    """Readings in which the direction of gravity is wrong."""
    same = lambda x: x  # noqa: E731
    out: list[Reading] = []
    for order, signs in _signed_axes():
        # A reading and its opposite turn alike: only the one that points down as in training is meant.
        start = fit.g[:50].mean(axis=0)[list(order)] * np.array(signs)
        if float(start @ fit.usual) < 0.0 or signs == (-1, -1, -1):
            continue
        change = lambda g, order=order, signs=signs: g[:, order] * np.array(signs)  # noqa: E731
        out.append(_axes_reading("gravity", order, signs, fit.body(same, change)))
    # The inverse rotation: R(t) down instead of R(t)^T down, where R(t) = R(0) B(t).
    inverse = fit.wahba(lambda window: fit.turns(fit.w, window) @ DOWN)
    out.append(_reading("gravity", "frame", "inverse", inverse, less=0.03))
    for name, order in (("xyzw read as wxyz", (1, 2, 3, 0)), ("wxyz read as xyzw", (3, 0, 1, 2))):
        if plain > 0.04:
            out.append(_reading("gravity", "quaternion_order", name, _quaternion_errors(fit, order), less=0.05))
    return out


def _quaternion_errors(fit: _Fit, order: tuple[int, ...]) -> Numbers:
    """Mean square errors [W] where gravity comes from a quaternion whose numbers are in another order."""
    out: list[float] = []
    for window in fit.windows:
        quats, seen = _quaternions(fit.turns(fit.w, window)), fit.g[window]
        yaws = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
        out.append(min(_polished(np.array([0.0, 0.0, yaw]), quats, seen, order) for yaw in yaws))
    return np.array(out)


def _polished(start: Numbers, quats: Numbers, seen: Numbers, order: tuple[int, ...], steps: int = 6) -> float:
    """Mean square error at the best orientation (roll, pitch, yaw) near `start`, by Gauss-Newton."""

    def rest(x: Numbers) -> Numbers:
        full = _multiply(_from_euler(x), quats)[:, list(order)]
        return (seen - _gravity_of(full)).ravel()

    x, error = start, rest(start)
    for _ in range(steps):
        jacobian = np.stack([(rest(x + 1e-4 * e) - error) / 1e-4 for e in np.eye(3)], axis=1)
        move = np.linalg.lstsq(jacobian.T @ jacobian + 1e-6 * np.eye(3), -jacobian.T @ error, rcond=None)[0]
        new = rest(x + move)
        if not (new @ new < error @ error):
            break
        x, error = x + move, new
    return float(3.0 * (error**2).mean())


def _gravity_of(quat: Numbers) -> Numbers:
    w, x, y, z = quat.T
    return -np.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), axis=1)


def _from_euler(angles: Numbers) -> Numbers:
    (cr, cp, cy), (sr, sp, sy) = np.cos(0.5 * angles), np.sin(0.5 * angles)
    return np.array(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ]
    )


def _multiply(a: Numbers, b: Numbers) -> Numbers:
    """One quaternion [4] times many [K, 4]."""
    w, x, y, z = a
    m = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return b @ m.T


def _quaternions(turns: Numbers) -> Numbers:
    """Unit quaternions [K, 4] of rotations [K, 3, 3]; by the largest eigenvector of Bar-Itzhack's matrix."""
    m = np.zeros((len(turns), 4, 4))
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = turns.transpose(1, 2, 0)
    rows = (
        (xx + yy + zz, zy - yz, xz - zx, yx - xy),
        (0, xx - yy - zz, xy + yx, xz + zx),
        (0, 0, yy - xx - zz, yz + zy),
    )
    for i, row in enumerate(rows):
        for j in range(i, 4):
            m[:, i, j] = m[:, j, i] = row[j]
    m[:, 3, 3] = zz - xx - yy
    return np.linalg.eigh(m)[1][:, :, 3]
