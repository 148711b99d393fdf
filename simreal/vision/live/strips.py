"""A bar for a slider: what the range is, where training was, where the policy is proven, and how often it succeeds."""

from __future__ import annotations

from simreal.vision.live.dials import Dial

_WIDTH, _HEIGHT = 300, 26  # of the drawing, in units of its own
_TRAINED, _PROVEN, _CURVE = "#9db8e8", "#3f9c55", "#2b2b2b"


def strip(dial: Dial) -> str:
    """The bar as HTML; "" where there is nothing to show but the slider's ends."""
    if dial.trained is None and dial.proven is None and dial.curve is None:
        return ""
    low, high = dial.parameter.limits
    across = lambda value: _WIDTH * (min(max(value, low), high) - low) / ((high - low) or 1.0)  # noqa: E731
    parts = [f'<rect x="0" y="10" width="{_WIDTH}" height="8" fill="#e4e4e4"/>']
    words = []
    for ends, y, height, fill, word in (
        (dial.trained, 10, 8, _TRAINED, "trained"), (dial.proven, 20, 4, _PROVEN, "proven")
    ):  # fmt: skip
        if ends is not None:
            a, b = across(ends[0]), across(ends[1])
            parts.append(f'<rect x="{a:.1f}" y="{y}" width="{max(b - a, 1.5):.1f}" height="{height}" fill="{fill}"/>')
            words.append(f'<span style="color:{fill}">&#9632;</span> {word} {ends[0]:.4g} to {ends[1]:.4g}')
    if dial.curve is not None:
        points = " ".join(
            f"{across(v):.1f},{_HEIGHT - (_HEIGHT - 2) * s:.1f}"
            for v, s in zip(dial.curve.values, dial.curve.success, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_CURVE}" stroke-width="1.5"/>')
        words.append("line: success, 0 to 1")
    return (
        f'<div style="padding:0 0.8em;font-size:0.75em"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'preserveAspectRatio="none" style="width:100%;height:26px">{"".join(parts)}</svg><br/>{"; ".join(words)}</div>'
    )
