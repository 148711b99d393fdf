"""How many torch threads an update gets: chosen by how long its steps take, again and again while training.

Two threads wait for each other hundreds of times in a gradient step. Alone on the machine that pays; beside one other
busy process the system takes a processor from one of them now and then, and the other waits for it: on two processors
a step then takes five to ten times as long as alone, with one thread hardly longer (docs/results, "Beside other
processes"). No setting is right for both, and a machine's other work comes and goes, so the choice is measured.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

import torch

_KEPT = 5  # durations that a choice is judged by: the newest of the usual number of threads
_SLOWER, _IN_A_ROW = 1.5, 2  # so many pieces so much slower than the last ones: something has changed
_TRIAL = 3  # pieces in a trial, judged by their median: threads that slept are slow to wake
_HOPELESS = 3.0  # a first piece that takes so many times the usual time ends its trial
_FASTER = 0.92  # a trial has to take at most this share of the usual time
_SOONEST, _LATEST = 4, 256  # pieces between two trials: more and more as long as they change nothing
_COST = 0.03  # largest share of the time that trials of a slower number of threads may cost


class ThreadChoice:
    """Chooses a number of threads for each of many like pieces of work.

    Args:
        most: largest number.
        first: the first choice.

    `choose` before a piece, `took` after it.
    """

    def __init__(self, most: int, first: int) -> None:
        self._numbers = sorted({1, most, first, *(2**k for k in range(most.bit_length()) if 2**k <= most)})
        self._usual = self._numbers.index(first)
        self._kept: deque[float] = deque(maxlen=_KEPT)
        self._slow: list[float] = []  # the newest in a row that took much longer than those kept
        self._until_trial = self._pause = _SOONEST
        self._fewer_next = True  # whether the next trial is of fewer threads
        self._trial: int | None = None
        self._tried: list[float] = []

    @property
    def usual(self) -> int:
        """The number of threads that is best at present, as far as is known."""
        return self._numbers[self._usual]

    def choose(self) -> int:
        """Threads for the next piece."""
        if self._trial is None and self._until_trial <= 0 and len(self._numbers) > 1:
            self._trial, self._tried = self._neighbour(), []
        return self.usual if self._trial is None else self._numbers[self._trial]

    def took(self, seconds: float) -> None:
        """Take in how long the piece took that `choose` was asked about."""
        if self._trial is None:
            self._judge_usual(seconds)
            return
        self._tried.append(seconds)
        if len(self._tried) == _TRIAL or seconds > _HOPELESS * median(self._kept):
            self._judge_trial(self._trial)
            self._trial = None

    def _neighbour(self) -> int:
        """The number to try: the next smaller or the next larger one, in turn."""
        last = len(self._numbers) - 1
        step = -1 if (self._fewer_next and self._usual > 0) or self._usual == last else 1
        self._fewer_next = step > 0
        return self._usual + step

    def _judge_usual(self, seconds: float) -> None:
        self._until_trial -= 1
        if not self._kept or seconds <= _SLOWER * median(self._kept):
            self._kept.append(seconds)
            self._slow = []
            return
        self._slow.append(seconds)
        if len(self._slow) == _IN_A_ROW:  # others have come: fewer threads may be better now
            self._kept.clear()
            self._kept.extend(self._slow)
            self._slow = []
            if self._usual > 0:
                self._pause, self._fewer_next, self._until_trial = _SOONEST, True, 0

    def _judge_trial(self, trial: int) -> None:
        usual, seconds = median(self._kept), median(self._tried)
        if seconds < _FASTER * usual:
            self._usual, self._pause = trial, _SOONEST
            self._kept.clear()
            self._kept.append(seconds)
        else:
            affordable = int((sum(self._tried) - len(self._tried) * usual) / (_COST * usual))
            self._pause = max(min(2 * self._pause, _LATEST), affordable)
        self._until_trial = self._pause


class UpdateThreads:
    """Gives the updates of a learner their threads, and torch one thread in between.

    Args:
        most: largest number of threads.
        first: the number to begin with.
        adaptive: False: all updates get `first`.
        alone: whether nothing runs beside the update at present; None: always so.
        beside: the number for gradient steps beside others, where it is `adaptive`.
    """

    def __init__(
        self, most: int, first: int, adaptive: bool, alone: Callable[[], bool] | None = None, beside: int = 1
    ) -> None:
        self._choice = ThreadChoice(most, first) if adaptive else None
        self._first = self._set = first
        self._is_alone, self._beside = alone or (lambda: True), beside
        self._alone = True  # when this gradient step began
        self._steps = 0  # gradient steps of this update that have begun
        self._began = 0.0

    def begin(self) -> None:
        """An update begins."""
        self._steps = 0
        self._use(self._first if self._choice is None else self._chosen(self._choice))

    def step(self) -> None:
        """A gradient step of the update begins, and with it the one before it has ended."""
        if self._choice is None:
            return
        if self._steps > 0:
            self._took(self._choice)
            number = self._chosen(self._choice)
            if number != self._set:
                self._use(number)
        self._steps += 1
        self._began = time.perf_counter()

    def end(self) -> None:
        """The update has ended. Physics threads run now: two of torch's would fight with them for the processors.

        What an update does after its last step is no step; where it has one only, nothing else can be compared.
        """
        if self._choice is not None and self._steps == 1:
            self._took(self._choice)
        torch.set_num_threads(1)

    def _chosen(self, choice: ThreadChoice) -> int:
        self._alone = self._is_alone()
        return choice.choose() if self._alone else self._beside

    def _took(self, choice: ThreadChoice) -> None:
        if self._alone:
            choice.took(time.perf_counter() - self._began)

    def _use(self, number: int) -> None:
        self._set = number
        torch.set_num_threads(number)
