"""A log against simulated ones of the same policy: gains, offsets, and how far from training the robot was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simreal.audit.facts import Facts
from simreal.audit.findings import Finding, places
from simreal.audit.gains import Gains, gains_of
from simreal.audit.joints import joints_of
from simreal.audit.messages import outside
from simreal.audit.recording import cut
from simreal.audit.reference import Reference

Numbers = NDArray[np.float64]
_GAINS_OFF, _FAMILIAR = (
    1.12,
    2.5,
)  # factor beyond the trained gains that is called wrong; largest distance from simulated logs
_ERRORS = 1.4  # of the estimate that it has to be beyond the trained gains
_OFFSET, _SPREADS = 0.09, 4.0  # rad or m that is called an offset, and times the spread over simulated worlds
_OUTSIDE, _OUTSIDE_ALONE = 0.15, 0.3  # share of the cycles, more than in simulation; without one


def gain_findings(facts: Facts, known: Reference) -> tuple[list[Finding], Gains | None]:
    """Servos that are stiffer or softer than any in training."""
    if facts.joints is None or not known.gains:
        return [], None
    record = cut(facts.record, len(known.gains[0].time))  # what the policy was told then is what it was told there
    joints = joints_of(record)
    gains = None if joints is None else gains_of(record, joints, known)
    if gains is None or gains.distance > _FAMILIAR:
        return [], gains
    low, high = gains.trained
    margin = max(_GAINS_OFF, float(np.exp(_ERRORS * gains.error)))
    beyond = gains.factor > margin * high or gains.factor < low / margin
    if not beyond:
        return [], gains
    part = next(p for p in facts.record.contract["action"] if p["stiffness"])
    nice = min((0.25, 0.5, 2.0, 3.0, 4.0), key=lambda x: abs(np.log(x / gains.factor)))
    name = {2.0: " (doubled)", 0.5: " (halved)"}.get(nice, "") if abs(np.log(nice / gains.factor)) < 0.3 else ""
    text = f"the gains of {part['name']} are {gains.factor:.2f} times those of the contract{name}"
    evidence = (
        f"from how joints follow their targets, against {len(known.gains)} simulated logs with known gains (95 % interval "
        f"{gains.interval[0]:.2f} to {gains.interval[1]:.2f}); trained {low:.2f} to {high:.2f}"
    )
    fix = f"set the stiffness and damping that the contract states ({part['stiffness'][0]:g}, {part['damping'][0]:g})"
    figures = {"factor": gains.factor, "interval": list(gains.interval), "trained": list(gains.trained)}
    weight = abs(np.log(gains.factor / (high if gains.factor > 1 else low))) / gains.error
    return [Finding("gains", (part["name"],), (), text, evidence, fix, figures, 50.0 * float(weight))], gains


def offset_findings(facts: Facts, known: Reference) -> list[Finding]:
    """Joints that are read further from their targets, always to the same side, than any load explains."""
    joints = None if facts.joints is None else joints_of(cut(facts.record, len(known.trained[0].time)))
    if joints is None:
        return []
    chosen = joints.has("position", "target")
    low, high = known.trained_gains
    alike = [
        *known.trained,
        *(log for log, f in zip(known.gains, known.factor, strict=True) if low / 1.1 < f < 1.1 * high),
    ]
    others = [j for log in alike if (j := joints_of(log)) is not None]
    if not len(chosen) or len(others) < 3:
        return []
    ours = (joints.target[:, chosen] - joints.position[:, chosen]).mean(axis=0)
    theirs = np.array([(j.target[:, chosen] - j.position[:, chosen]).mean(axis=0) for j in others])
    usual, spread = theirs.mean(axis=0), theirs.std(axis=0, ddof=1)
    spread = np.maximum(
        np.sqrt(0.5 * (spread**2 + np.median(spread) ** 2)), 0.01
    )  # of few logs: nearer to the usual one
    away = usual - ours  # what is read is so much too large
    out: list[Finding] = []
    apart = np.abs(away) > 3.0 * np.median(np.abs(away))  # of one joint, not of the load of all of them
    for at in np.flatnonzero((np.abs(away) > _OFFSET) & (np.abs(away) > _SPREADS * spread) & apart):
        j = int(chosen[at])
        component, elements = joints.component("position", [j])
        unit = facts.record.part(component)["unit"]
        out.append(
            Finding(
                "offset", (component,), elements, f"{places(component, elements)} ({joints.names[j]}) reads "
                f"{away[at]:+.2f} {unit} too {'much' if away[at] > 0 else 'little'}",
                f"target minus position {ours[at]:+.3f} {unit} (mean), on {len(others)} simulated robots "
                f"{usual[at]:+.3f} +- {spread[at]:.3f}", "calibrate the zero of this joint",
                {"offset": float(away[at]), "joint": joints.names[j]}, float(abs(away[at]) / spread[at]),
            )
        )  # fmt: skip
    return sorted(out, key=lambda f: -f.weight)


def range_findings(facts: Facts, known: Reference | None) -> list[Finding]:
    """Components that spend more of their time outside the range of training than they do in simulation."""
    out: list[Finding] = []
    for name, channel in facts.record.seen.items():
        share = outside(channel)
        usual = np.zeros_like(share)
        if known is not None:
            usual = np.max([outside(log.seen[name]) for log in known.trained if name in log.seen], axis=0)
        more = share - 1.5 * usual
        elements = tuple(int(i) for i in np.flatnonzero(more > (_OUTSIDE_ALONE if known is None else _OUTSIDE)))
        if not elements:
            continue
        i = max(elements, key=lambda e: share[e])
        low, high = (channel.part["training_range"][end][i] for end in ("lower", "upper"))
        seen = np.quantile(channel.values[:, i], (0.05, 0.95))
        out.append(
            Finding(
                "outside_training", (name,), elements, f"{places(name, elements[:3])} is outside the range of training in "
                f"{share[i]:.0%} of the cycles", f"{places(name, (i,))} from {seen[0]:.3g} to {seen[1]:.3g} (5 to 95 %), "
                f"trained {low:.3g} to {high:.3g}", "give the robot what it was trained for, or train it for this",
                {"share": float(share[i])}, float(more.max()),
            )
        )  # fmt: skip
    return out
