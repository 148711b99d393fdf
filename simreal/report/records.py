"""What a report is made from: the files of run directories, read and checked."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.registry import make_task
from envs.task import Task
from randomization.config import first_problem
from randomization.parameters import Parameter
from simreal.common.errors import UserError
from simreal.common.trusted_code import check_code
from simreal.evaluation.metrics import SUCCESSES, Metric, metric_of
from simreal.training.checkpoint import is_outdated
from simreal.training.monitoring.curriculum import Concern, concerns_of
from simreal.training.monitoring.metrics_log import JUDGED
from simreal.training.run_config import RunConfig
from simreal.training.run_directory import run_config

Columns = dict[str, list[float]]

_COUNTED = ("sweeps", "frames")  # what takes the place of steps, in a first column
Share = Annotated[float, Field(ge=0, le=1)]
GROUPS = {  # of worlds, in the order of tables
    "nominal": "nominal",
    "trained": "trained ranges",
    "held_out": "held out",
    "unmodelled": "unmodelled",
    "user": "other worlds",
}


class _Lenient(BaseModel):
    """A document that later versions may add to."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Samples(_Lenient):
    """Figures of every episode."""

    success: tuple[float, ...] = ()
    successes: tuple[float, ...] = ()
    returns: tuple[float, ...] = Field((), alias="return")
    actions: tuple[float, ...] = ()

    def agrees(self, other: Samples) -> bool:
        """Whether the episodes that both have are the same, to the last action."""
        count = min(len(self.actions), len(other.actions))
        mine, theirs = ([figures[:count] for figures in vars(samples).values()] for samples in (self, other))
        return count > 0 and mine == theirs


class WorldFigures(_Lenient):
    """How a policy did in one world."""

    name: str
    episodes: int = Field(ge=1)
    success_rate: Share
    success_ci95: tuple[Share, Share]
    return_mean: float
    return_se: float
    return_median: float
    return_cvar10: float
    # Documents written before tasks counted successes have none of the following.
    successes_mean: float | None = None
    successes_median: float | None = None
    successes_ci95: tuple[float, float] | None = None
    samples: Samples = Samples.model_validate({})
    group: str = ""

    @property
    def kind(self) -> str:
        """A key of GROUPS; documents without groups know two worlds by name."""
        if self.group in GROUPS:
            return self.group
        return self.name if self.name in ("nominal", "trained") else "user"


class Evaluation(_Lenient):
    """RUN/evaluation.json."""

    task: str
    policy: str
    adr_entropy_npd: float | None = None
    checkpoint: str | None = None  # that it was measured of
    worlds: tuple[WorldFigures, ...]

    def without_effect(self) -> list[str]:
        """Names of worlds in which every episode was as in the nominal one."""
        nominal = next((world.samples for world in self.worlds if world.kind == "nominal"), None)
        return [
            world.name for world in self.worlds
            if nominal is not None and world.kind not in ("nominal", "trained") and world.samples.agrees(nominal)
        ]  # fmt: skip


class Marginal(_Lenient):
    """Success against one parameter, the others as in training."""

    name: str
    unit: str = ""
    trained: tuple[float, float] | None = None
    values: tuple[float, ...] = Field(min_length=1)
    success: tuple[Share, ...]
    ci95: tuple[tuple[Share, Share], ...] = ()
    episodes: int = 0

    @model_validator(mode="after")
    def _as_long(self) -> Marginal:
        if len(self.success) != len(self.values) or (self.ci95 and len(self.ci95) != len(self.values)):
            raise ValueError(f"{self.name}: values, success and ci95 differ in length")
        return self


class Pair(_Lenient):
    """Success against two parameters."""

    x: str
    y: str
    xs: tuple[float, ...] = Field(min_length=1)
    ys: tuple[float, ...] = Field(min_length=1)
    success: tuple[tuple[Share, ...], ...]  # rows are ys
    episodes: int = 0

    @model_validator(mode="after")
    def _as_large(self) -> Pair:
        if len(self.success) != len(self.ys) or any(len(row) != len(self.xs) for row in self.success):
            raise ValueError(f"{self.x}, {self.y}: success is not a table of {len(self.ys)} x {len(self.xs)}")
        return self


