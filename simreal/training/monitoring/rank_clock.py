"""Where the time of a run on many ranks goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from envs.common.ranks import Ranks


class RankClock:
    """Seconds of physics, of learning, and of talking with other ranks, which includes waiting for late ones.

    Args:
        ranks: of the run.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = self._beside = ranks
        self._seconds = {"physics_s": 0.0, "learning_s": 0.0}

    def physics(self) -> contextlib.AbstractContextManager[None]:
        """Within the block, environments are stepped."""
        return self._timed("physics_s", self._ranks)

    def learning(self, ranks: Ranks) -> contextlib.AbstractContextManager[None]:
        """Within the block, the learner learns, talking with `ranks`: those of the run, or their likes beside them."""
        self._beside = ranks
        return self._timed("learning_s", ranks)

    def row(self) -> dict[str, float]:
        """Columns of the log, of all ranks; none for a process alone."""
        if self._ranks.size == 1:
            return {}
        each = {id(ranks): ranks for ranks in (self._ranks, self._beside)}.values()
        waited, sent = (sum(values) for values in zip(*((r.waited_s, r.sent_bytes) for r in each), strict=True))
        mine = self._seconds | {"waiting_s": waited, "sent_mb": sent / 1e6}
        everywhere = enumerate(self._ranks.objects(mine))
        return {f"rank{rank}/{name}": value for rank, each in everywhere for name, value in each.items()}

    @contextlib.contextmanager
    def _timed(self, name: str, ranks: Ranks) -> Iterator[None]:
        began, waited = time.perf_counter(), ranks.waited_s
        yield
        self._seconds[name] += time.perf_counter() - began - (ranks.waited_s - waited)
