"""Rewards and observations of the last seconds as curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import viser
import viser.uplot

from simreal.vision.live.history import History
from simreal.vision.live.player import Player, value_names

_ALL, _MOST = "all terms", 12  # curves in one plot
_COLOURS = (
    "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#000000", "#aaaaaa",
)  # fmt: skip


class Curves:
    """A plot of some columns of a history, which follows it.

    Args:
        gui: where it goes, at the place that is being filled.
        title: over it.
    """

    def __init__(self, gui: viser.GuiApi, title: str) -> None:
        self._gui, self._title = gui, title
        self._folder = gui.add_folder(title)
        self._plot: Any = None
        self._names: tuple[str, ...] = ()

    def show(self, history: History, names: tuple[str, ...]) -> None:
        """Draw these columns as they are now, twelve at most."""
        names = names[:_MOST]
        data = history.columns([history.names.index(name) for name in names])
        if len(data[0]) < 2:
            data = tuple(np.zeros(2) for _ in range(1 + len(names)))
        if self._plot is None or names != self._names:
            self._plot = self._made(data, names)
        self._plot.data = data

    def _made(self, data: tuple[np.ndarray, ...], names: tuple[str, ...]) -> Any:
        if self._plot is not None:
            self._plot.remove()
        series = [
            viser.uplot.Series(label=name, stroke=colour, width=1.5)
            for name, colour in zip(names, _COLOURS, strict=False)
        ]
        with self._folder:
            self._names = names
            return self._gui.add_uplot(
                data, (viser.uplot.Series(label="s"), *series), scales={"x": viser.uplot.Scale(time=False)},
                legend=viser.uplot.Legend(show=True), aspect=1.6,
            )  # fmt: skip


class Plots:
    """The page's plots: rewards by term, and one component of the observation."""

    def __init__(self, gui: viser.GuiApi, player: Player) -> None:
        self._player = player
        self._term: Any = gui.add_dropdown("reward", (_ALL,))
        self._rewards = Curves(gui, "reward and its terms")
        self._components = {c.name: c for c in player.components}
        self._component = gui.add_dropdown("observation", tuple(self._components))
        self._observations = Curves(gui, "observation")

    def update(self) -> None:
        """Draw what is there now."""
        player, names = self._player, self._player.rewards.names
        if not names:
            return
        options = (_ALL, *names)
        if self._term.options != options:
            self._term.options = options
        chosen = names if self._term.value == _ALL else (self._term.value,)
        self._rewards.show(player.rewards, chosen)
        self._observations.show(player.observations, value_names(self._components[self._component.value]))
