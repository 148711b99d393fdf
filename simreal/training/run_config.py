"""The one schema of a run: what may stand in a YAML file, with defaults, ranges and units."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from envs.common.messages import near_file, nearest
from envs.common.safe_yaml import FileError, parse_yaml
from envs.common.safe_yaml import read_yaml as read_yaml_file
from envs.engines.gpu.options import GpuOptions
from envs.registry import make_task
from randomization.catalogue.table import package_of as package_of_quantity
from randomization.config import RandomizationConfig, first_problem
from simreal.common.errors import UserError
from simreal.common.trusted_code import module_of, use_current_folder
from simreal.learners.options import LearnerOptions, Strict
from simreal.learners.registry import AnyLearner, learner_names, options_class, package_of, pixel_learner
from simreal.vision.sensors.config import Sensors, cameras_of
from simreal.vision.sensors.pixels import Observation, camera_of

LearnerConfig = SerializeAsAny[Annotated[LearnerOptions, AnyLearner]]


class TrainConfig(Strict):
    """How long to train, and what to write down on the way."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    source: str | None = Field(
        None,
        alias="from",
        description="run of the same learner to begin with: its networks and normalizers; optimizer, experience and "
        "curriculum are new",
    )
    env_steps: int = Field(100_000, ge=1, description="environment steps in all")
    log_interval: int = Field(2_000, ge=1, description="environment steps between rows of metrics.csv and adr.csv")
    checkpoint_interval_s: float = Field(
        120.0, gt=0, description="seconds between checkpoints; more where writing one takes more than a hundredth of it"
    )
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that are kept")
    keep: Literal["best", "last"] = Field(
        "best", description="the policy that is evaluated and exported: the best of those judged, or the last one"
    )
    judge_interval: int | None = Field(
        None, ge=1, description="environment steps between judgements for keep: best; null: seldom enough to be cheap"
    )
    judge_episodes: int = Field(50, ge=10, description="episodes in each world of a judgement")
    overlap: bool = Field(
        False, description="make updates beside the next steps, which then follow the policy before them"
    )
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        ("tensorboard",), description="where curves go beside metrics.csv and adr.csv"
    )
    torch_threads: int | None = Field(
        None, ge=1, le=1024, description="threads of an update; null: as many as pay at present"
    )


class EvaluateConfig(Strict):
    """The evaluation that ends a run, and what `simreal evaluate` does unless told otherwise."""

    episodes: int = Field(100, ge=1, description="fresh episodes in every world")
    num_envs: int | None = Field(None, ge=1, description="episodes played at a time; null chooses a good number")
    seed: int = Field(1_000_003, ge=0, description="of the episodes; training never plays these")
    worlds: tuple[str, ...] = Field(
        ("nominal", "trained"), min_length=1, description="names or YAML files, see docs/evaluate.md"
    )


class GpuConfig(Strict):
    """The GPU engine."""

    contacts_per_env: int | None = Field(
        None, ge=1, description="room for contacts, on average over environments; null chooses from the model"
    )
    constraints_per_env: int | None = Field(
        None, ge=1, description="room for rows of constraints in each environment; null chooses from the model"
    )
    solver: Literal["newton", "cg"] | None = Field(
        None, description="replaces the model's constraint solver; needed where that is PGS"
    )
    deterministic: bool = Field(False, description="the same bits in every run on a GPU, at some cost in speed")

    def options(self) -> GpuOptions:
        """These settings as the engine takes them."""
        return GpuOptions(**self.model_dump())


class RunConfig(Strict):
    """One run, complete."""

    task: str = Field(description="an id of `simreal envs`, module:Class, or gymnasium:ID")
    task_options: dict[str, Any] = Field(default_factory=dict, description="arguments of the task")
    engine: Literal["auto", "cpu", "gpu"] = Field("auto", description="physics engine")
    num_envs: int = Field(16, ge=1, le=1_000_000, description="environments stepped together")
    seed: int = Field(0, ge=0, lt=2**63, description="of every random draw")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the learner runs")
    threads: int | None = Field(None, ge=1, description="physics threads; null takes all processors")
    gpu: GpuConfig = GpuConfig()  # pyright: ignore[reportCallIssue]
    learner: LearnerConfig
    randomization: RandomizationConfig = RandomizationConfig()  # pyright: ignore[reportCallIssue]
    sensors: Sensors = Field(default_factory=dict, description="component: estimator:RUN, which reads it from pictures")
    observation: Observation = Field(
        None, description="what the policy reads: state, pixels, or a mapping that says how pictures are taken"
    )
    train: TrainConfig = TrainConfig()  # pyright: ignore[reportCallIssue]
    evaluate: EvaluateConfig = EvaluateConfig()  # pyright: ignore[reportCallIssue]

    @model_validator(mode="after")
    def _counts_something(self) -> RunConfig:
        """A learner that acts in no environment neither takes steps there nor tells a curriculum how it did."""
        name = self.learner.algorithm
        if self.learner.COUNTS == "env_steps":
            return self
        if self.randomization.sampler in ("adr", "doraemon"):
            raise ValueError(
                f"randomization.sampler: {name} plays no episodes that {self.randomization.sampler} could judge; "
                "expected manual or none"
            )
        if self.train.env_steps != TrainConfig.model_fields["env_steps"].default:
            raise ValueError(f"train.env_steps: {name} takes no steps; its length is learner.{self.learner.COUNTS}")
        return self

    def to_yaml(self) -> str:
        """The complete configuration, defaults included."""
        packages = {("learner", self.learner.algorithm): package_of(self.learner.algorithm)}
        for label, entry in self.randomization.parameters.items():
            name = str(entry.get("quantity", label))
            packages["quantity", name] = package_of_quantity(name)
        origin = "".join(f"# {k} {n!r} is of Python package {p!r}\n" for (k, n), p in packages.items() if p is not None)
        return origin + yaml.safe_dump(json.loads(self.model_dump_json()), sort_keys=False)


