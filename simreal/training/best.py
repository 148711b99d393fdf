"""Keeps the best policy of a run: candidates are judged by fresh episodes, in pairs with the one that is kept.

Training does not notice: episodes of a judgement have environments and random numbers of their own, and seeds that
neither training nor the evaluation at the end plays. A candidate takes the place of the kept policy only where it is
better beyond doubt: the 95 % interval of the mean difference over the same episodes lies above 0. Where success says
nothing, return decides by the same rule, unless success is lower. So noise does not replace a good policy, and of two
that are alike the older one stays.

Worlds are the nominal one and, under randomization, the ranges of the candidate: under ADR these are the widest yet,
which is what a policy of earlier ranges has to hold against.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from envs.common.safe_yaml import one_line
from envs.task import Task
from randomization.samplers.base import Sampler
from randomization.samplers.frozen import frozen_parameters
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import evaluate_named
from simreal.evaluation.intervals import bootstrap_ci, unanimous_ci
from simreal.evaluation.metrics import RETURN, Metric, metric_of
from simreal.learners.base import LearnerSpec
from simreal.training.checkpoint import (
    BEST,
    EVALUATION,
    MISFITS,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from simreal.training.monitoring.metrics_log import JUDGED, CsvLog
from simreal.training.run_config import RunConfig
from simreal.training.run_directory import LoadedPolicy, stepper

_JUDGED, _SEED = 10, 7_000_003  # judgements in a run, at most; seed of their episodes
_FILES = 12  # kept policies on the disk: those that the checkpoints on the disk name are among them
_SHARE_ON, _SHARE_OFF = 0.1, 0.25  # episodes' steps in judgements per step of training: off-policy updates cost more


def better(candidate: dict[str, Any], kept: dict[str, Any], measure: Metric) -> bool:
    """Whether a candidate is better than the kept policy beyond doubt, from evaluations in the same episodes."""
    interval, mean = _difference(candidate, kept, measure.name)
    if interval[0] > 0.0:
        return True
    return measure is not RETURN and mean >= 0.0 and _difference(candidate, kept, RETURN.name)[0][0] > 0.0


def _difference(candidate: dict[str, Any], kept: dict[str, Any], key: str) -> tuple[tuple[float, float], float]:
    """The 95 % interval of the mean difference over the episodes of all worlds, and that mean."""
    pairs = [(row["samples"][key], other["samples"][key]) for row, other in _rows(candidate, kept)]
    apart = np.concatenate([np.asarray(a, dtype=float) - np.asarray(b, dtype=float) for a, b in pairs])
    if key != RETURN.name and len(set(apart.tolist())) == 1:
        low, high = unanimous_ci(float(apart[0]), len(apart))
    else:
        low, high = bootstrap_ci(apart).tolist()
    return (low, high), float(apart.mean())


def _rows(candidate: dict[str, Any], kept: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(candidate["worlds"], kept["worlds"], strict=True))


def judge_interval(config: RunConfig, max_episode_steps: int) -> int:
    """Environment steps between two judgements: a tenth of the run, or more where episodes are long."""
    if config.train.judge_interval is not None:
        return config.train.judge_interval
    if config.learner.COUNTS != "env_steps":  # sweeps over recorded transitions: the last policy alone
        return config.learner.run_length(config.train.env_steps) + 1
    worlds = 1 if config.randomization.sampler == "none" else 3  # the kept policy plays the present ranges again
    share = _SHARE_ON if config.learner.STAGGERED else _SHARE_OFF
    cost = config.train.judge_episodes * max_episode_steps * worlds
    return max(config.train.env_steps // _JUDGED, round(cost / share), 1)


class BestPolicy:
    """The best policy of a run so far, in RUN/best/step_N.safetensors.

    Args:
        config: of the run.
        run: its directory.
        task: of training, for its measure and the length of episodes.
        max_episode_steps: of training.
        spec: of the learner.
    """

    def __init__(self, config: RunConfig, run: Path, task: Task, max_episode_steps: int, spec: LearnerSpec) -> None:
        self._config, self._run, self._spec = config, run, spec
        self._measure = metric_of(task)
        self._interval = judge_interval(config, max_episode_steps)
        self._total = config.learner.run_length(config.train.env_steps)
        self._stride = config.num_envs if config.learner.COUNTS == "env_steps" else 1
        self._kept: int | None = None  # steps of the kept policy
        self._module: nn.Module | None = None
        self._nominal: dict[str, Any] | None = None  # how the kept one did in the nominal world
        self._resumed_at = 0
        self._table: CsvLog | None = None

    def due(self, env_steps: int) -> bool:
        """Whether a judgement is due: one has come since the last step, and the end of the run is not near."""
        before = (env_steps - self._stride) // self._interval
        near = self._total - env_steps < self._interval // 2
        return env_steps // self._interval > before and not near

    def judge(self, env_steps: int, policy: nn.Module, sampler: Sampler) -> str | None:
        """Compare the present policy with the kept one, and keep the better. Returns what to tell, if anything.

        Raises:
            UserError: the disk refuses.
        """
        candidate = copy.deepcopy(policy).to("cpu").eval()
        if self._kept == env_steps:
            return None
        if self._kept is None or self._module is None:
            self._keep(env_steps, candidate, sampler, None)
            return None
        mine = self._play(candidate, sampler, None)
        self._note(env_steps, mine)
        theirs = self._play(self._module, sampler, self._nominal)
        replaced = better(mine, theirs, self._measure)
        told = f"judged at step {env_steps:,}: {self._told(mine)}; the kept policy of step {self._kept:,}: "
        told += f"{self._told(theirs)}; {'replaced' if replaced else 'stays'}"
        if replaced:
            self._keep(env_steps, candidate, sampler, mine["worlds"][0])
        else:
            self._nominal = theirs["worlds"][0]
        return told

    def load(self, checkpoint: dict[str, Any], policy: nn.Module, sampler: Sampler) -> None:
        """Go on from a checkpoint, whose policy and sampler are given.

        The kept policy is the newest in the run's folder that is not later than the checkpoint. Later ones, of
        judgements that will be made again, are removed. Of a finished run that kept none, its last policy is the one to
        beat.

        Raises:
            UserError: the file is damaged, or the disk refuses.
        """
        at: int = checkpoint["env_steps"]
        self._resumed_at, self._table = at, None
        path: Path | None = None
        for file in checkpoints(self._run / BEST):
            if file.name <= checkpoint_path(self._run, at).name:
                path = file
            else:
                file.unlink(missing_ok=True)
        module = copy.deepcopy(policy).to("cpu").eval()
        if path is None:
            if (self._run / EVALUATION).is_file():
                self._keep(at, module, sampler, None)
            return
        try:
            module.load_state_dict(load_checkpoint(path, self._config.task)["policy"])
        except MISFITS as error:
            raise UserError(f"{path}: does not fit the configuration: {one_line(error)}") from None
        self._kept, self._module = int(path.stem.removeprefix("step_")), module

    def _keep(self, env_steps: int, module: nn.Module, sampler: Sampler, nominal: dict[str, Any] | None) -> None:
        content = {"task": self._config.task, "policy": module.state_dict(), "sampler": sampler.state_dict()}
        save_checkpoint(self._run / BEST, env_steps, content, _FILES)
        self._kept, self._module, self._nominal = env_steps, module, nominal

    def _play(self, module: nn.Module, sampler: Sampler, nominal: dict[str, Any] | None) -> dict[str, Any]:
        """The evaluation of a policy in the worlds of a judgement; `nominal`: its figures in the first, if known."""
        config, train = self._config, self._config.train
        act, reset = stepper(module)
        policy = LoadedPolicy(
            "candidate", config.task, act, reset, frozen_parameters(sampler), None, config,
            task_options=config.task_options, spec=self._spec, observation=config.observation,
        )  # fmt: skip
        worlds = ["nominal"] if config.randomization.sampler == "none" else ["nominal", "trained"]
        known = [] if nominal is None else [nominal]
        left = worlds[len(known) :]
        found = evaluate_named(policy, left, train.judge_episodes, None, _SEED)["worlds"] if left else []
        return {"worlds": [*known, *found]}

    def _note(self, env_steps: int, figures: dict[str, Any]) -> None:
        """A row of judged.csv: mean and 95 % interval in each world."""
        row: dict[str, float | int] = {"env_steps": env_steps}
        for world in figures["worlds"]:
            mean, key = world[self._measure.mean], self._measure.interval
            low, high = world[key] if key else (mean - 1.96 * world["return_se"], mean + 1.96 * world["return_se"])
            row |= {world["name"]: mean, f"{world['name']}_low": low, f"{world['name']}_high": high}
        if self._table is None:
            self._table = CsvLog(self._run / JUDGED, self._resumed_at)
        self._table.write(row)

    def _told(self, figures: dict[str, Any]) -> str:
        measure = self._measure
        mean = sum(row[measure.mean] for row in figures["worlds"]) / len(figures["worlds"])
        return f"{measure.name} {measure.plain.value(mean)}"
