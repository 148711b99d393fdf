"""`simreal audit`: what is wrong on a robot, by its log."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from simreal.audit import Audit, audit
from simreal.common.atomic_files import write_text
from simreal.common.errors import UserError
from simreal.common.json_io import to_json, write_target


def audit_command(
    bundle: Path, log: Path, pairs: list[str], simulate: bool, json_file: Path | None, out: Console
) -> bool:
    """Audit a log, print what was found, write JSON. Returns whether nothing is wrong.

    Raises:
        UserError: the bundle, the log or a --map is wrong, or log and bundle are of two robots.
    """
    target = None if json_file is None else write_target(json_file, ".json")
    chosen: dict[str, str] = {}
    for pair in pairs:
        name, equals, topic = pair.partition("=")
        if not (name and equals and topic):
            raise UserError(f"--map: expected COMPONENT=TOPIC, got {pair!r}")
        chosen[name] = topic
    out.print(f"{log}: reading ...")
    result = audit(bundle, log, chosen, simulate=simulate, say=out.print)
    _show(result, out)
    if target is not None:
        write_text(target, to_json(result.document()))
    return not result.findings


def _show(result: Audit, out: Console) -> None:
    record = result.facts.record
    for finding in result.findings:
        out.print(f"{finding.kind.replace('_', ' ')}: {finding.text}")
        out.print(f"    evidence: {finding.evidence}")
        out.print(f"    fix: {finding.fix}")
    rows = [("component", "rate Hz", "lost", "old ms", "outside training")]
    for row in result.components():
        rate = "-" if row["rate_hz"] is None else f"{row['rate_hz']:.1f}"
        rows.append((row["name"], rate, f"{row['lost']:.1%}", f"{row['age_ms']:.0f}", f"{row['outside']:.1%}"))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        out.print("  ".join(text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths))))  # noqa: B905
    if record.missing:
        out.print(f"not in the log: {', '.join(record.missing)}")
    document = result.document()
    if document["answer_ms"] is not None:
        out.print(f"joints answer {document['answer_ms']:.0f} ms after what was sent")
    if result.gains is not None:
        low, high = result.gains.interval
        out.print(f"gains: {result.gains.factor:.2f} times the contract's (95 % interval {low:.2f} to {high:.2f})")
    for text in document["not_judged"]:
        out.print(f"cannot be told: {text}")
    if result.simulated:
        out.print(f"not compared with simulation, so gains and offsets were not judged: {result.simulated}")
    looked = f"{len(record.time)} cycles, {record.time[-1]:.1f} s at {1.0 / record.step_s:.1f} Hz"
    count = len(result.findings)
    said = "nothing is wrong" if not count else f"{count} {'thing is' if count == 1 else 'things are'} wrong"
    out.print(f"{result.source}: {said} ({looked})")
