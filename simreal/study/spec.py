"""What may stand in a study's YAML file, and the runs that follow from it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from envs.common.messages import nearest
from envs.registry import make_task
from randomization.config import first_problem
from simreal.common.errors import UserError
from simreal.common.trusted_code import module_of, use_current_folder
from simreal.evaluation.worlds import GROUPS, find_world
from simreal.learners.options import ActorOptions
from simreal.training.run_config import (
    EvaluateConfig,
    RunConfig,
    Strict,
    apply_overrides,
    find_config,
    parse_config,
    read_yaml,
)
from simreal.training.run_directory import LoadedPolicy

_MAY_GROW = ("train", "evaluate")  # what may differ between an arm and the one that it continues


def different(values: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers as they are. Raises ValueError where one stands twice."""
    if len(set(values)) != len(values):
        raise ValueError(f"expected different numbers, got {list(values)}")
    return values


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class ArmSpec(Strict):
    """One way to train; it is trained once per seed."""

    config: str | dict[str, Any] | None = Field(
        None, description="configuration to start from, by name or written out; default: the study's"
    )
    continues: str | None = Field(None, description="arm whose finished runs are trained on, with more train.env_steps")
    starts_from: str | None = Field(
        None, description="arm whose finished runs give networks and normalizers to begin with, as train.from does"
    )
    set: dict[str, Any] = Field(default_factory=dict, description="key.sub: value, on top of the configuration's")


class WidenSpec(Strict):
    """ADR around frozen policies: the upper bound of the entropy of arms without ADR."""

    like: str = Field(description="arm whose ADR parameters, steps and thresholds are used")
    arms: tuple[str, ...] = Field(min_length=1, description="arms whose policies are frozen")
    episodes: int = Field(10_000, ge=1, description="budget for each policy")


class StudySpec(Strict):
    """A study, as its file describes it."""

    name: Name = Field(description="of the folder of results")
    description: str = Field("", description="what the study asks, for its report")
    config: str | dict[str, Any] | None = Field(
        None, description="configuration of every arm that names none: a file or a shipped one"
    )
    seeds: Annotated[tuple[Seed, ...], AfterValidator(different)] = Field((0, 1), min_length=1)
    evaluate: EvaluateConfig = EvaluateConfig()  # pyright: ignore[reportCallIssue]
    widen: WidenSpec | None = None
    arms: dict[Name, ArmSpec] = Field(min_length=1, description="by name, in the order of the table")


@dataclass(frozen=True)
class StudyArm:
    """An arm with its complete configuration, seed aside."""

    name: str
    continues: str | None
    starts_from: str | None  # of an arm that continues another: as that one
    config: RunConfig

    @property
    def after(self) -> str | None:
        """The arm whose runs have to be there before this one's can begin."""
        return self.continues or self.starts_from

    def with_seed(self, seed: int) -> RunConfig:
        """The configuration of one of its runs."""
        return self.config.model_copy(update={"seed": seed})


