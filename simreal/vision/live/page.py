"""The page of `simreal view`: buttons, sliders and plots around the scene; and the server that shows it."""

from __future__ import annotations

import contextlib
import getpass
import io
import math
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import viser
from rich.console import Console

from simreal.common.errors import UserError
from simreal.vision.live.dials import Dial, make_dials
from simreal.vision.live.loop import Film, Loop
from simreal.vision.live.player import Player, Points
from simreal.vision.live.plots import Plots
from simreal.vision.live.scene import Drawing
from simreal.vision.live.source import Source
from simreal.vision.live.strips import strip
from simreal.vision.rendering.scene import view_of

_NEWEST = "newest"
_SPEEDS = ("0.1", "0.25", "0.5", "1", "2", "4")
_LOOKS_EVERY = 10  # ticks between two looks for new checkpoints
_CHANNELS = {"physics": "physics", "action": "actions and motors", "observation": "sensors"}


class Page:
    """Everything on one page, which all browsers share.

    Args:
        server: of the page.
        source: of policies.
        seed: of the episodes.
        output: folder of films.

    Attributes:
        player, loop, drawing: behind it.
        sliders: of the world, by label.
    """

    def __init__(self, server: viser.ViserServer, source: Source, seed: int, output: Path) -> None:
        self._server, self._source, self._output = server, source, output
        self.player = Player(source.policy, make_dials(source.policy, source.envelope()), seed)
        self.loop = Loop(self.player, self._show, self._tick)
        self.drawing = Drawing(server, self.player, self._clicked)
        self.sliders: dict[str, Any] = {}
        self._strips: dict[str, Any] = {}
        self._ticks, self._shown_checkpoint = 0, ""
        gui = server.gui
        gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        tabs = gui.add_tab_group()
        with tabs.add_tab("Play"):
            self._add_play(gui)
        with tabs.add_tab("World"):
            self._add_world(gui)
        with tabs.add_tab("Plots"):
            self._plots = Plots(gui, self.player)
        server.on_client_connect(self._aim)

    def _add_play(self, gui: viser.GuiApi) -> None:
        self._status = gui.add_markdown("")
        self._pause = gui.add_button("Pause")
        self._pause.on_click(lambda _: self.loop.later(self._toggle))
        gui.add_button("Step").on_click(lambda _: self.loop.later(self.loop.step))
        gui.add_button("Reset").on_click(lambda _: self.loop.later(self.loop.reset))
        speed = gui.add_dropdown("speed", _SPEEDS, initial_value="1")
        speed.on_update(lambda _: self.loop.later(partial(setattr, self.loop, "speed", float(speed.value))))
        self._add_checkpoints(gui)
        self._add_commands(gui)
        with gui.add_folder("Push (click a body)"):
            self._force = gui.add_slider("force, N", min=1.0, max=self._strongest(), step=1.0, initial_value=30.0)
            self._duration = gui.add_slider("for, s", min=0.02, max=1.0, step=0.02, initial_value=0.1)
        with gui.add_folder("View"):
            self._check(gui, "follow the robot", self.drawing, "follow")
            self._check(gui, "contacts and forces", self.drawing, "contacts")
            self._record = gui.add_button("Record")
            self._record.on_click(lambda _: self.loop.later(self._film))

    def _strongest(self) -> float:
        """The largest push, N: five times what all that moves weighs, rounded."""
        weight = 9.81 * float(self.player.model.body_subtreemass[0])
        return float(min(max(10.0 * math.ceil(0.5 * weight), 50.0), 2000.0))

    def _check(self, gui: viser.GuiApi, label: str, thing: Any, name: str) -> None:
        box = gui.add_checkbox(label, bool(getattr(thing, name)))
        box.on_update(lambda _: self.loop.later(partial(setattr, thing, name, box.value)))

    def _add_checkpoints(self, gui: viser.GuiApi) -> None:
        self._chosen: Any = None
        if self._source.run is not None:
            self._chosen = gui.add_dropdown("checkpoint", (_NEWEST, *self._source.checkpoints()))
            self._chosen.on_update(lambda _: self.loop.later(self._choose))

    def _add_commands(self, gui: viser.GuiApi) -> None:
        steering = self.player.steering
        self._commands: list[Any] = []
        if steering is None:
            return
        with gui.add_folder(f"Command: {steering.component.description or steering.component.name}"):
            self._mine = gui.add_checkbox("mine, not the task's", False)
            self._mine.on_update(lambda _: self.loop.later(self._command))
            for name, low, high, now in zip(
                steering.names, steering.low, steering.high, steering.present, strict=True
            ):  # fmt: skip
                slider = _slider(gui, name, low, high, now)
                slider.on_update(lambda event: self._commanded(event.client is not None))
                self._commands.append(slider)

    def _add_world(self, gui: viser.GuiApi) -> None:
        gui.add_button("Calibrated world").on_click(lambda _: self._set_all(lambda dial: dial.parameter.nominal))
        if any(dial.trained for dial in self.player.dials):
            drawn = np.random.default_rng(0)
            gui.add_button("Draw one from the trained ranges").on_click(
                lambda _: self._set_all(lambda dial: _drawn(dial, drawn))
            )
        groups: dict[str, list[Dial]] = {}
        for dial in self.player.dials:
            group = "trained" if dial.trained else _CHANNELS.get(dial.channel, dial.channel)
            groups.setdefault(group, []).append(dial)
        first = next(iter(groups), "")
        for group, dials in groups.items():
            with gui.add_folder(f"{group} ({len(dials)})", expand_by_default=group == first):
                for dial in dials:
                    self._add_dial(gui, dial)

    def _add_dial(self, gui: viser.GuiApi, dial: Dial) -> None:
        p = dial.parameter
        self._strips[dial.label] = gui.add_html(strip(dial))
        unit = "" if p.unit in ("1", "unit") else f", {p.unit}"
        late = " (next episode)" if dial.fixed else ""
        hint = f"{p.quantity} of {', '.join(p.targets[:6])}" if p.targets else p.quantity
        slider = _slider(gui, f"{dial.label}{unit}{late}", *p.limits, p.nominal, f"{hint}: {p.mode}")
        slider.on_update(lambda _: self.loop.later(partial(self.player.set, dial.label, float(slider.value))))
        self.sliders[dial.label] = slider

    def _set_all(self, value: Callable[[Dial], float]) -> None:
        for dial in self.player.dials:
            self.sliders[dial.label].value = value(dial)
            self.loop.later(partial(self.player.set, dial.label, float(self.sliders[dial.label].value)))

    def _commanded(self, by_a_person: bool) -> None:
        """A slider of the command has moved: from now on these hold, if it was not the page itself that moved it."""
        if by_a_person and not self._mine.value:
            self._mine.value = True
        self.loop.later(self._command)

    def _command(self) -> None:
        assert self.player.steering is not None
        wanted = [float(slider.value) for slider in self._commands]
        self.player.steering.wanted = wanted if self._mine.value else None

    def _clicked(self, body: int, direction: Points) -> None:
        """Push a body away from who looks at it: along the ground, unless that looks from straight above."""
        level = direction * [1.0, 1.0, 0.0]
        way = level if np.linalg.norm(level) > 0.2 else direction
        force = float(self._force.value) * way / (np.linalg.norm(way) or 1.0)
        self.loop.later(partial(self.player.push, body, force, float(self._duration.value)))

    def _toggle(self) -> None:
        self.loop.pause(not self.loop.playing)
        self._pause.label = "Pause" if self.loop.playing else "Play"

    def _film(self) -> None:
        """Begin to record, or end it and write the film."""
        film, self.loop.film = self.loop.film, None
        try:
            if film is None:
                self.loop.film = Film(self.player)
            else:
                self._tell("Film", f"written to {film.end(self._output, self.player.policy.name)}")
        except UserError as error:
            self._tell("No film", str(error))
        self._record.label = "Record" if self.loop.film is None else "Stop and write the film"

    def _tell(self, title: str, text: str) -> None:
        for client in self._server.get_clients().values():
            client.add_notification(title, text, auto_close_seconds=10.0)

    def _choose(self) -> None:
        """Play the checkpoint that is chosen, where it is not the one that plays."""
        found = self._source.checkpoints()
        options = (_NEWEST, *found)
        if tuple(self._chosen.options) != options:
            self._chosen.options = options
        name = next(iter(found), "") if self._chosen.value == _NEWEST else self._chosen.value
        if name not in found or name == self._shown_checkpoint:
            return
        try:
            policy = self._source.load(found[name])
        except UserError as error:
            self._tell("No such checkpoint", str(error))
            return
        self._shown_checkpoint = name
        self.player.play(policy)
        trained = {p.name: p.limits for p in policy.parameters}
        self.player.dials[:] = [_retrained(dial, trained) for dial in self.player.dials]
        for dial in self.player.dials:
            if (bar := strip(dial)) != self._strips[dial.label].content:
                self._strips[dial.label].content = bar

    def _show(self) -> None:
        if self._server.get_clients():
            self.drawing.show()

    def _tick(self) -> None:
        """A few times per second."""
        self._ticks += 1
        if self._chosen is not None and self._ticks % _LOOKS_EVERY == 1:
            self._choose()
        if not self._server.get_clients():
            return
        player, loop = self.player, self.loop
        plays = f"{player.policy.name} {self._shown_checkpoint}".strip() + (
            ", waits for the first checkpoint" if self._source.waits else ""
        )
        film = "" if loop.film is None else f"; recording, {len(loop.film.frames) / loop.film.fps:.1f} s"
        self._status.content = (
            f"**{player.policy.task_id}**, {plays}  \nepisode {player.episode}, {player.time_s:.2f} s, return "
            f"{player.total:.3g}; {loop.rate:.2f} s per second{film}  \n{player.ended or '&nbsp;'}"
        )
        self._follow_commands()
        self._plots.update()

    def _follow_commands(self) -> None:
        """Sliders show the task's own command while that holds."""
        steering = self.player.steering
        if steering is None or self._mine.value:
            return
        for slider, value, low, high in zip(
            self._commands, steering.present, steering.low, steering.high, strict=True
        ):  # fmt: skip
            shown = min(max(value, low), high)
            if abs(float(slider.value) - shown) > (high - low) / 100:
                slider.value = shown

    def _aim(self, client: viser.ClientHandle) -> None:
        """Give a new browser the task's view."""
        camera = view_of(self.player.environment, "view")
        azimuth, elevation = math.radians(camera.azimuth), math.radians(camera.elevation)
        forward = np.array(
            [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
        )
        looked = np.array(camera.lookat)
        if camera.trackbodyid > 0:
            looked = np.array(self.player.data.xpos[camera.trackbodyid]) + np.asarray(self.drawing.offset)
        client.camera.position = looked - camera.distance * forward
        client.camera.look_at = looked
        self.loop.later(lambda: None)  # draw, also where it is paused


def _drawn(dial: Dial, generator: np.random.Generator) -> float:
    """A value of the trained range; the calibrated one where there is none."""
    low, high = dial.trained or (dial.parameter.nominal, dial.parameter.nominal)
    return float(generator.uniform(low, high))


def _retrained(dial: Dial, trained: dict[str, tuple[float, float]]) -> Dial:
    return replace(dial, trained=trained.get(dial.label, dial.trained))


def _slider(gui: viser.GuiApi, label: str, low: float, high: float, value: float, hint: str | None = None) -> Any:
    """A slider in steps of a hundredth of its range or less."""
    high = high if high > low else low + 1.0
    step = 10.0 ** math.floor(math.log10((high - low) / 100.0))
    return gui.add_slider(label, min=low, max=high, step=step, initial_value=min(max(value, low), high), hint=hint)


def serve(
    source: Source, host: str, port: int, seed: int, output: Path, seconds: float | None, out: Console
) -> None:  # fmt: skip
    """Show a source for a time, or until it is interrupted. Raises UserError where the port cannot be had."""
    _check_port(host, port)
    label = f"simreal view {source.policy.task_id}"
    with contextlib.redirect_stdout(io.StringIO()):  # its own banner
        server = viser.ViserServer(host=host, port=port, label=label, verbose=False)
    try:
        page = Page(server, source, seed, output)
        for line in addresses(host, server.get_port()):
            out.print(line)
        if seconds is not None:
            timer = threading.Timer(seconds, page.loop.stop)
            timer.daemon = True
            timer.start()
        with contextlib.suppress(KeyboardInterrupt):
            page.loop.run()
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()


def _check_port(host: str, port: int) -> None:
    """Raise UserError where nothing can listen there."""
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        reason = error.strerror or str(error)
        where = f"--host {host} --port {port}"
        raise UserError(f"{where}: cannot listen there ({reason}); --port 0 takes a free port") from None


def addresses(host: str, port: int) -> list[str]:
    """Where the page is, and how to see it from another machine."""
    local = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host
    lines = [f"http://{local}:{port}   shows it until ctrl-c"]
    there = os.environ.get("SSH_CONNECTION", "").split(" ")
    name = there[2] if len(there) > 2 else socket.gethostname()
    if host in ("0.0.0.0", "::"):
        lines.append(f"http://{name}:{port}   from other machines: everybody on the network can use it")
    lines.append(
        f"over ssh: run  ssh -N -L {port}:{local}:{port} {getpass.getuser()}@{name}  at home, then open "
        f"http://localhost:{port}"
    )
    return lines