class Box(_Lenient):
    """The largest ranges in which success is proven to be at least `success`."""

    success: Share
    confidence: Share = 0.95
    ranges: dict[str, tuple[float, float]]
    episodes: int = 0
    successes: int = 0
    lower_bound: Share = 0.0


class Envelope(_Lenient):
    """RUN/envelope.json."""

    threshold: Share | None = None
    criterion: str | None = None  # what counts as success there, if not the task's own
    checkpoint: str | None = None  # that it was measured of
    parameters: tuple[Marginal, ...] = ()
    pairs: tuple[Pair, ...] = ()
    box: Box | None = None


class Widened(_Lenient):
    """RUN/widened.json, see simreal/study/adr_probe.py."""

    entropy_npd: float
    episodes: int
    stopped: str = ""


class Difference(_Lenient):
    """How much better policy a is than b in one world, in the same episodes."""

    world: str
    a: str
    b: str
    success: float
    success_ci95: tuple[float, float]
    successes: float | None = None
    successes_ci95: tuple[float, float] | None = None
    # `return` is no name in Python
    gain: float = Field(alias="return")
    return_ci95: tuple[float, float]

    def of(self, measure: Metric) -> tuple[float, tuple[float, float]] | None:
        """The difference by a measure, and its interval; None in a document that does not know it."""
        found = self.model_dump(by_alias=True)
        value, interval = found[measure.name], found[f"{measure.name}_ci95"]
        return None if value is None or interval is None else (value, interval)


class Comparison(_Lenient):
    """What `simreal evaluate A B --json` writes."""

    policies: tuple[Evaluation, ...]
    differences: tuple[Difference, ...]


class _StudyArm(_Lenient):
    name: str
    runs: tuple[str, ...] = Field(min_length=1)


class StudyDocument(_Lenient):
    """What the report needs of a study's study.json."""

    name: str
    description: str = ""
    task: str
    arms: tuple[_StudyArm, ...] = Field(min_length=1)

    def load_arms(self, folder: Path) -> list[Arm]:
        """The arms with the runs in the study's folder. Raises UserError."""
        return [Arm(arm.name, [load_run(folder / run) for run in arm.runs]) for arm in self.arms]


class FoundDefect(_Lenient):
    """Something wrong with a simulation."""

    kind: str
    of: str
    evidence: str
    remedy: str


