"""Figures of the report as text of its page."""

from __future__ import annotations

import re

from matplotlib.figure import Figure

from simreal.report import figures


def test_a_figure_is_rounded_where_things_are_and_not_in_what_it_says() -> None:
    figure = Figure(figsize=(2, 2))
    axis = figure.add_subplot()
    axis.plot([0.0, 1 / 3, 1.0], [0.0, 2 / 3, 1.0])
    axis.set_title("0.12345")
    drawn = figures.svg(figure, "a line")
    assert ">0.12345<" in drawn
    assert not [path for path in re.findall(r' d="([^"]*)"', drawn) if re.search(r"\.\d\d", path)]
