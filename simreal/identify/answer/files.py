"""What was found, as files: a randomization block, a world, JSON, and lines to read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from simreal.identify.identify import Identified
from simreal.identify.knowledge import Known

_UNEXPLAINED, _SHARE = 5.0, 0.05  # times the noise; and of how far off the model as it is was
_CORRELATED = 0.3  # and from which on the file states it
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # of YAML 1.1, which are no text there
_END = 0.005  # of a range
_TIED = 0.8  # correlation from which on two unknowns are said to be tied to each other


def block(found: Identified, heading: str) -> str:
    """A YAML document for `randomization.from`: the 95 % intervals as fixed ranges, each with its best value, how they
    depend on each other, and what was asked for, as far as a curriculum may go."""
    lines = [f"# {line}" for line in heading.splitlines()]
    lines += [f"# not told apart: {line}" for line in found.knowledge.combinations]
    lines += ["randomization:", "  sampler: manual", "  parameters:"]
    for known in found.knowledge.of:
        if known.unknown.parameter is None:
            continue
        told = f"{known.value:.4g}" if known.told else "not told by the log: the range asked for"
        lines.append(f"    {_label(known)}: {{{_entry(known)}}} # {told}")
    if pairs := _pairs(found):
        lines += ["  correlations:", *(f"    - [{_label(a)}, {_label(b)}, {r:.2f}]" for a, b, r in pairs)]
    lines.append("asked:")
    for known in found.knowledge.of:
        if known.unknown.parameter is not None:
            lines.append(f"  {_label(known)}: [{', '.join(_number(end) for end in known.unknown.limits)}]")
    return "\n".join(lines) + "\n"


def _pairs(found: Identified) -> list[tuple[Known, Known, float]]:
    """Parameters that the log tells and that depend on each other, as many as can be stated without contradiction."""
    of, correlations = found.knowledge.of, found.knowledge.correlations
    known = [i for i, k in enumerate(of) if k.told and k.unknown.parameter is not None]
    for least in (_CORRELATED, _CORRELATED / 2.0, 0.005):
        stated = np.where(np.abs(correlations) < least, 0.0, correlations.round(2))
        np.fill_diagonal(stated, 1.0)
        if not known or np.linalg.eigvalsh(stated[np.ix_(known, known)]).min() > -0.01:
            return [(of[i], of[j], float(stated[i, j])) for i in known for j in known if j < i and stated[i, j]]
    return []


def world(found: Identified, heading: str) -> str:
    """A YAML document of the world with the best values, for `simreal evaluate --world`."""
    lines = [f"# {line}" for line in heading.splitlines()]
    lines += ["name: identified", "description: the robot as its logs show it", "group: user", "randomization:"]
    lines += ["  sampler: manual", "  parameters:"]
    for known in found.knowledge.of:
        if known.unknown.parameter is not None and known.told:
            value = _number(known.value)
            lines.append(f"    {_label(known)}: {{{_target(known)}, range: [{value}, {value}]}}")
    return "\n".join(lines) + "\n"


def _label(known: Known) -> str:
    return _quoted(known.unknown.name)


def _target(known: Known) -> str:
    parameter = known.unknown.parameter
    assert parameter is not None
    of = f", of: [{', '.join(_quoted(name) for name in parameter.targets)}]" if parameter.targets else ""
    return f"quantity: {parameter.quantity}{of}"


def _entry(known: Known) -> str:
    nominal = f", nominal: {_number(known.value)}" if known.told else ""
    return f"{_target(known)}, range: [{_number(known.low)}, {_number(known.high)}]{nominal}"


def _quoted(name: str) -> str:
    """A name as YAML reads it back: quoted where it would be taken for something else."""
    plain = name.replace("_", "").replace("-", "").isalnum() and not name[0].isdigit()
    return name if plain and name.lower() not in _WORDS else json.dumps(name)


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return text if "e" not in text or "." in text else text.replace("e", ".0e")


def document(found: Identified) -> dict[str, Any]:
    """All figures, for JSON."""
    return {
        "parameters": [
            {
                "name": k.unknown.name, "unit": k.unknown.unit, "value": k.value, "low": k.low, "high": k.high,
                "told": k.told, "asked": list(k.unknown.limits), "nominal": k.unknown.nominal,
            } for k in found.knowledge.of
        ],
        "correlations": np.round(found.knowledge.correlations, 3).tolist(),
        "not_told_apart": list(found.knowledge.combinations),
        "held_back": [
            {
                "kind": part.kind, "joints": list(part.joints), "noise": part.noise.tolist(),
                "rms_of_the_model_as_it_is": part.nominal.tolist(), "rms_as_identified": part.identified.tolist(),
            } for part in found.held_back
        ],
        "pieces": found.pieces, "left_out": found.left_out, "piece_s": found.length_s,
        "iterations": found.fit.iterations,
    }  # fmt: skip


def lines(found: Identified) -> list[str]:
    """A table and what cannot be told, to print."""
    width = max(len(k.unknown.name) for k in found.knowledge.of)
    rows = [f"{'':{width}}  {'found':>10}   95 % interval             model  unit"]
    for k in found.knowledge.of:
        interval = f"[{k.low:.4g}, {k.high:.4g}]"
        value = f"{k.value:.4g}" if k.told else "not told"
        rows.append(
            f"{k.unknown.name:{width}}  {value:>10}   {interval:24}  {k.unknown.nominal:6.4g}  {k.unknown.unit}"
        )
    rows += [f"not told apart: {line}" for line in found.knowledge.combinations]
    rows += [f"tied: {line}" for line in tied(found)]
    for part in found.held_back:
        worst = int(np.argmax(part.identified / part.noise))
        rows.append(
            f"held back, {part.kind}: {_rms(part.nominal):.3g} off with the model as it is, "
            f"{_rms(part.identified):.3g} as identified, noise {_rms(part.noise):.3g} (worst: {part.joints[worst]}, "
            f"{part.identified[worst] / max(part.noise[worst], 1e-12):.1f} times its noise)"
        )
    rows += [f"left out: {line}" for line in odd(found)]
    return [*rows, *(f"warning: {line}" for line in [*at_ends(found), *unexplained(found)])]


def odd(found: Identified) -> list[str]:
    """Pieces that were left out."""
    if not found.left_out:
        return []
    return [
        f"{found.left_out} of {found.left_out + found.pieces} pieces, whose motion no world near the best one "
        "explains, as where feet slip or a robot falls"
    ]


def at_ends(found: Identified) -> list[str]:
    """Unknowns that were found at an end of the range asked for, which is not one that nature sets."""
    lines: list[str] = []
    for k in found.knowledge.of:
        low, high = k.unknown.limits
        near = _END * (high - low)
        if k.told and (k.value >= high - near or (k.value <= low + near and low != 0.0)):
            end = high if k.value >= high - near else low
            lines.append(
                f"{k.unknown.name} is found at the end of the range that was asked for ({end:.4g}); ask for a wider "
                "one: its interval, and those of others, may not hold the truth"
            )
    return lines


def unexplained(found: Identified) -> list[str]:
    """Joints whose motion the best world does not explain: something is missing from the model."""
    return [
        f"the model does not explain the {part.kind} of {joint} (off by {error / max(noise, 1e-12):.0f} times its "
        "noise): something is missing from it or from what was looked for, or its timestep is too coarse, and "
        "intervals may not hold the truth"
        for part in found.held_back
        for joint, error, noise in zip(part.joints, part.identified, part.noise, strict=True)
        if error > _UNEXPLAINED * noise and error > _SHARE * part.nominal.max()
    ]


def tied(found: Identified) -> list[str]:
    """Pairs whose values depend on each other."""
    of, correlations = found.knowledge.of, found.knowledge.correlations
    pairs = [
        (abs(correlations[i, j]), f"{of[i].unknown.name} and {of[j].unknown.name} ({correlations[i, j]:+.2f})")
        for i in range(len(of)) for j in range(i)
        if of[i].told and of[j].told and abs(correlations[i, j]) > _TIED
    ]  # fmt: skip
    return [text for _, text in sorted(pairs, reverse=True)]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
