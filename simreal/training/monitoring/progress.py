"""The progress display of training: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress

_LINE_INTERVAL_S, _FIRST_LINE_S = 10.0, 2.0  # between lines; the first ones come sooner


class Progress:
    """Shows steps, steps per second, success rate or return, ADR entropy and time left.

    Args:
        total: environment steps in all.
        start: steps done before.
        console: where to write.
        adr: whether entropy means anything.
        unit: what is counted.
    """

    def __init__(self, total: int, start: int, console: Console, adr: bool, unit: str = "steps") -> None:
        self._total, self._start, self._adr, self._unit = total, start, adr, unit
        self._console = console
        self._live = console.is_terminal
        self._began = self._shown = time.monotonic()
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("[bold]{task.percentage:>3.0f}%"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            console=console,
            transient=False,
            refresh_per_second=5,
        )
        self._id = self._bar.add_task("train", total=total, completed=start, status="collecting first episodes")

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Print a line; above the bar, where there is one."""
        self._console.print(text, highlight=False)

    def update(self, steps: int, score: str, entropy: float) -> None:
        """Show the state after `steps` steps, with a score such as "success 0.93"; cheap, so call it after each."""
        now = time.monotonic()
        interval = 0.2 if self._live else min(_LINE_INTERVAL_S, max(now - self._began, _FIRST_LINE_S))
        if now - self._shown < interval and steps < self._total:
            return
        self._shown = now
        rate = (steps - self._start) / max(now - self._began, 1e-9)
        left = (self._total - steps) / rate if rate > 0 else 0.0
        status = f"{steps:,} / {self._total:,} {self._unit}  {rate:,.{0 if rate >= 10 else 1}f}/s  {score}"
        status += f"  ADR entropy {entropy:+.2f} npd" if self._adr else ""
        status += f"  {_clock(left)} left"
        if self._live:
            self._bar.update(self._id, completed=steps, status=status)
        else:
            self._console.print(status, highlight=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
