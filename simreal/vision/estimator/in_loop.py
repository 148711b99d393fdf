"""A policy that runs on estimates: the same episodes on true states, on true states with noise like the estimator's
errors, and on what the estimator reads from pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from randomization.parameters import Parameter, build_parameters
from randomization.samplers.base import Manual, Sampler
from simreal.common.errors import UserError
from simreal.evaluation.compare import plain_table
from simreal.evaluation.evaluate import Episodes, batch_of, run_episodes
from simreal.evaluation.intervals import bootstrap_ci, wilson
from simreal.training.build import make_environment
from simreal.training.run_directory import LoadedPolicy, load_policy
from simreal.vision.estimator.assess import noise_block
from simreal.vision.estimator.loading import Estimator
from simreal.vision.estimator.looks import find_look
from simreal.vision.sensors.config import SensorConfig

_MOST_ENVS = 64  # pictures are taken one by one: more are not faster


class Joined(Sampler):
    """Worlds of several samplers side by side, all episodes ordinary."""

    def __init__(self, *parts: Sampler) -> None:
        self._parts = parts
        self.parameters: list[Parameter] = [p for part in parts for p in part.parameters]
        self.lower, self.upper = (torch.cat([getattr(part, end) for part in parts]) for end in ("lower", "upper"))

    def draw(self, u: Tensor, choice: Tensor, explore: bool = True) -> tuple[Tensor, Tensor]:
        """See `Sampler.draw`."""
        columns = u.split([len(part.parameters) for part in self._parts], dim=1)
        lam = [part.draw(c, choice, False)[0] for part, c in zip(self._parts, columns, strict=True)]
        return torch.cat(lam, dim=1), torch.full((len(u),), -1, dtype=torch.int64, device=u.device)

    def record(self, boundary: Tensor, performance: Tensor, lam: Tensor | None = None) -> None:
        """Does nothing: the ranges are fixed."""

    def entropy(self) -> float:
        """Not asked for."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Nothing changes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing changes."""


