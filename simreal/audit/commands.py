"""What was sent: is it what the contract makes of the actions, and did the controller change it?"""

from __future__ import annotations

import numpy as np

from simreal.audit.facts import Facts
from simreal.audit.findings import Finding, places
from simreal.audit.recording import Recording
from simreal.deploy import Policy

_SAME, _CLAMPED = 1e-3, 0.1  # of a target's scale; share of cycles
_LOST, _TELLS = 0.04, 12.0  # share of the commands; log likelihood of a typical one, below which nothing can be said


def command_findings(record: Recording, policy: Policy) -> list[Finding]:
    """Targets that are not scale times action plus offset, and targets that were cut off on the way."""
    return _remembered(record) + _targets(record, policy) + _clamped(record)


def arrival_findings(facts: Facts) -> list[Finding]:
    """Commands that did not arrive."""
    found = facts.commands
    if found is None or found.tells < _TELLS or found.lost - 2.0 * found.opposite < _LOST:
        return []
    names = tuple(facts.record.sent)
    return [
        Finding(
            "loss", names, (), f"{found.lost:.1%} of the commands of {', '.join(names)} are lost",
            f"the joints go on as the command before says, in {found.lost:.1%} of {found.count} cycles (a typical "
            f"command tells by a log likelihood of {found.tells:.0f}; by chance {found.opposite:.1%})",
            "look at the network and the queue's length between controller and motors; send by a cable",
            {"share": found.lost, "by_chance": found.opposite}, 1e4,
        )
    ]  # fmt: skip


def _remembered(record: Recording) -> list[Finding]:
    """The last action, as the policy sees it, is the action of the cycle before."""
    if record.action is None or "last_action" not in record.seen:
        return []
    seen, given = record.seen["last_action"].values, record.action
    if seen.shape != given.shape:
        return []
    errors = [float(np.sqrt(((seen[4:] - given[4 - lag : len(given) - lag]) ** 2).mean())) for lag in (0, 1, 2, 3, 4)]
    best = int(np.argmin(errors))
    spread = float(given.std())
    if errors[1] < 0.05 * max(spread, 1e-6) + 1e-4 or best == 1:
        return []
    if errors[best] < 0.3 * errors[1]:
        text = f"last_action is the action of {best} cycles before, expected of the one before"
        kind = "lag"
    else:
        text, kind = "last_action is not the action of the cycle before", "action"
    return [
        Finding(
            kind, ("last_action",), (), text, f"rms difference {errors[1]:.3f} (one cycle before), {errors[best]:.3f} "
            f"({best} cycles before)", "give the policy its own last action, before clamps and scales",
            {"cycles": best, "error": errors[1]}, 1e4,
        )
    ]  # fmt: skip


def _targets(record: Recording, policy: Policy) -> list[Finding]:
    if record.action is None:
        return []
    try:
        wanted = policy.unsmoothed_targets(record.action)
    except ValueError:  # the targets start from what the robot shows, which a log need not say
        return []
    out: list[Finding] = []
    for part in record.contract["action"]:
        name = part["name"]
        sent = record.asked.get(name, record.sent.get(name))
        smooth = np.min(part.get("smoothing", 1.0)) < 1.0
        if sent is None or part["afterwards"] or smooth or sent.shape != wanted[name].shape or part.get("inverse"):
            continue
        scale = np.maximum(np.abs(np.array(part["scale"], dtype=np.float64)), 1e-9)
        if not np.isfinite(sent).all():
            continue
        wrong = np.median(np.abs(sent - wanted[name]), axis=0) > _SAME * scale + 1e-6
        if not wrong.any():
            continue
        x, y = wanted[name] - wanted[name].mean(axis=0), sent - sent.mean(axis=0)
        slope = (x * y).sum(axis=0) / np.maximum((x**2).sum(axis=0), 1e-12)
        elements = tuple(int(i) for i in np.flatnonzero(wrong)) if not wrong.all() else ()
        factor = float(np.median(slope[wrong]))
        shift = float(np.median((sent - wanted[name]).mean(axis=0)[wrong]))
        kind = "scale" if abs(factor - 1.0) > 0.05 else "offset"
        out.append(
            Finding(
                kind, (name,), elements, f"{places(name, elements)} is sent as {factor:.3g} times what the contract "
                f"makes of the action, and {shift:+.3g} {part['unit']} on the average",
                "compared with offset + scale x action of the contract in every cycle",
                "send Policy.targets(action), with the scales and offsets of this bundle",
                {"factor": factor, "shift": shift}, 1e4,
            )
        )  # fmt: skip
    return out


def _clamped(record: Recording) -> list[Finding]:
    """Targets that the controller held back: the policy asked for one thing and another was sent."""
    out: list[Finding] = []
    for name, asked in record.asked.items():
        sent = record.sent.get(name)
        if sent is None or sent.shape != asked.shape:
            continue
        part = next(p for p in record.contract["action"] if p["name"] == name)
        scale = np.maximum(np.abs(np.array(part["scale"], dtype=np.float64)), 1e-9)
        share = (np.abs(sent - asked) > 0.01 * scale).mean(axis=0)
        if share.max(initial=0.0) > _CLAMPED:
            i = int(share.argmax())
            out.append(
                Finding(
                    "clipped", (name,), (i,), f"{places(name, (i,))} is held back by the controller",
                    f"in {share[i]:.0%} of the cycles another value was sent than the policy asked for",
                    "look at the controller's limits of position, rate and effort", {"share": float(share[i])}, 50.0,
                )
            )  # fmt: skip
    return out
