"""`audit`: what is wrong on a robot, from its log and the bundle that ran on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simreal.audit.commands import arrival_findings, command_findings
from simreal.audit.facts import Facts, facts_of
from simreal.audit.findings import Finding
from simreal.audit.imu import imu_findings
from simreal.audit.lags import answer, lag_findings, unjudged
from simreal.audit.messages import message_findings, outside
from simreal.audit.recording import recording
from simreal.audit.replay import Replay, replay
from simreal.audit.simulated.compare import gain_findings, offset_findings, range_findings
from simreal.audit.simulated.gains import Gains
from simreal.audit.simulated.reference import Reference, reference
from simreal.audit.verdicts import joint_findings
from simreal.common.errors import UserError
from simreal.common.logs import read_log
from simreal.deploy import BundleError, Policy

# What spoils everything that is said of how a robot moves, so that the rest would be said of its consequences.
_STRUCTURAL = ("permuted", "sign", "degrees", "scale", "frame", "quaternion_order", "frozen", "rate", "invalid", "lag")


_GUARDS = 4  # simulated logs that a finding must not be true of


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
            "gains": self.gains and {"factor": self.gains.factor, "interval": list(self.gains.interval)},
            "components": self.components(),
            "missing": list(record.missing),
            "not_judged": unjudged(self.facts),
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
        log: of the robot; see `simreal.common.logs.read_log`.
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
    if policy.layout.pictures is not None:
        raise UserError(f"{bundle}: looks at pictures, which logs do not hold; an audit is of policies without any")
    opened = read_log(log)
    record = recording(opened, policy.contract, chosen or {})
    facts = facts_of(record)
    replayed = replay(Path(bundle), record)
    first = _direct(facts, policy, replayed)
    structural = any(f.kind in _STRUCTURAL for f in first)
    known: Reference | str = "left out"
    if simulate and (replayed is None or replayed.same) and record.action is not None:
        say("the same policy in simulation ...")
        known = reference(Path(bundle), record, gains=not structural)
    elif simulate:
        known = "the log does not show this policy at work"
    if isinstance(known, str):
        return Audit(_sorted(first or range_findings(facts, None)), facts, None, known, opened.source)
    found, gains = first, None
    if first:
        found = [f for f in first if f.key not in _ordinary(known, policy)]
    if not structural:
        stiff, gains = gain_findings(facts, known)
        found += stiff or offset_findings(facts, known)
    return Audit(_sorted(found or range_findings(facts, known)), facts, gains, "", opened.source)


def _ordinary(known: Reference, policy: Policy) -> set[tuple[Any, ...]]:
    """Findings that sound, simulated robots show as well: they are the way of this robot or of its simulation."""
    logs = [facts_of(log) for log in known.trained[:_GUARDS]]
    return {finding.key for facts in logs for finding in _direct(facts, policy, None)}


def _direct(facts: Facts, policy: Policy, replayed: Replay | None) -> list[Finding]:
    """What one log shows by itself, with consequences of other faults left out."""
    found = message_findings(facts.record, list(facts.came.values()))
    found += command_findings(facts.record, policy) + arrival_findings(facts)
    found += replayed.findings if replayed is not None and not replayed.same else []
    values = joint_findings(facts) + imu_findings(facts)
    found += values
    if not any(f.kind in ("rate",) and not f.components for f in found) and not any(
        f.kind in ("permuted", "frame", "quaternion_order") for f in values
    ):
        found += lag_findings(facts)
    return found


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: -f.weight)
