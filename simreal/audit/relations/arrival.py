"""Commands that never arrive: the motors keep the one before, and all joints go on as that one says.

Velocities of the next cycle are predicted from what all joints did and from the targets that count; a command is lost
where the joints together fit the one before it much better. Commands that were lost are taken out, and the prediction
is made anew, until nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simreal.audit.recording import Recording
from simreal.audit.relations.joints import Joints, usual_steps

Numbers = NDArray[np.float64]
_SURE = 3.0  # log likelihood by which a command has to fit as a lost one
_ROUNDS = 12
_SUSPECTS = 0.1


@dataclass(frozen=True)
class Commands:
    """What became of the commands.

    Attributes:
        lost: share of them that fit as lost ones.
        opposite: the same of what cannot happen, that the change of a command came twice: how often chance does so.
        count: commands that were looked at.
        tells: log likelihood between lost and arrived, of a typical command.
    """

    lost: float
    opposite: float
    count: int
    tells: float


def commands_lost(record: Recording, joints: Joints, lag: int) -> Commands | None:
    """Which share of the commands did not arrive; `lag`: whole cycles until joints answer.

    None where the log does not have the signals, or is too short for so many joints.
    """
    chosen = joints.has("position", "velocity", "target")
    q, v, u = joints.position[:, chosen], joints.velocity[:, chosen], joints.target[:, chosen]
    good = usual_steps(record)
    k = np.arange(lag + 3, len(q) - 2)
    k = k[good[k] & good[k - 1]]
    n = len(chosen)
    if not n or len(k) < 20 * n + 100:
        return None
    known = np.column_stack([np.ones(len(k)), q[k], v[k], q[k - 1], v[k - 1]])
    # Many lost ones spoil the first prediction so much that none stands out: also begin without those that fit worst.
    found = [_settled(known, v[k + 1], u, k, k - lag, share) for share in (0.0, _SUSPECTS)]
    return min(found, key=lambda each: each[1])[0]


def _settled(
    known: Numbers, next_v: Numbers, u: Numbers, k: NDArray[np.int64], sent: NDArray[np.int64], suspects: float
) -> tuple[Commands, float]:
    """The commands where nothing changes any more, and the negative log likelihood [nats] of that.

    Args:
        known: [K, m] what else velocities follow from.
        next_v: [K, n] velocities of the next cycle.
        u: [T, n] what was sent.
        k, sent: [K] cycles, and those whose targets act then.
        suspects: share of the commands that the first round takes for lost.
    """
    n, at = u.shape[1], known.shape[1]
    lost = np.zeros(len(u), dtype=bool)
    chance, opposite, size, precision = *(np.zeros(len(k)) for _ in range(3)), np.eye(n)
    for number in range(_ROUNDS):
        held = u[np.maximum.accumulate(np.where(lost, 0, np.arange(len(u))))]  # what the motors have
        x = np.column_stack([known, held[sent], held[sent - 1], held[sent - 2]])
        weights = np.linalg.lstsq(x, next_v, rcond=1e-8)[0]
        error = next_v - x @ weights
        precision = np.linalg.pinv(error.T @ error / (len(k) - x.shape[1]))
        change = u[sent] - held[sent - 1]
        first, second = change @ weights[at : at + n], change @ weights[at + n : at + 2 * n]
        was = lost[sent][:, None]
        arrived = error - np.where(was, first, 0.0)
        chance = _better(arrived, first, precision)
        follows = np.flatnonzero(np.diff(k) == 1)
        later = error[follows + 1] - np.where(was[follows], second[follows], 0.0)
        chance[follows] += _better(later, second[follows], precision)
        size = np.einsum("ki,ij,kj->k", first, precision, first)
        opposite = _better(arrived, -first, precision)
        now, begins = lost.copy(), number == 0 and suspects > 0.0
        now[sent] = chance > (min(_SURE, float(np.quantile(chance, 1.0 - suspects))) if begins else _SURE)
        if (now == lost).all():
            break
        lost = now
    share = float((chance > _SURE).mean())
    p = min(max(share, 1.0 / len(k)), 0.5)
    unlikely = -0.5 * len(k) * float(np.linalg.slogdet(precision)[1]) + share * len(k) * np.log((1.0 - p) / p)
    return Commands(share, float((opposite > _SURE).mean()), len(k), float(np.median(size))), float(unlikely)


def _better(error: Numbers, change: Numbers, precision: Numbers) -> Numbers:
    """Log likelihood [K] that residuals [K, n] of an arrived command gain if its change [K, n] did not come."""
    without = error + change
    square = lambda e: np.einsum("ki,ij,kj->k", e, precision, e)  # noqa: E731
    return 0.5 * (square(error) - square(without))
