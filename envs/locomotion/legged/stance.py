"""How a robot stands, where its file does not say: feet flat below the hips, knees bent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.locomotion.legged.legs import Leg, bottom

_STRETCHED = {
    "short": 0.8,
    "long": 0.93,
}  # share of a leg's length between hip and foot: of dogs, and of legs with ankles
_STARTS, _STEPS = 24, 60
_REST, _FLAT = 0.02, 0.5  # weights of angles (per rad) and of the sole's tilt beside a metre of the foot's place
_ALONG = 0.985  # cosine of 10 degrees
_HEIGHT_OFF_M = 0.04  # that feet of a keyframe may be off the ground


@dataclass(frozen=True)
class Stance:
    """A robot that stands.

    Attributes:
        qpos: [nq], the base level at the origin of x and y.
        height_m: of the base above the ground.
        leg_m: length of a stretched leg.
        found: whether it had to be looked for.
    """

    qpos: np.ndarray
    height_m: float
    leg_m: float
    found: bool


def find_stance(
    model: mujoco.MjModel, base: int, legs: Sequence[Leg], home: np.ndarray, keyframe: bool = False
) -> Stance:  # fmt: skip
    """A pose that is looked for about `home` [nq]; or that pose itself, a keyframe in which all feet stand level."""
    leg_m = max(_length(model, base, leg, home) for leg in legs)
    data = mujoco.MjData(model)
    if keyframe:
        soles = _soles(model, data, home, base, legs)
        level = np.ptp(soles[:, 2]) < _HEIGHT_OFF_M
        bent = all(-s[2] < 1.5 * leg_m + 0.3 for s in soles)
        if level and bent:
            qpos = _bent(model, base, legs, home, leg_m, kept=True) if len(legs) == 2 else home
            return _standing(model, base, legs, qpos, leg_m, False)
    return _standing(model, base, legs, _bent(model, base, legs, home, leg_m), leg_m, True)


def _bent(
    model: mujoco.MjModel, base: int, legs: Sequence[Leg], home: np.ndarray, leg_m: float, kept: bool = False
) -> np.ndarray:  # fmt: skip
    """`home` [nq] with the legs bent so that the feet are below the hips; of two legs, flat and below the centre of
    mass. `kept`: at the height at which they are."""
    data, qpos, ahead = mujoco.MjData(model), home.copy(), 0.0
    soles = _soles(model, data, home, base, legs)
    for _ in range(3 if len(legs) == 2 else 1):
        for i, leg in enumerate(legs):
            like = None if leg is legs[0] or kept else _alike(model, data, base, legs[0], leg, qpos)
            _posed(model, data, qpos, base)
            hip = data.xanchor[leg.joints[0], 2] - data.xpos[base, 2]
            share = _STRETCHED["long" if leg.ankle else "short"]
            depth = hip - soles[i, 2] if kept else share * leg_m
            qpos = _bend(model, base, leg, depth, qpos, home, ahead, like)
        at = _soles(model, data, qpos, base, legs)
        if len(legs) == 2:  # the centre of mass above the feet
            ahead += float(data.subtree_com[base, 0] - data.xpos[base, 0] - at[:, 0].mean())
    return qpos


def _posed(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray, base: int) -> None:
    """Kinematics with a level base at the origin."""
    data.qpos[:] = qpos
    if model.body_jntnum[base] and int(model.jnt_type[model.body_jntadr[base]]) == int(mujoco.mjtJoint.mjJNT_FREE):
        at = int(model.jnt_qposadr[model.body_jntadr[base]])
        data.qpos[at : at + 7] = (0, 0, 0, 1, 0, 0, 0)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)


def _sole(data: mujoco.MjData, leg: Leg) -> np.ndarray:
    """Where the sole's middle is, m."""
    body = leg.body
    at = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.array(leg.foot.sole)
    return at - [0.0, 0.0, leg.foot.radius_m]


def _soles(
    model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray, base: int, legs: Sequence[Leg]
) -> np.ndarray:  # fmt: skip
    """Where soles are from the base [F, 3], m."""
    _posed(model, data, qpos, base)
    return np.array([_sole(data, leg) - data.xpos[base] for leg in legs])


def _standing(
    model: mujoco.MjModel, base: int, legs: Sequence[Leg], qpos: np.ndarray, leg_m: float, found: bool
) -> Stance:  # fmt: skip
    """A pose with the lowest point of the feet on the ground."""
    data, qpos = mujoco.MjData(model), qpos.copy()
    _posed(model, data, qpos, base)
    height = float(data.xpos[base, 2]) - min(bottom(model, data, g) for leg in legs for g in leg.shapes)
    first = int(model.body_jntadr[base])
    if model.body_jntnum[base] and int(model.jnt_type[first]) == int(mujoco.mjtJoint.mjJNT_FREE):
        at = int(model.jnt_qposadr[first])
        qpos[at : at + 7] = (0, 0, height, 1, 0, 0, 0)
    return Stance(qpos, height, leg_m, found)


