"""How hard the ground is to walk on: of tasks whose ground has levels (`Task.terrain_levels`)."""

from __future__ import annotations

from torch import Tensor

from envs.engines.base import write_rows
from randomization.effects.context import EffectContext
from randomization.effects.effect import Effect


class TerrainDifficulty(Effect):
    """Applies `terrain_difficulty`: tells the task before each episode."""

    def __init__(self, context: EffectContext) -> None:
        self._task, self._index = context.task, context.index("terrain_difficulty")
        self._task.terrain_given = True

    def reset(self, mask: Tensor, lam: Tensor) -> None:
        """Write the difficulties of the worlds lam [N, d] in mask [N]."""
        asked = self._task.terrain_difficulty
        write_rows(asked, self._index.of(lam)[:, 0].to(asked.dtype), mask)