def shipped_configs() -> dict[str, Path]:
    """Configurations that come with simreal, by name (those for worlds as worlds/NAME)."""
    folder = Path(__file__).resolve().parents[2] / "configs"
    if not folder.is_dir():
        folder = Path(str(files("simreal"))) / "configs"
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str, folder: str = "") -> Path:
    """A YAML file given by path, or the name of a shipped one in `folder`. Raises UserError with the nearest name."""
    path = Path(name)
    if path.is_file():
        return path
    prefix = f"{folder}/" if folder else ""
    shipped = {key.removeprefix(prefix): p for key, p in shipped_configs().items() if key.startswith(prefix)}
    if not folder:
        shipped = {key: p for key, p in shipped.items() if "/" not in key}
    if name in shipped:
        return shipped[name]
    hint = nearest(name, shipped) or (near_file(path) if path.suffix or len(path.parts) > 1 else "")
    raise UserError(f"{name}: no such file{hint}; shipped: {', '.join(shipped) or 'none'}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises UserError in one line."""
    try:
        return read_yaml_file(path)
    except FileError as error:
        raise UserError(f"{path}: {error}") from None


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The document with `key.sub=value` settings applied; values are YAML. A key with dots of its own, as a label may
    have, is found where it is in the document already."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override}: expected key.sub=value")
        node, rest = document, key.split(".")
        last = _first_key(node, rest)
        while rest:
            if not isinstance(node.setdefault(last, {}), dict):
                raise UserError(f"{override}: {last} is not a mapping")
            node = node[last]
            last = _first_key(node, rest)
        try:
            node[last] = parse_yaml(value)
        except FileError:
            raise UserError(f"{override}: {value!r} is not valid YAML") from None
    return document


def _first_key(node: Mapping[str, Any], rest: list[str]) -> str:
    """The longest beginning of a path that is a key of a mapping, or its first part; it is taken off `rest`."""
    known = (size for size in range(len(rest), 1, -1) if ".".join(rest[:size]) in node)
    size = next(known, 1)
    first, rest[:] = ".".join(rest[:size]), rest[size:]
    return first


def parse_schema(document: Mapping[str, Any], source: str) -> RunConfig:
    """Validate keys and values of a document, whatever its task is. Raises UserError: source, key, what is wrong."""
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, RunConfig, _chosen(document))}") from None


def _chosen(document: Mapping[str, Any]) -> dict[str, type[BaseModel]]:
    """The model of a document's learner by where it stands in messages: its type is no part of the schema's."""
    learner = document.get("learner")
    name = learner.get("algorithm") if isinstance(learner, Mapping) else None
    return {f"learner.{name}": options_class(name)} if isinstance(name, str) and name in learner_names() else {}


def parse_config(document: Mapping[str, Any], source: str) -> RunConfig:
    """Validate a document, its task and its randomization. Raises UserError: source, key, what is wrong."""
    config = parse_schema(document, source)
    try:
        with cameras_of(config.sensors), camera_of(config.observation):
            task = make_task(config.task, **config.task_options)
        if config.observation is not None:
            pixel_learner(config.learner.algorithm)
            config.observation.layout(task)
        config.randomization.sampler_for(task)
        update: dict[str, Any] = {"randomization": config.randomization.resolved(task)}
        if task.actuator is not None:
            update["task_options"] = config.task_options | {"actuator": task.actuator.packed()}
        config = config.model_copy(update=update)
    except (ValueError, OSError) as error:  # OSError: a file that an option names
        raise UserError(f"{source}: {error}") from None
    return config


def load_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A configuration by path or shipped name. Raises UserError."""
    path = find_config(name)
    document = apply_overrides(read_yaml(path), overrides)
    if "targets" in document:
        raise UserError(f"{path}: is of an estimator, for `simreal estimate`; expected one of a policy, with a learner")
    if module_of(document.get("task")) is not None:
        use_current_folder()
    return parse_config(document, str(path))


def first_difference(before: Any, now: Any, key: str) -> str | None:
    """The first value of a configuration that is another one now, "key: is X, expected Y"; None where all are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = ((name, before.get(name), now.get(name)) for name in dict.fromkeys([*now, *before]))
        return next((f for name, a, b in pairs if (f := first_difference(a, b, f"{key}.{name}")) is not None), None)
    return None if before == now else f"{key}: is {now!r:.100}, expected {before!r:.100}"