@dataclass(frozen=True)
class Study:
    """A study whose arms have all been found to be possible."""

    spec: StudySpec
    arms: dict[str, StudyArm]  # an arm comes after the one it continues or starts from

    @property
    def task(self) -> str:
        """Id of the task, which all arms share."""
        return next(iter(self.arms.values())).config.task

    def trained_steps(self, arm: StudyArm) -> int:
        """Environment steps that one run of an arm adds to those of the arm it continues."""
        before = 0 if arm.continues is None else self.arms[arm.continues].config.train.env_steps
        return arm.config.train.env_steps - before

    def budget(self, arm: StudyArm) -> int:
        """Environment steps that the policy of an arm has been trained for, with those of what it starts from."""
        before = 0 if arm.starts_from is None else self.budget(self.arms[arm.starts_from])
        return before + arm.config.train.env_steps

    def to_yaml(self) -> str:
        """The study with every configuration written out, so that the file depends on no other file."""
        document = json.loads(self.spec.model_dump_json(exclude={"config", "arms"}))
        document["arms"] = {}
        for arm in self.arms.values():
            config = json.loads(arm.config.model_dump_json(exclude={"seed", "evaluate"}))
            if arm.continues is None:
                document["arms"][arm.name] = {"config": config}
                if arm.starts_from is not None:
                    document["arms"][arm.name]["starts_from"] = arm.starts_from
            else:
                document["arms"][arm.name] = {"continues": arm.continues, "set": {"train": config["train"]}}
        return yaml.safe_dump(document, sort_keys=False)

    def warnings(self) -> list[str]:
        """What keeps the study from showing what randomization is worth."""
        nominal = [arm for arm in self.arms.values() if is_control(arm.config)]
        begun = {arm.after for arm in self.arms.values()}
        controls = [arm for arm in nominal if arm.name not in begun] or nominal  # the others lead to these
        found = []
        if not controls:
            found.append("no arm trains without randomization (randomization.sampler: none): nothing to compare with")
        longest = max(map(self.budget, self.arms.values()))
        found += [
            f"{arm.name} trains for {self.budget(arm):,} steps, the longest arm for {longest:,}: "
            "no comparison at equal budgets"
            for arm in controls
            if self.budget(arm) < longest
        ]
        if len(self.spec.seeds) < 2:
            found.append("one seed: differences between arms may be differences between trainings")
        return found


def is_control(config: RunConfig) -> bool:
    """Whether a configuration trains in the nominal world only."""
    return config.randomization.sampler == "none" or not config.randomization.parameters


def load_study(name: str) -> Study:
    """A study by path or shipped name, every arm parsed. Raises UserError: file, key, what is wrong."""
    path = find_config(name, folder="studies")
    try:
        spec = StudySpec.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, StudySpec)}") from None
    arms: dict[str, StudyArm] = {}
    for key in _in_order(spec, path):
        arms[key] = _resolve(key, spec, arms, path)
    tasks = sorted({arm.config.task for arm in arms.values()})
    if len(tasks) > 1:
        raise UserError(f"{path}: arms: are of different tasks: {', '.join(tasks)}")
    _check_worlds(spec.evaluate.worlds, arms, path)
    if spec.widen is not None:
        _check_widen(spec.widen, arms, path)
    return Study(spec, {key: arms[key] for key in _in_order(spec, path)})


def _in_order(spec: StudySpec, path: Path) -> list[str]:
    """Names of arms, each after the one that it continues or starts from.

    Raises UserError for a name that is none, for both keys in one arm, or for a circle.
    """
    order: list[str] = []
    for name in spec.arms:
        chain: list[str] = []
        at: str | None = name
        while at is not None and at not in order:
            arm = spec.arms[at]
            key, following = ("starts_from", arm.starts_from) if arm.starts_from else ("continues", arm.continues)
            if at in chain:
                raise UserError(f"{path}: arms.{name}.{key}: goes round in a circle: {', '.join(chain)}")
            chain.append(at)
            if arm.starts_from and arm.continues:
                raise UserError(f"{path}: arms.{at}.starts_from: an arm that continues another begins as that one did")
            if following is not None and following not in spec.arms:
                hint = nearest(following, spec.arms)
                raise UserError(f"{path}: arms.{at}.{key}: no arm {following!r}{hint}")
            at = following
        order += reversed(chain)
    return order


