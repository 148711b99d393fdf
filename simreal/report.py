"""One self-contained HTML page about runs: learning curves, ADR ranges, figures, configuration."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from simreal import __version__
from simreal.errors import UserError
from simreal.figures import Columns, entropy_curves, learning_curves, parameter_names, range_curves, read_columns
from simreal.runs import run_config

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; color: #1b1f24; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d5dae0; padding-bottom: .2rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots figure { flex: 1 1 24rem; max-width: 35rem; margin: 0; }
.plots figure.wide { flex-basis: 100%; max-width: 64rem; }
svg { width: 100%; height: auto; } figcaption { color: #57606a; font-size: .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; } th, td { padding: .3rem .8rem; text-align: right; }
th { border-bottom: 2px solid #d5dae0; } td { border-bottom: 1px solid #eaeef2; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; font-size: .85rem; }
@media print { body { max-width: none; } details { display: none; } .plots figure { break-inside: avoid; } }
"""


def write_report(runs: list[Path], output: Path) -> Path:
    """Write the page. Raises UserError, naming the run or file that is wrong; nothing is written then."""
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"{output}: cannot be written; expected a file name in an existing folder")
    names = [run.resolve().name for run in runs]
    if len(set(names)) != len(names):
        raise UserError(f"runs must have different names, got {', '.join(names)}")
    configs = {name: run_config(run) for name, run in zip(names, runs, strict=True)}
    metrics = {name: read_columns(run / "metrics.csv") for name, run in zip(names, runs, strict=True)}
    adr = {name: read_columns(run / "adr.csv") for name, run in zip(names, runs, strict=True)}
    evaluations = {name: _evaluation(run) for name, run in zip(names, runs, strict=True)}
    tasks = sorted({config.task for config in configs.values()})
    parts = [f"<h1>{_text(', '.join(tasks))}</h1><p>{len(runs)} run(s): {_text(', '.join(names))}</p>"]
    parts += ["<h2>Learning</h2>", _curves(metrics), "<h2>Evaluation</h2>", _figures(evaluations)]
    parts += [_ranges(adr), "<h2>Configuration</h2>"]
    for name, config in configs.items():
        parts.append(f"<details><summary>{_text(name)}</summary><pre>{_text(config.to_yaml())}</pre></details>")
    parts.append(f"<p><small>simreal {_text(__version__)}</small></p>")
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{_text(", ".join(tasks))}</title>
<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>
"""
    output.write_text(page)
    return output


def _curves(metrics: dict[str, Columns]) -> str:
    wanted = [("success_rate", "success, last 100 episodes"), ("return", "return, last 100 episodes")]
    plots = []
    for column, label in wanted:
        if any(any(columns.get(column, [])) for columns in metrics.values()):
            plots.append(_figure(learning_curves(metrics, column, label, "env_steps"), f"{label}, against steps"))
            plots.append(_figure(learning_curves(metrics, column, label, "seconds"), f"{label}, against time"))
    return f'<div class="plots">{"".join(plots)}</div>'


def _ranges(adr: dict[str, Columns]) -> str:
    randomized = {name: columns for name, columns in adr.items() if parameter_names(columns)}
    if not randomized:
        return ""
    parts = ["<h2>Randomization</h2>", '<div class="plots">']
    parts.append(_figure(entropy_curves(randomized), "entropy of the ranges, against steps"))
    parts += [
        _figure(range_curves(columns), f"ranges of {name}, against steps") for name, columns in randomized.items()
    ]
    return "".join(parts) + "</div>"


def _figures(evaluations: dict[str, dict[str, Any] | None]) -> str:
    head = "<tr><th>run</th><th>world</th><th>episodes</th><th>success</th><th>95 % interval</th><th>return</th>"
    head += "<th>worst 10 %</th></tr>"
    rows = []
    for name, document in evaluations.items():
        for world in (document or {}).get("worlds", []):
            low, high = world["success_ci95"]
            cells = [
                name, world["name"], world["episodes"], f"{world['success_rate']:.3f}", f"{low:.3f} to {high:.3f}",
                f"{world['return_mean']:.2f} ± {world['return_se']:.2f}", f"{world['return_cvar10']:.2f}",
            ]  # fmt: skip
            rows.append("<tr>" + "".join(f"<td>{_text(str(cell))}</td>" for cell in cells) + "</tr>")
    if not rows:
        return "<p>No run has been evaluated yet.</p>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _evaluation(run: Path) -> dict[str, Any] | None:
    path = run / "evaluation.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path}: damaged; expected JSON that `simreal train` wrote") from None


def _figure(figure: Figure, caption: str, kind: str = "") -> str:
    """A figure as inline SVG: sharp at any size, and nothing to load."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return f"<figure class='{kind}'>{svg[svg.index('<svg') :]}<figcaption>{_text(caption)}</figcaption></figure>"


def _text(value: str) -> str:
    return html.escape(value)