def _bounds(model: mujoco.MjModel, joints: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    limited = model.jnt_limited[list(joints)].astype(bool)
    low = np.where(limited, model.jnt_range[list(joints), 0], -np.pi)
    high = np.where(limited, model.jnt_range[list(joints), 1], np.pi)
    return np.maximum(low, -np.pi), np.minimum(high, np.pi)


def _length(model: mujoco.MjModel, base: int, leg: Leg, home: np.ndarray) -> float:
    """The farthest that the foot gets below the first joint, m."""
    random, data = np.random.default_rng(0), mujoco.MjData(model)
    low, high = _bounds(model, leg.joints)
    at, most = [int(model.jnt_qposadr[j]) for j in leg.joints], 0.0
    for k in range(300):
        qpos = home.copy()
        qpos[at] = np.clip(0.0, low, high) if k == 0 else random.uniform(low, high)
        _posed(model, data, qpos, base)
        most = max(most, float(data.xanchor[leg.joints[0], 2] - _sole(data, leg)[2]))
    return most


def _alike(
    model: mujoco.MjModel, data: mujoco.MjData, base: int, first: Leg, leg: Leg, qpos: np.ndarray
) -> np.ndarray | None:  # fmt: skip
    """The first leg's angles for another leg of as many joints, with the signs of its axes; None for another kind."""
    if len(first.joints) != len(leg.joints):
        return None
    _posed(model, data, qpos, base)
    signs = [
        1.0 if data.xaxis[a] @ data.xaxis[b] >= 0.0 else -1.0 for a, b in zip(first.joints, leg.joints, strict=True)
    ]
    return np.array(signs) * qpos[[int(model.jnt_qposadr[j]) for j in first.joints]]


def _bend(
    model: mujoco.MjModel, base: int, leg: Leg, depth: float, qpos: np.ndarray, home: np.ndarray, ahead: float,
    like: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    """`qpos` with this leg bent, the sole so many m below the hip: Gauss-Newton from several starts, of which the one
    with the least bend wins; or from the angles `like` alone."""
    data, random = mujoco.MjData(model), np.random.default_rng(1)
    at, dofs = ([int(model.jnt_qposadr[j]) for j in leg.joints], [int(model.jnt_dofadr[j]) for j in leg.joints])
    low, high = _bounds(model, leg.joints)
    rest = np.clip(home[at], low, high)
    _posed(model, data, qpos, base)
    hip = data.xanchor[leg.joints[0]].copy()
    trial = qpos.copy()
    trial[at] = rest
    _posed(model, data, trial, base)
    target = np.array([hip[0] + ahead, _sole(data, leg)[1], hip[2] - depth])
    best, least = qpos, np.inf
    for k in range(_STARTS if like is None else 1):
        angles = rest if k == 0 else np.clip(rest + random.normal(0.0, 0.6, len(at)), low, high)
        angles = angles if like is None else np.clip(like, low, high)
        angles, cost = _solve(model, data, base, leg, trial, at, dofs, angles, (low, high), target, rest)
        if cost < least:
            least, best = cost, qpos.copy()
            best[at] = angles
    return best


def _solve(
    model: mujoco.MjModel, data: mujoco.MjData, base: int, leg: Leg, qpos: np.ndarray, at: list[int], dofs: list[int],
    angles: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], target: np.ndarray, rest: np.ndarray,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Angles that bring the sole to its place, flat where the leg has an ankle, with as little bend as does it."""
    body, cost = leg.body, np.inf
    flat = leg.ankle
    jac, turn = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    upright = _upright(model, data, base, leg, qpos, at, rest) if flat else np.zeros(3)
    for _ in range(_STEPS):
        pose = qpos.copy()
        pose[at] = angles
        _posed(model, data, pose, base)
        sole = _sole(data, leg)
        mujoco.mj_jac(model, data, jac, turn, sole, body)
        residual, rows = [sole - target, _REST * (angles - rest)], [jac[:, dofs], _REST * np.eye(len(at))]
        if flat:
            normal = data.xmat[body].reshape(3, 3) @ upright
            residual.append(np.asarray(_FLAT * normal[:2], dtype=np.float64))
            tilts = np.cross(turn[:, dofs].T, normal).T[:2]
            rows.append(np.asarray(_FLAT * tilts, dtype=np.float64))
        r, j = np.concatenate(residual), np.concatenate(rows)
        cost = float(r @ r)
        step = np.linalg.solve(j.T @ j + 1e-6 * np.eye(len(at)), j.T @ r)
        angles = np.clip(angles - np.clip(step, -0.3, 0.3), *bounds)
    return angles, cost


def _upright(
    model: mujoco.MjModel, data: mujoco.MjData, base: int, leg: Leg, qpos: np.ndarray, at: list[int], rest: np.ndarray
) -> np.ndarray:  # fmt: skip
    """What points up in the foot's frame while the leg hangs as the file has it: an axis of the foot that all but does,
    as soles lie along one and keyframes are rounded."""
    pose = qpos.copy()
    pose[at] = rest
    _posed(model, data, pose, base)
    up = data.xmat[leg.body].reshape(3, 3).T @ np.array([0.0, 0.0, 1.0])
    axis = np.sign(up) * (np.arange(3) == np.abs(up).argmax())
    return axis if up @ axis > _ALONG else up
