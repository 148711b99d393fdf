"""Real time: a player's steps when they are due, pictures of them, and what browsers ask for in between."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path

from simreal.common.errors import UserError
from simreal.vision.live.player import Player
from simreal.vision.rendering.scene import Image, Scene, write_video

_LATE_S = 0.25  # behind real time, after which the rest is given up
_FILM_FPS, _FILM_PIXELS = 30.0, 480
_LONGEST_FILM_S = 60.0


class Loop:
    """Lets time pass for a player. `run` is called by one thread; the others ask it for things with `later`.

    Args:
        player: whose steps are made.
        show: called where something may have changed in the picture.
        tick: called a few times per second.
        fps: pictures per second at most.
        clock: in seconds.

    Attributes:
        playing: False while it is paused.
        speed: simulated seconds per second.
        rate: the speed that was reached.
        pictures: sent so far.
    """

    def __init__(
        self,
        player: Player,
        show: Callable[[], None],
        tick: Callable[[], None],
        fps: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.player, self._show, self._tick = player, show, tick
        self._clock, self._frame_s = clock, 1.0 / fps
        self.playing, self.speed, self.rate, self.pictures = True, 1.0, 0.0, 0
        self.film: Film | None = None
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._due = self._next_frame = self._next_tick = self._counted_at = clock()
        self._counted, self._dirty, self._stopped = 0, True, False

    def later(self, action: Callable[[], None]) -> None:
        """Have `run` call this before the next step."""
        self._asked.put(action)

    def stop(self) -> None:
        """End `run`."""
        self.later(self._stop)

    def _stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped:
            self.once()

    def once(self) -> None:
        """Do what is due, then wait for what comes first: a step, a picture, or somebody."""
        self._answer(wait_s=0.0)
        now = self._clock()
        if self.playing and now >= self._due:
            self.advance()
            self._due += self.player.environment.task.control_period_s / self.speed
            if self._clock() - self._due > _LATE_S:
                self._due = self._clock()
        now = self._clock()
        if self._dirty and now >= self._next_frame:
            self._show()
            self._dirty, self._next_frame = False, now + self._frame_s
            self.pictures += 1
        if now >= self._next_tick:
            self._measure(now)
            self._tick()
            self._next_tick = now + 0.2
        following = [self._next_tick] + ([self._due] if self.playing else []) + ([self._next_frame] * self._dirty)
        self._answer(wait_s=max(0.0, min(following) - self._clock()))

    def _answer(self, wait_s: float) -> None:
        """Do what was asked for; wait for it, where nothing was."""
        try:
            action = self._asked.get(timeout=wait_s) if wait_s > 0.0 else self._asked.get_nowait()
            while True:
                action()
                self._dirty = True
                action = self._asked.get_nowait()
        except queue.Empty:
            return

    def _measure(self, now: float) -> None:
        passed = now - self._counted_at
        if passed >= 1.0:
            self.rate = self._counted * self.player.environment.task.control_period_s / passed
            self._counted, self._counted_at = 0, now

    def advance(self) -> None:
        """One control step."""
        self.player.step()
        self._counted += 1
        self._dirty = True
        if self.film is not None:
            self.film.take()

    def pause(self, playing: bool) -> None:
        """Stop, or go on from now."""
        self.playing, self._due = playing, self._clock()

    def step(self) -> None:
        """One control step; it is paused after that."""
        self.pause(False)
        self.advance()

    def reset(self) -> None:
        """The next episode."""
        self.player.reset()


class Film:
    """Pictures of a player's simulation, by MuJoCo's own renderer.

    Args:
        player: to be filmed; each control step that is due is drawn, however long that takes.

    Raises:
        UserError: the machine cannot render.
    """

    def __init__(self, player: Player) -> None:
        period_s = player.environment.task.control_period_s
        self._stride = max(1, round(1.0 / (_FILM_FPS * period_s)))
        self.fps = 1.0 / (self._stride * period_s)
        self._scene = Scene(player.environment, _FILM_PIXELS, _FILM_PIXELS, daylight=True)
        self.frames: list[Image] = []
        self._steps = 0

    @property
    def full(self) -> bool:
        """Whether it is as long as a film may be."""
        return len(self.frames) >= _LONGEST_FILM_S * self.fps

    def take(self) -> None:
        """A control step has been made."""
        if self._steps % self._stride == 0 and not self.full:
            self.frames.append(self._scene.picture(0))
        self._steps += 1

    def end(self, folder: Path, name: str) -> Path:
        """Write it as an MP4 with a name that is free. Raises UserError where that cannot be written."""
        self._scene.close()
        if not self.frames:
            raise UserError("the film is empty: nothing was played while it was recorded")
        number = 1
        while (path := folder / f"{name}-{number}.mp4").exists():
            number += 1
        write_video(path, self.frames, self.fps)
        return path