class Health(_Lenient):
    """RUN/health.json: a short look at the simulation before training."""

    findings: tuple[FoundDefect, ...]
    accepted: tuple[FoundDefect, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run directory, as far as it has been written."""

    name: str
    path: Path
    config: RunConfig
    measure: Metric  # what the task is judged by
    parameters: list[Parameter]  # randomized in training, as configured
    metrics: Columns
    adr: Columns
    concerns: list[Concern]  # of its curriculum
    evaluation: Evaluation | None
    envelope: Envelope | None
    widened: Widened | None
    health: Health | None  # of the simulation; None where nobody looked
    versions: dict[str, str]

    @property
    def unit(self) -> str:
        """What `steps` counts: steps of environments, or sweeps."""
        counts = self.config.learner.COUNTS
        return "steps" if counts == "env_steps" else counts

    @property
    def steps(self) -> int:
        """Environment steps, or sweeps, that the logs reach."""
        return int((self.metrics.get("env_steps") or [0])[-1])

    @property
    def seconds(self) -> float | None:
        """Of training."""
        return (self.metrics.get("seconds") or [None])[-1]

    @property
    def entropy(self) -> float | None:
        """Of the final ranges, nats per dimension; None without randomization."""
        if self.evaluation is not None and self.evaluation.adr_entropy_npd is not None:
            return self.evaluation.adr_entropy_npd
        if not self.parameters:
            return None
        return (self.adr.get("entropy_npd") or [None])[-1]

    def final_range(self, parameter: str) -> tuple[float, float] | None:
        """The range of a parameter at the end of training; None where it was not logged."""
        low, high = (self.adr.get(f"{parameter}.{side}") for side in ("lower", "upper"))
        return (low[-1], high[-1]) if low and high else None


@dataclass(frozen=True)
class Arm:
    """Runs that differ by their seed alone."""

    name: str
    runs: list[Run]

    @property
    def first(self) -> Run:
        """Its run with the first seed: configuration, task and parameters are those of all of them."""
        return self.runs[0]

    @property
    def randomized(self) -> bool:
        """Whether it trained with randomized parameters; a control did not."""
        return bool(self.first.parameters)


def load_run(path: Path) -> Run:
    """Read a run directory. Raises UserError, naming the run or the file that is wrong."""
    if not path.is_dir():
        raise UserError(f"{path}: no such run; expected a run directory of `simreal train`")
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: has no config.yaml; expected a run directory of `simreal train`")
    config = run_config(path)
    check_code(config.task, str(path / "config.yaml"), made=path)
    task = make_task(config.task, **config.task_options)
    measure, sampler = metric_of(task), config.randomization.sampler_for(task)
    metrics, adr = read_columns(path / "metrics.csv"), read_columns(path / "adr.csv")
    evaluation = _present(path, read_document(path / "evaluation.json", Evaluation))
    if measure is SUCCESSES and evaluation is not None:
        _check_counted(path / "evaluation.json", evaluation)
    return Run(
        name=path.resolve().name,
        path=path,
        config=config,
        measure=measure,
        parameters=[_with_unit(p, task) for p in sampler.parameters],
        metrics=metrics,
        adr=adr,
        concerns=concerns_of(sampler, adr, metrics, read_columns(path / JUDGED), config.train.env_steps),
        evaluation=evaluation,
        envelope=_present(path, read_document(path / "envelope.json", Envelope)),
        widened=read_document(path / "widened.json", Widened),
        health=read_document(path / "health.json", Health),
        versions=_versions(path / "bundle" / "policy.json"),
    )


_Measured = TypeVar("_Measured", Evaluation, Envelope)


def _present(run: Path, found: _Measured | None) -> _Measured | None:
    """A document, unless it is of an earlier checkpoint."""
    return None if found is None or is_outdated(run, found.checkpoint) else found


def _check_counted(path: Path, evaluation: Evaluation) -> None:
    """Raise UserError unless the successes of every episode are there."""
    for i, w in enumerate(evaluation.worlds):
        figures = (w.successes_mean, w.successes_median, w.successes_ci95)
        if None in figures or len(w.samples.successes) != w.episodes:
            raise UserError(
                f"{path}: worlds.{i}: expected successes_mean, successes_median, successes_ci95 and samples.successes "
                f"of {w.episodes} episodes, as `simreal evaluate --json` writes them"
            )


def _with_unit(parameter: Parameter, task: Task) -> Parameter:
    """Errors of sensors have the unit of what they measure."""
    units = {c.unit for c in task.components("policy") if c.name in parameter.targets}
    return replace(parameter, unit=units.pop()) if parameter.unit == "unit" and len(units) == 1 else parameter


def read_figures(path: Path) -> Evaluation | Comparison:
    """What `simreal evaluate --json` wrote, of one policy or of several. Raises UserError, naming what is wrong."""
    try:
        several = "policies" in json.loads(path.read_text())
    except (ValueError, OSError, RecursionError, TypeError):
        several = True  # the reader says what is wrong
    found = read_document(path, Comparison if several else Evaluation)
    assert found is not None
    return found


def read_columns(path: Path) -> Columns:
    """Columns of a CSV file; empty cells are NaN; none if there is no file. Raises UserError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), list(reader.fieldnames or ["env_steps"])
        if "env_steps" not in names and names[0] not in _COUNTED:
            raise ValueError
        columns = {name: [float(row[name] or "nan") for row in rows] for name in names} if rows else {}
        return {"env_steps": columns.pop(names[0]), **columns} if columns and names[0] in _COUNTED else columns
    except (OSError, ValueError, TypeError, csv.Error):
        raise UserError(f"{path}: damaged; expected a table of numbers that `simreal train` wrote") from None


_Document = TypeVar("_Document", bound=BaseModel)


def read_document(path: Path, model: type[_Document]) -> _Document | None:
    """A JSON file of a run; None if there is none. Raises UserError, naming the key that is wrong."""
    if not path.is_file():
        return None
    try:
        return model.model_validate(json.loads(path.read_text()))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, model)}") from None
    except (ValueError, OSError, RecursionError):
        raise UserError(f"{path}: damaged; expected JSON that simreal wrote") from None


def _versions(contract: Path) -> dict[str, str]:
    """Versions that the exported bundle states, as far as they can be read: they are shown, nothing depends on them."""
    try:
        document: Any = json.loads(contract.read_text())
        return {str(key): str(value) for key, value in document["versions"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
