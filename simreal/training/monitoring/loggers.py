"""Where curves go beside a run's own tables: TensorBoard, Weights & Biases, MLflow (`train.loggers`).

A logger of another package must not cost a training: what it raises while a run goes on is said once, and the run goes
on without it. A run that is resumed goes on in the same record there; what it has shown already is not shown again.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from envs.common.messages import warn_once
from simreal.common.atomic_files import cannot_write, write_text, writing
from simreal.common.errors import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

STATE = "loggers.json"  # in a run's directory: under which names others know it
_FILES = ("config.yaml", "metrics.csv", "adr.csv", "judged.csv", "evaluation.json", "report.html")
_STRANGE = re.compile(r"[^\w\-./ ]")  # in names of curves
_MOST_SETTINGS = 200


class Logger(ABC):
    """Takes the curves of one run.

    Args:
        run: its directory.
        settings: its configuration.
        resume_step: where it goes on; 0 of a new run.
    """

    name: ClassVar[str]
    module: ClassVar[str]  # that has to be importable
    extra: ClassVar[str] = ""  # of this package, that brings it

    def __init__(self, run: Path, settings: Mapping[str, Any], resume_step: int) -> None:
        self.run, self.settings, self.resume_step = run, settings, resume_step

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves at a step."""

    def hand_over(self, figures: Mapping[str, float], files: Sequence[Path]) -> str | None:
        """Final figures and files of a finished run. Returns where they are, in words."""
        return None

    @abstractmethod
    def close(self, more: bool = False) -> None:
        """Training is over; `more`: its results come from this process."""

    @property
    def state(self) -> dict[str, Any]:
        """What was remembered of this logger's record of the run."""
        try:
            return json.loads((self.run / STATE).read_text()).get(self.name, {})
        except (OSError, ValueError, AttributeError):
            return {}

    def remember(self, state: Mapping[str, Any]) -> None:
        """Remember it for a process that goes on with the run."""
        try:
            everything = json.loads((self.run / STATE).read_text())
        except (OSError, ValueError):
            everything = {}
        write_text(self.run / STATE, json.dumps({**everything, self.name: dict(state)}, indent=1) + "\n")


class TensorBoard(Logger):
    """Event files in the run's directory; the disk's refusals are the run's own."""

    name, module = "tensorboard", "tensorboard"

    @cached_property
    def _board(self) -> SummaryWriter:
        """Made with the first row: TensorBoard takes a tenth of a second to import."""
        from torch.utils.tensorboard.writer import SummaryWriter

        # It writes in a thread; what the disk says there is raised again here, by its next call.
        self._hook, threading.excepthook = threading.excepthook, self._caught
        with writing(self.run):
            return SummaryWriter(str(self.run), purge_step=self.resume_step)

    def _caught(self, arguments: threading.ExceptHookArgs) -> None:
        if not isinstance(arguments.exc_value, OSError):
            self._hook(arguments)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with writing(self.run):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def close(self, more: bool = False) -> None:
        if "_board" not in vars(self):
            return
        try:
            self._board.close()
        except OSError as refused:
            raise cannot_write(self.run, refused) from None
        finally:
            threading.excepthook = self._hook


class Wandb(Logger):
    """Weights & Biases; offline where nobody is logged in. `WANDB_PROJECT` and `WANDB_MODE` are heeded."""

    name, module, extra = "wandb", "wandb", "wandb"

    @cached_property
    def _record(self) -> Any:
        import wandb

        name = self.run.resolve().name
        known = self.state.get("id") or f"{_STRANGE.sub('-', name)}-{uuid.uuid4().hex[:8]}"
        self._shown = int(self.state.get("step", -1))
        self._mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        if wandb.run is not None and wandb.run.id == known:
            return wandb.run  # of the training before
        record = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "simreal"), name=name, id=known, dir=str(self.run), resume="allow",
            mode=self._mode, config=dict(self.settings), settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        self.remember({"id": known, "step": self._shown})
        return record

    def write(self, step: int, values: Mapping[str, float]) -> None:
        record = self._record
        if step > self._shown:
            record.log({name: value for name, value in values.items() if math.isfinite(value)}, step=step)
            self._shown = step

    def hand_over(self, figures: Mapping[str, float], files: Sequence[Path]) -> str | None:
        import wandb

        record = self._record
        record.summary.update(dict(figures))
        artifact = wandb.Artifact(_STRANGE.sub("-", record.name or "run").replace("/", "-"), type="run")
        for path in files:
            artifact.add_dir(str(path), path.name) if path.is_dir() else artifact.add_file(str(path), path.name)
        record.log_artifact(artifact)
        folder, url = Path(record.dir).parent, record.url
        self.close()
        return f"wandb sync {folder}   shows it, after wandb login" if self._mode == "offline" else str(url)

    def close(self, more: bool = False) -> None:
        if "_record" in vars(self):
            self.remember({"id": self._record.id, "step": self._shown})
            if not more:
                self._record.finish()