def play_on_estimates(
    estimator: Estimator,
    policy_path: Path,
    looks: Sequence[str],
    episodes: int,
    seed: int,
    camera: SensorConfig,
    assessment: dict[str, Any],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Figures of a policy on an estimator, beside true states, in the same episodes.

    Args:
        estimator: what it sees with; its components replace the policy's.
        policy_path: a run or bundle.
        looks: of the pictures.
        episodes: of each kind.
        seed: of the episodes.
        camera: rate, latency and losses; its `estimator` is not looked at.
        assessment: the estimator's: "equal noise" has the standard deviations of its errors, "usual noise" those that
            `noise_block` leaves of the usual ones.
        say: told what is played.

    Raises:
        UserError: the policy is of another task; a spoilt look, which no environment shows.
    """
    policy = load_policy(policy_path, estimator.config.task)
    if policy.task_id != estimator.config.task:
        raise UserError(f"{policy.name}: is of {policy.task_id}, but {estimator.name} is of {estimator.config.task}")
    found = [find_look(name, estimator.config, estimator.looks) for name in looks]
    for look in found:
        if look.spoil is not None:
            raise UserError(
                f"--look {look.name}: is made of pictures afterwards; expected nominal, trained or held_out"
            )
        if look.name not in {row["name"] for row in assessment["looks"]}:
            raise UserError(f"--look {look.name}: not in the assessment of {estimator.name}; assess it there first")
    measured = [c.name for c in policy.make_task().measured_components()]
    names = [t.name for t in estimator.readings if t.name in measured]
    if not names:
        raise UserError(f"{estimator.name}: reads nothing that a policy of {policy.task_id} observes")
    say(f"playing {episodes} episodes on true states ...")
    true = _played(policy, Manual([]), episodes, seed)
    rows = [_row("true states", "-", true, None)]
    for look in found:
        noisy: dict[str, Episodes] = {}
        for kind, usual in (("equal noise", False), ("usual noise", True)):
            say(f"playing {episodes} episodes on true states with {kind} of look {look.name} ...")
            entries = {label: e for label, e in noise_block(assessment, look.name, usual).items() if e["of"] in names}
            noisy[kind] = _played(policy, _as_measured(policy, entries), episodes, seed)
        say(f"playing {episodes} episodes on estimates in look {look.name} ...")
        sensor = camera.model_copy(update={"estimator": str(estimator.run), "unseen": look.unseen})
        seen = _played(policy, Joined(look.sampler), episodes, seed, dict.fromkeys(names, sensor))
        rows += [_row(kind, look.name, played, true) for kind, played in noisy.items()]
        rows.append(_row("estimates", look.name, seen, noisy["equal noise"]))
    return {
        "estimator": estimator.name, "policy": policy.name, "task": policy.task_id, "components": names,
        "counts_successes": policy.make_task().counts_successes,
        "camera": camera.model_dump(exclude={"estimator", "unseen"}), "episodes": episodes, "seed": seed, "rows": rows,
    }  # fmt: skip


def _as_measured(policy: LoadedPolicy, entries: dict[str, dict[str, Any]]) -> Manual:
    """The noise of a block as it was measured, in every episode: the middle of its ranges."""
    fixed = {label: entry | {"range": [0.5 * entry["range"][1]] * 2} for label, entry in entries.items()}
    return Manual(build_parameters(policy.make_task(), fixed))


def _played(
    policy: LoadedPolicy, sampler: Sampler, episodes: int, seed: int, sensors: dict[str, SensorConfig] | None = None
) -> Episodes:
    environment = make_environment(
        policy.task_id, batch_of(episodes, _MOST_ENVS), sampler=sampler, explore=False, seed=seed, engine="cpu",
        task_options=policy.task_options, sensors=sensors,
    )  # fmt: skip
    return run_episodes(policy, environment, episodes)


def _row(observes: str, look: str, played: Episodes, beside: Episodes | None) -> dict[str, Any]:
    """Figures of episodes, and the difference from the same episodes otherwise."""
    good, count = int(played.success.sum()), len(played.success)
    row: dict[str, Any] = {
        "observes": observes, "look": look, "success_rate": good / count, "success_ci95": list(wilson(good, count)),
        "successes_mean": float(played.successes.double().mean()),
        "successes_ci95": bootstrap_ci(np.asarray(played.successes)).tolist(),
        "return_mean": float(played.returns.mean()),
        "samples": {"success": (played.success + 0).tolist(), "successes": played.successes.tolist()},
    }  # fmt: skip
    if beside is not None:
        for name in ("success", "successes"):
            apart = np.asarray(getattr(played, name), float) - np.asarray(getattr(beside, name), float)
            row[f"{name}_difference"] = float(apart.mean())
            row[f"{name}_difference_ci95"] = bootstrap_ci(apart).tolist()
    return row


def in_loop_table(document: dict[str, Any]) -> Table:
    """Figures of `play_on_estimates` for people; noise is compared with true states, estimates with equal noise."""
    title = f"{document['policy']} on {document['estimator']}, {document['episodes']} episodes each"
    caption = f"read from pictures: {', '.join(document['components'])}; all else is measured"
    counts = document["counts_successes"]
    columns = ("successes", "95 %", "difference", "95 %") if counts else ("success", "95 %", "difference", "95 %")
    table = plain_table(title, ("observes", "look"), columns, caption)
    for row in document["rows"]:
        name, shown = (
            ("successes", f"{row['successes_mean']:.2f}") if counts else ("success", f"{row['success_rate']:.3f}")
        )
        apart, ends = row.get(f"{name}_difference"), row[f"{name}_ci95"]
        table.add_row(
            row["observes"], row["look"], shown, _ends(ends), "" if apart is None else f"{apart:+.3f}",
            "" if apart is None else _ends(row[f"{name}_difference_ci95"], "+"),
        )  # fmt: skip
    return table


def _ends(ends: Sequence[float], sign: str = "") -> str:
    return f"{ends[0]:{sign}.3f} to {ends[1]:{sign}.3f}"
