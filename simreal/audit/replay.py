"""The policy against its own log: does it give the actions that were logged for the observations that were logged?

Where it does not, the policy was fed something else than what the log shows. Readings of the log that bring the actions
back say what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simreal.audit.findings import Finding, places
from simreal.audit.recording import Recording
from simreal.deploy import Policy

Numbers = NDArray[np.float64]
_SAME = 0.02  # rms of actions in [-1, 1] that counts as the same: stamps of a foreign log may be a message off
_CYCLES, _WARM = 400, 60  # looked at, and left out at the start: what the policy remembered is not in the log


@dataclass(frozen=True)
class Replay:
    """Logged actions against those that follow.

    Attributes:
        error: rms difference of actions.
        same: whether they are the same: the log shows the policy at work.
        findings: what was fed instead.
    """

    error: float
    same: bool
    findings: list[Finding]


def replay(bundle: Path, record: Recording) -> Replay | None:
    """Run the policy over a log. None where the log lacks actions or a component of the observation."""
    if record.action is None or record.missing:
        return None
    count = min(len(record.time), _CYCLES)
    parts = record.contract["observation"]
    logged = np.concatenate([record.seen[p["name"]].values[:count] for p in parts], axis=1)
    if not np.isfinite(logged).all():
        return None
    actions = record.action[:count]
    policy = Policy.load(bundle)
    warm = min(_WARM, count // 3)
    plain = _errors(policy, logged[:, None], actions, warm)[0]
    if plain <= _SAME:
        return Replay(plain, True, [])
    changes = list(_changes(record, logged))
    errors = _errors(policy, np.stack([change for *_, change in changes], axis=1), actions, warm)
    best = int(errors.argmin())
    kind, name, elements, text, _ = changes[best]
    if errors[best] < min(0.3 * plain, 3.0 * _SAME):
        evidence = (
            f"with {text} the policy gives the logged actions within {errors[best]:.3f} (rms), with the log as it is "
            f"within {plain:.3f}"
        )
        found = Finding(
            kind, (name,), elements, f"the policy was fed another {places(name, elements)} than the log shows: {text}",
            evidence, "feed what is logged, or log what is fed", {"before": plain, "after": float(errors[best])}, 1e4,
        )  # fmt: skip
        return Replay(plain, False, [found])
    found = Finding(
        "action", (), (), "the logged actions are not those of this policy for the logged observation",
        f"they differ by {plain:.3f} (rms, of [-1, 1]) after the first {warm} cycles, and no simple reading of the log "
        "brings them back", "log what is fed to the policy, in every cycle; or the log is of another policy",
        {"error": plain}, 1e2,
    )  # fmt: skip
    return Replay(plain, False, [found])


def _errors(policy: Policy, batch: Numbers, actions: Numbers, warm: int) -> Numbers:
    """rms difference [B] of the actions for observations [T, B, nobs] from those that were logged [T, A]."""
    policy.reset()
    total = np.zeros(batch.shape[1])
    for k in range(len(batch)):
        given = np.clip(policy(np.nan_to_num(batch[k])), -1.0, 1.0)
        if k >= warm:
            total += ((given - np.clip(actions[k], -1.0, 1.0)) ** 2).mean(axis=1)
    return np.sqrt(total / max(len(batch) - warm, 1))


def _changes(record: Recording, logged: Numbers) -> Iterator[tuple[str, str, tuple[int, ...], str, Numbers]]:  # type: ignore[type-arg]
    """Readings of a log: kind, component, places, words, observations [T, nobs]."""
    jointed: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for part in record.contract["observation"]:
        name, (start, stop) = part["name"], part["index"]
        own = slice(start, stop)
        for words, factor, kind in (
            ("radians for degrees", np.pi / 180.0, "degrees"), ("degrees for radians", 180.0 / np.pi, "degrees"),
            ("half of it", 0.5, "scale"), ("twice of it", 2.0, "scale"), ("all signs turned", -1.0, "sign"),
        ):  # fmt: skip
            out = logged.copy()
            out[:, own] *= factor
            yield kind, name, (), f"{name}: {words}", out
        for lag in (1, 2, 3):
            out = logged.copy()
            out[lag:, own] = logged[:-lag, own]
            yield "lag", name, (), f"{name} of {lag} cycles before ({1e3 * lag * record.step_s:.0f} ms)", out
        for i in range(stop - start):
            out = logged.copy()
            out[:, start + i] *= -1.0
            yield "sign", name, (i,), f"{places(name, (i,))} with the other sign", out
            for j in range(i):
                out = logged.copy()
                out[:, [start + i, start + j]] = out[:, [start + j, start + i]]
                yield "permuted", name, (j, i), f"{places(name, (j, i))} exchanged", out
        for i, joint in enumerate(part["joints"] if len(part["joints"]) == stop - start else ()):
            for k, other in enumerate(part["joints"][:i]):
                jointed.setdefault((other, joint), []).append((name, start + k))
                jointed[other, joint].append((name, start + i))
    for (other, joint), spots in jointed.items():
        if len(spots) < 4:
            continue
        out = logged.copy()
        for (_, a), (_, b) in zip(spots[::2], spots[1::2], strict=True):
            out[:, [a, b]] = out[:, [b, a]]
        name = spots[0][0]
        start = record.part(name)["index"][0]
        elements = (spots[0][1] - start, spots[1][1] - start)
        yield "permuted", name, elements, f"{other} and {joint} exchanged in all of its components", out
