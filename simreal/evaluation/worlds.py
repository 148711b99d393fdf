"""The worlds that policies are evaluated in: by name, by group, or as a user's YAML file. See docs/evaluate.md."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field, ValidationError

from envs.common.messages import near_file, nearest
from envs.engines.base import EngineError
from envs.engines.bridge.simulator import KINDS, check_installed
from envs.environment import Environment
from envs.task import Task
from randomization.catalogue.table import QUANTITIES
from randomization.changes import Changing
from randomization.config import first_problem, randomization_config
from randomization.parameters import Parameter, RandomizationError
from randomization.samplers.base import Extremes, Manual, Sampler
from randomization.targets.names import object_places
from simreal.common.errors import UserError
from simreal.evaluation.changes import ChangeSpec, changing
from simreal.evaluation.model_variants import ModelVariant, PartsVariant, Physics
from simreal.training.build import EngineName
from simreal.training.run_config import Strict, find_config, read_yaml, shipped_configs
from simreal.training.run_directory import LoadedPolicy
from simreal.vision.sensors.config import SensorConfig, Sensors, cameras_of

Group = Literal["nominal", "trained", "held_out", "unmodelled", "user"]
GENERATED = ("nominal", "trained", "range", "extremes", "extremes_each", *KINDS)
GROUPS = ("held_out", "unmodelled")


class WorldFile(Strict):
    """A world in a YAML file."""

    name: str | None = Field(None, description="in tables; the file's name where left out")
    description: str = ""
    group: Literal["held_out", "unmodelled", "user"] = Field("user", description="the kind of claim it supports")
    tasks: str | tuple[str, ...] = Field("*", description="ids or patterns of tasks that it is for")
    engine: EngineName = Field("cpu", description="physics engine; the CPU's gives the same figures on every machine")
    physics: Physics = Physics()  # pyright: ignore[reportCallIssue]
    model: PartsVariant = PartsVariant()
    randomization: dict[str, Any] | None = Field(None, description="as in a run's configuration, with fixed ranges")
    extremes: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="label: outer ends of what lies around the parameter's range"
    )
    one_at_a_time: bool = Field(False, description="in each episode one parameter, chosen at random, is extreme")
    changes: tuple[ChangeSpec, ...] = Field((), description="what happens to parameters within an episode")
    sensors: Sensors | None = Field(None, description="component: estimator:RUN; null: the sensors of the training")

    def fits(self, task_id: str) -> bool:
        """Whether the world is for a task."""
        patterns = (self.tasks,) if isinstance(self.tasks, str) else self.tasks
        return any(fnmatch.fnmatchcase(task_id, pattern) for pattern in patterns)


@dataclass(frozen=True)
class World:
    """A distribution of worlds to evaluate in."""

    name: str
    sampler: Sampler
    group: Group = "user"
    variant: ModelVariant = field(default_factory=ModelVariant)
    engine: EngineName = "cpu"
    sensors: Mapping[str, SensorConfig] | None = None  # None: those of the policy's training

    def make_environment(self, policy: LoadedPolicy, num_envs: int, seed: int) -> Environment:
        """Environments of the policy's task in this world."""
        return policy.make_environment(num_envs, self.sampler, seed, self.engine, self.variant, self.sensors)

    def signature(self) -> str:
        """A text that two worlds share if episodes of one number are alike in both, and can be compared in pairs."""
        sampler, changes = self.sampler, ()
        if isinstance(sampler, Changing):
            sampler, changes = sampler.begins, sampler.changes
        drawn = [(p.quantity, p.targets, p.limits, p.distribution, p.group) for p in sampler.parameters]
        inner = [getattr(sampler, name).tolist() for name in ("inner", "extreme") if hasattr(sampler, name)]
        one = getattr(sampler, "one_at_a_time", False)
        seen = () if self.sensors is None else (self.sensors,)
        return repr((drawn, inner, one, self.variant, self.engine, changes, *seen))

    @property
    def in_mujoco(self) -> World:
        """The same world on the CPU engine."""
        return replace(self, engine="cpu")