def _resolve(name: str, spec: StudySpec, before: Mapping[str, StudyArm], path: Path) -> StudyArm:
    """An arm's complete configuration. Raises UserError."""
    where = f"{path}: arms.{name}"
    arm = spec.arms[name]
    chain = [arm]
    while chain[-1].continues is not None:
        chain.append(spec.arms[chain[-1].continues])
    source = chain[-1].config or spec.config
    if any(link.config for link in chain[:-1]):
        raise UserError(f"{where}.config: an arm that continues another has its configuration")
    if source is None:
        raise UserError(f"{where}.config: missing, and the study has no config either")
    document = copy.deepcopy(source) if isinstance(source, dict) else read_yaml(find_config(source))
    for link in reversed(chain):
        for key, value in link.set.items():
            if key.partition(".")[0] in ("seed", "evaluate"):
                raise UserError(f"{where}.set.{key}: belongs to the whole study, see seeds and evaluate")
            apply_overrides(document, [f"{key}={yaml.safe_dump(value, default_flow_style=True)}"])
    document["evaluate"] = spec.evaluate.model_dump(mode="json")
    if module_of(document.get("task")) is not None:
        use_current_folder()
    config = parse_config(document, where)
    if arm.continues is not None:
        _check_continuation(config, before[arm.continues], where)
    if chain[-1].starts_from is not None and config.train.source is not None:
        raise UserError(f"{where}.set.train.from: the arm has starts_from, which says where each seed begins")
    if arm.starts_from is not None:
        _check_start(config, before[arm.starts_from], where)
    return StudyArm(name, arm.continues, chain[-1].starts_from, config)


def _check_continuation(config: RunConfig, before: StudyArm, where: str) -> None:
    """A longer training must be what an uninterrupted one would have been."""
    for key in RunConfig.model_fields:
        if key not in _MAY_GROW and getattr(config, key) != getattr(before.config, key):
            raise UserError(f"{where}.set: {key} differs from arm {before.name}, which it continues; only train may")
    if config.train.env_steps <= before.config.train.env_steps:
        raise UserError(
            f"{where}.set.train.env_steps: expected more than the {before.config.train.env_steps:,} of arm "
            f"{before.name}, got {config.train.env_steps:,}"
        )
    if config.learner.depends_on_length:
        schedules = get_args(type(config.learner).model_fields["lr_schedule"].annotation)
        others = " or ".join(repr(name) for name in schedules if name != "linear")
        raise UserError(
            f"{where}.continues: learner.lr_schedule 'linear' has ended at 0 in arm {before.name}; use {others}, or "
            "train the arm from its start"
        )


def _check_start(config: RunConfig, before: StudyArm, where: str) -> None:
    """Networks can only begin as others of the same task, kind and size."""
    if _networks(config) != _networks(before.config):
        raise UserError(f"{where}.starts_from: its task or its networks are others than those of arm {before.name}")


def _networks(config: RunConfig) -> tuple[Any, ...]:
    """What decides the shapes of a run's networks, but for the critic's view of a world, which may differ."""
    learner = config.learner
    sizes = tuple(getattr(learner, name, None) for name in ("hidden", "actor_hidden", "critic_hidden"))
    kind = learner.network() if isinstance(learner, ActorOptions) else None
    return config.task, learner.algorithm, sizes, kind


def _check_worlds(worlds: Sequence[str], arms: Mapping[str, StudyArm], path: Path) -> None:
    """Every world must be one that every arm's policy can be played in, long before there is a policy."""
    kinds = {is_control(arm.config): arm for arm in arms.values()}
    for arm in kinds.values():
        config = arm.config
        task = make_task(config.task, **config.task_options)
        parameters = config.randomization.sampler_for(task).parameters
        policy = LoadedPolicy(
            f"arm {arm.name}", config.task, act=lambda observation: observation, reset=lambda mask: None,
            parameters=parameters, entropy=None, config=config, task_options=config.task_options,
        )  # fmt: skip
        for world in worlds:
            if world not in GROUPS:
                try:
                    find_world(world, policy)
                except UserError as error:
                    raise UserError(f"{path}: evaluate.worlds: {error}") from None


def _check_widen(widen: WidenSpec, arms: Mapping[str, StudyArm], path: Path) -> None:
    for key, name in (("like", widen.like), *(("arms", name) for name in widen.arms)):
        if name not in arms:
            raise UserError(f"{path}: widen.{key}: no arm {name!r}{nearest(name, arms)}")
    sampler = arms[widen.like].config.randomization.sampler
    if sampler != "adr":
        raise UserError(f"{path}: widen.like: arm {widen.like} has randomization.sampler {sampler!r}, expected 'adr'")