class MLflow(Logger):
    """MLflow: the server that `MLFLOW_TRACKING_URI` names, or a database in the run's directory."""

    name, module, extra = "mlflow", "mlflow", "mlflow"

    @cached_property
    def _client(self) -> Any:
        from mlflow.tracking import MlflowClient

        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.run / 'mlflow.db').resolve()}"
        return MlflowClient(tracking_uri=self._uri)

    @cached_property
    def _id(self) -> str:
        """Of the record of this run, begun or gone on with."""
        client, known = self._client, self.state.get("id")
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "simreal")
            experiment = client.get_experiment_by_name(name)
            here = None if os.environ.get("MLFLOW_TRACKING_URI") else (self.run / "mlflow_files").resolve().as_uri()
            number = client.create_experiment(name, artifact_location=here) if experiment is None else (
                experiment.experiment_id
            )  # fmt: skip
            known = client.create_run(number, run_name=self.run.resolve().name).info.run_id
            self.remember({"id": known})
            self._settings(known)
        else:
            client.update_run(known, status="RUNNING")
        shown = client.get_metric_history(known, _CLOCK)
        self._shown = max((int(point.step) for point in shown), default=-1)
        return known

    def _settings(self, known: str) -> None:
        from mlflow.entities import Param

        flat = list(_flat(self.settings))[:_MOST_SETTINGS]
        self._client.log_batch(known, params=[Param(name, str(value)[:500]) for name, value in flat])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        known = self._id
        if step <= self._shown:
            return
        now, finite = time.time_ns() // 1_000_000, {k: v for k, v in values.items() if math.isfinite(v)}
        points = [Metric(_STRANGE.sub("_", name), float(value), now, step) for name, value in finite.items()]
        self._client.log_batch(known, metrics=points)
        self._shown = step

    def hand_over(self, figures: Mapping[str, float], files: Sequence[Path]) -> str | None:
        from mlflow.entities import Metric

        known, now = self._id, time.time_ns() // 1_000_000
        points = [Metric(_STRANGE.sub("_", name), float(value), now, 0) for name, value in figures.items()]
        self._client.log_batch(known, metrics=points)
        for path in files:
            if path.is_dir():
                self._client.log_artifacts(known, str(path), path.name)
            else:
                self._client.log_artifact(known, str(path))
        self._client.set_terminated(known)
        return f"mlflow ui --backend-store-uri {self._uri}   shows it"

    def close(self, more: bool = False) -> None:
        """It has written all there is."""


_CLOCK = "train/seconds"  # the curve that every row has a point of
KINDS: dict[str, type[Logger]] = {kind.name: kind for kind in (TensorBoard, Wandb, MLflow)}


def check_loggers(names: Sequence[str]) -> None:
    """Raise UserError for one whose package is not installed."""
    for name in names:
        kind = KINDS[name]
        if find_spec(kind.module) is None:
            raise UserError(
                f"train.loggers: {name} is not installed; pip install 'simreal[{kind.extra}]', or leave it out"
            )


class Loggers:
    """The loggers of a run that have not failed.

    Args:
        names: keys of `KINDS`.
        run, settings, resume_step: see `Logger`.
    """

    def __init__(self, names: Sequence[str], run: Path, settings: Mapping[str, Any], resume_step: int = 0) -> None:
        self._run, self._all = run, [KINDS[name](run, settings, resume_step) for name in names]

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves at a step. Raises UserError where the run's own disk refuses."""
        for logger in list(self._all):
            with self._spared(logger):
                logger.write(step, values)

    def hand_over(self, figures: Mapping[str, float]) -> list[str]:
        """Final figures and what a finished run has left; where it is to be seen now."""
        files = [path for name in _FILES if (path := self._run / name).is_file()]
        files += sorted((*self._run.glob("*.mp4"), *self._run.glob("*.gif")))
        files += [path] if (path := self._run / "bundle").is_dir() else []
        said: list[str] = []
        for logger in list(self._all):
            with self._spared(logger):
                if (text := logger.hand_over(figures, files)) is not None:
                    said.append(text)
        return said

    def close(self, more: bool = False) -> None:
        """Training is over; `more`: its results come from this process. Raises UserError as `write` does."""
        for logger in list(self._all):
            with self._spared(logger):
                logger.close(more)

    def _spared(self, logger: Logger) -> _Spared:
        return _Spared(logger, self._all)


class _Spared:
    """Keeps a run from what a logger raises: it is told once, and the logger gets nothing more."""

    def __init__(self, logger: Logger, among: list[Logger]) -> None:
        self._logger, self._among = logger, among

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if error is None or not isinstance(error, Exception) or isinstance(self._logger, TensorBoard):
            return False
        self._among.remove(self._logger)
        first = (str(error).splitlines() or [""])[0][:200]
        warn_once(f"train.loggers: {self._logger.name}: {type(error).__name__}: {first}; the run goes on without it")
        return True


def final_figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The means of evaluate's JSON, by world and measure."""
    return {
        f"evaluation/{world['name']}/{key}": float(world[key])
        for world in evaluation["worlds"] for key in ("success_rate", "return_mean", "successes_mean")
    }  # fmt: skip


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a configuration, by their dotted names."""
    for key, value in settings.items():
        name = _STRANGE.sub("_", f"{prefix}{key}")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