def find_world(name: str, policy: LoadedPolicy, ranges_of: LoadedPolicy | None = None) -> World:
    """One world, checked against the policy's task.

    Args:
        name: of a generated world ("nominal", "trained", "range", "extremes", "extremes_each", "extremes:PARAMETER";
            the nominal one in another simulator: "drake", "pybullet", "newton"), of a shipped one, or a YAML file.
        policy: to be evaluated.
        ranges_of: whose trained ranges "range" and "extremes" are about; None: the policy's own.

    Raises:
        UserError: naming the world and what is wrong with it.
    """
    if _is_generated(name):
        kind, _, parameter = name.partition(":")
        world = _generated(kind, parameter, policy, ranges_of or policy)
    else:
        path = _find_file(name)
        document = _read(path)
        if not document.fits(policy.task_id):
            raise UserError(f"{path}: is for {_listed(document.tasks)}, but {policy.name} is of {policy.task_id}")
        world = _from_file(path, document, policy)
    try:
        world.make_environment(policy, 1, seed=0)
    except (RandomizationError, UserError, EngineError) as error:
        raise UserError(f"{name}: {error}") from None
    return world


def find_worlds(
    names: Iterable[str], policy: LoadedPolicy, ranges_of: LoadedPolicy | None = None
) -> tuple[list[World], dict[str, str]]:
    """Worlds by name, where the name of a group means all shipped worlds of it that fit the task.

    Returns:
        The worlds, each once; and the worlds of a group that the task cannot have, with the reason.

    Raises:
        UserError: a name is wrong, or two worlds have the same name.
    """
    worlds: dict[str, World] = {}
    left_out: dict[str, str] = {}
    sources: dict[str, str] = {}
    for name in names:
        for member in _members(name, policy.task_id) if name in GROUPS else [name]:
            try:
                world = find_world(member, policy, ranges_of)
            except UserError as error:
                if name not in GROUPS:
                    raise
                left_out[member] = str(error).removeprefix(f"{_shipped()[member]}: ").removeprefix(f"{member}: ")
                continue
            if sources.setdefault(world.name, member) != member:
                raise UserError(f"{member}: another world is called {world.name!r} too: {sources[world.name]}")
            worlds[world.name] = world
    if not worlds:
        raise UserError(f"{', '.join(names)}: no world of this group fits {policy.task_id}")
    return list(worlds.values()), left_out


def check_names(names: Iterable[str]) -> None:
    """Raise UserError for a name that can be no world, before there is a policy to try it with."""
    for name in names:
        engine = name if _is_generated(name) else "cpu"
        if not _is_generated(name) and name not in GROUPS:
            engine = _read(_find_file(name)).engine
        _check_engine(name, engine)


def _check_engine(name: str, engine: str) -> None:
    """Raise UserError where a world asks for a simulator that is not installed."""
    try:
        if engine in KINDS:
            check_installed(engine)
    except EngineError as error:
        raise UserError(f"{name}: {error}" if engine != name else str(error)) from None


def beyond(task: Task, parameter: Parameter, reach: float = 0.5) -> tuple[float, float]:
    """Outer ends of what lies around a parameter's range: `reach` times its width more on either side (for factors the
    ratio of its ends to that power), as far as values make sense. A range without width takes the quantity's own."""
    quantity = QUANTITIES[parameter.quantity]
    low, high = parameter.limits
    least, most = quantity.limits
    usual_low, usual_high = quantity.default_range
    if quantity.mode == "scale" and low > 0 and usual_low > 0:
        ratio = (high / low if high > low else usual_high / usual_low) ** reach
        least, most = max(least, low / ratio), min(most, high * ratio)
    else:
        side = reach * (high - low if high > low else usual_high - usual_low)
        least, most = max(least, low - side), min(most, high + side)
    if quantity.channel == "physics" and quantity.mode == "add":
        places = object_places(task, quantity.target)
        for index in [places[name] for name in parameter.targets] or [0]:
            down, up = quantity.room(task.model, index)
            least, most = max(least, down), min(most, up)
    return min(least, low), max(most, high)


def trained_ranges(policy: LoadedPolicy, asked_by: str) -> list[Parameter]:
    """The parameters of a policy's training, uniform in their final ranges. Raises UserError if it had none."""
    if not policy.parameters:
        raise UserError(
            f"{asked_by}: {policy.name} was trained without randomization; name a run whose ranges to take with "
            "--ranges-of"
        )
    return [replace(p, distribution="uniform", group="") for p in policy.parameters]


