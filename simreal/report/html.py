"""Pieces of the page: escaping, tables, folds."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from simreal.measure import NARROW_SPACE

_STYLE = Path(__file__).with_name("style.css")


def page(title: str, sections: Sequence[tuple[str, str, str]], head: str, foot: str) -> str:
    """A whole document; sections are (id, heading, content), those without content are left out."""
    shown = [s for s in sections if s[2]]
    links = "".join(f'<li><a href="#{key}">{escape(heading)}</a></li>' for key, heading, _ in shown)
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(heading)}</h2>{content}</section>'
        for key, heading, content in shown
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE.read_text()}</style></head>
<body><header><h1>{escape(title)}</h1></header>
<main>{head}<nav aria-label="Sections"><ul>{links}</ul></nav>{body}</main>
<footer><p class="soft"><small>{foot}</small></p></footer></body></html>
"""


def table(caption: str, head: Sequence[str], rows: Sequence[str], text_columns: int = 0) -> str:
    """A table that scrolls sideways where it does not fit; head is plain text, rows are `row(...)`."""
    cells = "".join(
        f'<th scope="col"{" class=text" if 0 < i <= text_columns else ""}>{escape(name)}</th>'
        for i, name in enumerate(head)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table><thead><tr>{cells}</tr>'
        f'</thead><tbody>{"".join(rows)}</tbody></table></div><p class="caption">{escape(caption)}</p>'
    )


def row(name: str, cells: Sequence[str], text_columns: int = 0, below: str = "") -> str:
    """A row of a table: a name and what stands below it (plain text), and cells as HTML."""
    shown = "".join(
        cell if cell.startswith("<td") else f"<td{' class=text' if i < text_columns else ''}>{cell}</td>"
        for i, cell in enumerate(cells)
    )
    small = f"<small>{escape(below)}</small>" if below else ""
    breaking = escape(name).replace("_", "_<wbr>")
    return f'<tr><th scope="row">{breaking}{small}</th>{shown}</tr>'


def fold(summary: str, content: str, is_open: bool = False) -> str:
    """Content that the reader opens."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{content}</details>"


def tile(what: str, value: str, details: str) -> str:
    """One figure of the verdict."""
    words = f'<span class="what">{escape(what)}</span><b>{escape(value)}</b><span>{escape(details)}</span>'
    return f'<div class="tile">{words}</div>'


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph."""
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>"


def notes(texts: Sequence[str]) -> str:
    """Plain texts as one box of remarks; nothing without any."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="note">{items}</ul>' if texts else ""


def data_uri(path: Path, kind: str) -> str:
    """A file inside the page."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def percent(share: float) -> str:
    """97.5 %."""
    return f"{100 * share:.1f}{NARROW_SPACE}%"


def signed(value: float) -> str:
    """+0.12 or −2.34, with a minus sign that is not a hyphen."""
    return f"{value:+.2f}".replace("-", "\u2212")


def clock(seconds: float) -> str:
    """1 h 02 min, 8 min 28 s or 19.4 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
