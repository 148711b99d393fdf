"""`audit`: what is wrong on a robot, from its log and the bundle that ran on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simreal.audit.commands import command_findings
from simreal.audit.compare import gain_findings, offset_findings, range_findings
from simreal.audit.facts import Facts, facts_of
from simreal.audit.findings import Finding
from simreal.audit.gains import Gains
from simreal.audit.imu import imu_findings
from simreal.audit.lags import answer, lag_findings
from simreal.audit.messages import message_findings, outside
from simreal.audit.recording import Recording, recording
from simreal.audit.reference import Reference, reference
from simreal.audit.replay import Replay, replay
from simreal.audit.verdicts import joint_findings
from simreal.common.errors import UserError
from simreal.deploy import BundleError, Policy
from simreal.logs import read_log

# What spoils everything that is said of how a robot moves, so that the rest would be said of its consequences.
_STRUCTURAL = ("permuted", "sign", "degrees", "scale", "frame", "quaternion_order", "frozen", "rate", "invalid", "lag")


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        findings: what is wrong, the surest first; empty where nothing is.
        facts: what was measured.
        gains: of the servos, where they can be known.
        simulated: "" where the log was compared with simulated ones, else why not.
        source: the log.
    """

    findings: list[Finding]
    facts: Facts
    gains: Gains | None
    simulated: str
    source: Path

    def components(self) -> list[dict[str, Any]]:
        """One row for each component: rate, share lost, share outside the range of training, age."""
        rows: list[dict[str, Any]] = []
        for name, came in self.facts.came.items():
            share = outside(came.channel)
            rows.append(
                {
                    "name": name, "measured": bool(came.channel.part["measured"]), "rate_hz": _finite(came.rate_hz),
                    "lost": came.lost, "age_ms": 1e3 * came.age_s, "outside": float(share.max()),
                    "outside_by_element": share.tolist(),
                }
            )  # fmt: skip
        return rows

    def document(self) -> dict[str, Any]:
        """What `--json` writes."""
        record, measured = self.facts.record, answer(self.facts)
        return {
            "log": str(self.source),
            "sound": not self.findings,
            "findings": [
                {
                    "kind": f.kind, "components": list(f.components), "elements": list(f.elements), "text": f.text,
                    "evidence": f.evidence, "fix": f.fix, "figures": f.figures,
                }
                for f in self.findings
            ],
            "cycles": len(record.time),
            "seconds": float(record.time[-1]),
            "rate_hz": 1.0 / record.step_s,
            "answer_ms": None if measured is None else 1e3 * record.step_s * measured[0],
            "gains": None if self.gains is None else {"factor": self.gains.factor, "interval": list(self.gains.interval)},
            "components": self.components(),
            "missing": list(record.missing),
            "simulated": self.simulated or "yes",
        }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def audit(
    bundle: str | os.PathLike[str], log: str | os.PathLike[str], chosen: Mapping[str, str] | None = None,
    *, simulate: bool = True, say: Callable[[str], None] = lambda text: None,
) -> Audit:  # fmt: skip
    """Find what is wrong on a robot.

    Args:
        bundle: directory of the bundle that ran.
        log: of the robot; see `simreal.logs.read_log`.
        chosen: component -> name of a signal in the log, where the names do not say it.
        simulate: compare with the policy in simulation, if its task is on this machine.
        say: called with what is being done.

    Raises:
        UserError: the bundle or the log is wrong, or they are of two robots.
    """
    try:
        policy = Policy.load(bundle)
    except BundleError as error:
        raise UserError(str(error)) from None
    opened = read_log(log)
    record = recording(opened, policy.contract, chosen or {})
    facts = facts_of(record)
    replayed = replay(Path(bundle), record)
    first = _direct(facts, policy, replayed, None)
    known: Reference | str = "left out"
    if simulate and (replayed is None or replayed.same) and record.action is not None:
        say("the same policy in simulation ...")
        known = reference(Path(bundle), record)
    elif simulate:
        known = "the log does not show this policy at work"
    if isinstance(known, str):
        return Audit(_sorted(first or _unexplained(facts, None, replayed)), facts, None, known, opened.source)
    sound = [facts_of(trained) for trained in known.trained]
    usual = max((a[0] for f in sound if (a := answer(f)) is not None and f.dynamic), default=None)
    said = [finding for f in sound for finding in _direct(f, policy, None, usual)]
    ordinary = {finding.key for finding in said}
    found = [f for f in _direct(facts, policy, replayed, usual) if f.key not in ordinary]
    gains = None
    if not any(f.kind in _STRUCTURAL for f in found):
        stiff, gains = gain_findings(facts, known)
        found += stiff or offset_findings(facts, known)
    return Audit(_sorted(found or _unexplained(facts, known, replayed)), facts, gains, "", opened.source)


def _direct(facts: Facts, policy: Policy, replayed: Replay | None, usual: float | None) -> list[Finding]:
    """What one log shows by itself, with consequences of other faults left out."""
    found = message_findings(facts.record, list(facts.came.values()))
    found += command_findings(facts.record, policy)
    found += replayed.findings if replayed is not None and not replayed.same else []
    values = joint_findings(facts) + imu_findings(facts)
    found += values
    if not any(f.kind in ("rate",) and not f.components for f in found) and not any(
        f.kind in ("permuted", "frame", "quaternion_order") for f in values
    ):
        found += lag_findings(facts, usual)
    return found


def _unexplained(facts: Facts, known: Reference | None, replayed: Replay | None) -> list[Finding]:
    """Where nothing else is wrong: is the robot somewhere that it was not trained for?"""
    del replayed
    return range_findings(facts, known)


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: -f.weight)