def _generated(kind: str, parameter: str, policy: LoadedPolicy, source: LoadedPolicy) -> World:
    """A world that follows from how a policy was trained."""
    if kind == "nominal":
        return World(kind, Manual([]), "nominal")
    if kind == "trained":
        return World(kind, policy.trained_sampler(), "trained")
    if kind in KINDS:
        return World(kind, Manual([]), "unmodelled", engine=cast("EngineName", kind))
    if source.task_id != policy.task_id:
        raise UserError(f"{source.name}: is of {source.task_id}, but {policy.name} is of {policy.task_id}")
    name = f"{kind}:{parameter}" if parameter else kind
    ranges = trained_ranges(source, name)
    if kind == "range":
        return World(kind, Manual(ranges), "trained")
    labels = [p.name for p in ranges]
    if parameter and parameter not in labels:
        raise UserError(f"{name}: no such parameter{nearest(parameter, labels)}; there are: {', '.join(labels)}")
    task = policy.make_task()
    wide = [replace(p, limits=beyond(task, p)) for p in ranges]
    inner = torch.tensor([p.limits for p in ranges], dtype=torch.float64)
    only = torch.tensor([label == parameter for label in labels]) if parameter else None
    sampler = Extremes(wide, inner, only, one_at_a_time=kind == "extremes_each")
    if not bool(sampler.extreme.any()):
        raise UserError(f"{name}: the trained ranges fill all values that make sense")
    return World(name, sampler, "held_out")


def _is_generated(name: str) -> bool:
    kind, colon, parameter = name.partition(":")
    return kind in GENERATED and (not colon or (kind == "extremes" and bool(parameter)))


def _find_file(name: str) -> Path:
    """A YAML file, or a shipped world."""
    if Path(name).is_file():
        return find_config(name)
    shipped = _shipped()
    if name in shipped:
        return shipped[name]
    if name in GROUPS:
        raise UserError(f"{name}: is a group of worlds, expected one world; `simreal evaluate` plays groups")
    path = Path(name)
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    hint = near_file(path) if is_path else nearest(name, (*GENERATED, *GROUPS, *shipped))
    raise UserError(
        f"{name}: no such world or file{hint}; there are: {', '.join(GENERATED)}, extremes:PARAMETER; "
        f"groups: {', '.join(GROUPS)}; shipped: {', '.join(shipped)}"
    )


def _shipped() -> dict[str, Path]:
    return {key.removeprefix("worlds/"): p for key, p in shipped_configs().items() if key.startswith("worlds/")}


def _members(group: str, task_id: str) -> list[str]:
    """Shipped worlds of a group that are for a task."""
    documents = {name: _read(path) for name, path in _shipped().items()}
    return [name for name, world in documents.items() if world.group == group and world.fits(task_id)]


def _read(path: Path) -> WorldFile:
    try:
        return WorldFile.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, WorldFile)}") from None


def _from_file(path: Path, document: WorldFile, policy: LoadedPolicy) -> World:
    try:
        config = randomization_config(document.randomization)
        if config.sampler in ("adr", "doraemon"):
            raise UserError(f"{path}: randomization.sampler: a world has fixed ranges, expected 'manual' or 'frozen'")
        with cameras_of(document.sensors):
            task = policy.make_task()
            sampler = config.sampler_for(task)
        if document.extremes:
            sampler = _extremes(path, document, sampler)
        elif document.one_at_a_time:
            raise UserError(f"{path}: one_at_a_time: says how 'extremes' are drawn; give those too")
        sampler = changing(path, document.changes, sampler, task)
    except RandomizationError as error:
        raise UserError(f"{path}: {error}") from None
    variant = ModelVariant(physics=document.physics, model=document.model)
    return World(document.name or path.stem, sampler, document.group, variant, document.engine, document.sensors)


def _extremes(path: Path, document: WorldFile, sampler: Sampler) -> Extremes:
    """Worlds around the ranges of a file's randomization."""
    outer = dict(document.extremes)
    wide: list[Parameter] = []
    for p in sampler.parameters:
        low, high = outer.pop(p.name, p.limits)
        least, most = QUANTITIES[p.quantity].limits
        if not (least <= low <= p.limits[0] and p.limits[1] <= high <= most):
            raise UserError(
                f"{path}: extremes.{p.name}: expected ends around its range [{p.limits[0]:g}, {p.limits[1]:g}] and "
                f"within [{least:g}, {most:g}], got [{low:g}, {high:g}]"
            )
        wide.append(replace(p, limits=(low, high), distribution="uniform", group=""))
    for label in outer:
        raise UserError(f"{path}: extremes.{label}: no such parameter{nearest(label, [p.name for p in wide])}")
    inner = torch.tensor([p.limits for p in sampler.parameters], dtype=torch.float64)
    return Extremes(wide, inner, one_at_a_time=document.one_at_a_time)


def _listed(tasks: str | Sequence[str]) -> str:
    return tasks if isinstance(tasks, str) else ", ".join(tasks)
