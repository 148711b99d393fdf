"""The `randomization:` block of a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.common.messages import nearest
from envs.common.safe_yaml import FileError, read_yaml
from envs.task import Task
from randomization.informed import informed, read_found
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.samplers.adr import ADR
from randomization.samplers.base import Manual, Sampler
from randomization.samplers.doraemon import Doraemon
from randomization.samplers.frozen import Frozen, contract_entries, entries_of, frozen_parameters, read_run
from randomization.targets.names import quoting_hint

Performance = Literal["success", "successes", "return"]


class ADRConfig(BaseModel):
    """How ADR moves its boundaries (arXiv 1910.07113, table 15, for the published values)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boundary_probability: float = Field(0.5, ge=0, le=1, description="share of episodes at a boundary")
    buffer_size: int = Field(20, ge=1, description="episodes per decision about a boundary")
    thresholds: tuple[float, float] = Field((0.5, 0.9), description="mean performance that narrows, widens")

    @model_validator(mode="after")
    def _ordered(self) -> ADRConfig:
        if not self.thresholds[0] <= self.thresholds[1]:
            raise ValueError(f"thresholds: lower end {self.thresholds[0]:g} is above upper end {self.thresholds[1]:g}")
        return self


class DoraemonConfig(BaseModel):
    """How DORAEMON widens its distributions (arXiv 2311.01885)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    success_rate: float = Field(0.5, gt=0, le=1, description="alpha, the least probability of success")
    kl: float = Field(0.01, gt=0, description="epsilon, largest KL divergence per update, nats over all parameters")
    buffer_size: int = Field(200, ge=1, description="episodes per update")
    success_at: float = Field(0.5, description="an episode whose performance reaches this is a success")
    concentration: float = Field(100.0, ge=0, le=1e4, description="of the first distribution; 0 fills the ranges")


class RandomizationConfig(BaseModel):
    """Which worlds a policy is trained in."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)

    sampler: Literal["none", "manual", "adr", "doraemon", "frozen"] = Field(
        "none",
        description="none: the nominal world; manual: fixed ranges; adr: ranges that widen; doraemon: Beta "
        "distributions that widen; frozen: the ranges that an earlier run reached",
    )
    performance: Performance = Field(
        "success",
        description="of an episode, for adr and doraemon: success at its last step, steps with success, or return",
    )
    adr: ADRConfig = ADRConfig()  # pyright: ignore[reportCallIssue]
    doraemon: DoraemonConfig = DoraemonConfig()  # pyright: ignore[reportCallIssue]
    source: str | None = Field(
        None,
        alias="from",
        description="frozen: the run or bundle whose ranges are used; else a YAML file whose ranges replace those of "
        "the same objects, as `simreal identify` writes it",
    )
    parameters: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="label: {quantity, of, range, step, distribution, group, nominal}"
    )
    correlations: tuple[tuple[str, str, float], ...] = Field(
        (), description="manual: [label, label, r] of parameters that vary together (a Gaussian copula)"
    )

    @model_validator(mode="after")
    def _complete(self) -> RandomizationConfig:
        if self.sampler == "frozen" and self.source is None:
            raise ValueError("sampler: 'frozen' needs 'from: RUN_OR_BUNDLE'")
        if self.sampler == "frozen" and self.parameters:
            raise ValueError("parameters: 'frozen' takes them from the run that 'from' names, expected none here")
        return self

    def sampler_for(self, task: Task) -> Sampler:
        """The sampler of this block for a task. Raises RandomizationError, naming the key."""
        if self.source is not None:
            block = self.resolved(task)
            if self.sampler == "frozen":
                return Frozen(build_parameters(task, block.parameters), block.correlations)
            return block.sampler_for(task)
        if self.sampler in ("adr", "doraemon") and self.performance == "success":
            # It would stay at 0, and the ranges where they are.
            if task.counts_successes:
                raise RandomizationError(f"performance: {task.id} counts successes, expected 'successes' or 'return'")
            if not task.has_success:
                raise RandomizationError(f"performance: {task.id} knows no success, expected 'return'")
        return make_sampler(self, build_parameters(task, self.parameters))

    def resolved(self, task: Task) -> RandomizationConfig:
        """The block with the ranges of what `from` names written out; the same block if it names nothing."""
        if self.source is None:
            return self
        return self._frozen(task, self.source) if self.sampler == "frozen" else self._informed(task, self.source)

    def _frozen(self, task: Task, source: str) -> RandomizationConfig:
        """Fixed ranges: those of a run or bundle."""
        path, correlations = Path(source).expanduser(), ()
        contract = path if path.name == "policy.json" else path / "policy.json"
        if contract.is_file():
            entries = contract_entries(contract)
        else:
            block, state = read_run(path)
            before = randomization_config(block)
            sampler, correlations = before.sampler_for(task), before.correlations
            try:
                sampler.load_state_dict(dict(state))
            except (KeyError, RuntimeError) as error:
                raise RandomizationError(f"{path}: its checkpoint does not fit its config.yaml: {error}") from None
            entries = entries_of(frozen_parameters(sampler))
        return self._with(entries, "manual", correlations)

    def _informed(self, task: Task, source: str) -> RandomizationConfig:
        """Ranges of a file, for what it speaks of, among those of this block."""
        found = read_found(source)
        widens = self.sampler in ("adr", "doraemon")
        entries, labels = informed(task, self.parameters, found, widens)
        if widens:
            return self._with(entries, self.sampler, ())
        theirs = randomization_config({**found.block, "sampler": "manual"}).correlations
        kept = [pair for pair in self.correlations if {*pair[:2]} <= entries.keys() - {*labels.values()}]
        return self._with(entries, "manual", (*kept, *((labels.get(a, a), labels.get(b, b), r) for a, b, r in theirs)))

    def _with(
        self, entries: Mapping[str, Any], sampler: str, correlations: Iterable[tuple[str, str, float]]
    ) -> RandomizationConfig:
        changed = {"sampler": sampler, "source": None, "parameters": entries, "correlations": tuple(correlations)}
        return self.model_copy(update=changed)


def make_sampler(config: RandomizationConfig, parameters: list[Parameter]) -> Sampler:
    """The sampler that a configuration asks for."""
    if config.sampler == "none":
        return Manual([])
    if config.sampler == "manual":
        return Manual(parameters, config.correlations)
    if config.correlations:
        raise RandomizationError(f"correlations: are of fixed ranges, not of sampler {config.sampler!r}")
    for parameter in parameters:
        if parameter.group or parameter.distribution != "uniform":
            key = "group" if parameter.group else "distribution"
            raise RandomizationError(f"{parameter.name}.{key}: is of fixed ranges, not of sampler {config.sampler!r}")
    if config.sampler == "doraemon":
        return Doraemon(parameters, **config.doraemon.model_dump())
    adr = config.adr
    return ADR(parameters, adr.boundary_probability, adr.buffer_size, adr.thresholds)


def randomization_config(value: str | Path | Mapping[str, Any] | RandomizationConfig | None) -> RandomizationConfig:
    """The block given as nothing, a mapping, or a YAML file (its `randomization:` block).

    A mapping without `sampler` is taken as fixed ranges where it has parameters.

    Raises:
        RandomizationError: what is wrong, in one line.
        FileNotFoundError: the file does not exist.
    """
    if value is None:
        return RandomizationConfig()  # pyright: ignore[reportCallIssue]
    if isinstance(value, RandomizationConfig):
        return value
    if isinstance(value, (str, Path)):
        value = _load_block(Path(value))
    if not isinstance(value, Mapping):
        raise RandomizationError(f"randomization: expected a mapping, got {type(value).__name__}")
    block = dict(value)
    if "sampler" not in block and block.get("parameters"):
        block["sampler"] = "manual"
    try:
        return RandomizationConfig.model_validate(block)
    except ValidationError as error:
        raise RandomizationError(f"randomization.{first_problem(error, RandomizationConfig)}") from None


def _load_block(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        document = read_yaml(path)
    except FileError as error:
        raise RandomizationError(f"{path}: {error}") from None
    if "randomization" not in document:
        raise RandomizationError(f"{path}: has no 'randomization:' block")
    return document["randomization"] or {}


_QUOTED = re.compile(r"'([^']*)'")
# What pydantic puts into a path for the kinds of values that a key may have: no keys of a file.
_KIND = re.compile(r"(constrained-)?(int|float|str|bool)|(tuple|list|dict|literal|function-[a-z]+)\[.*\]")


def first_problem(
    error: ValidationError, model: type[BaseModel], chosen: Mapping[str, type[BaseModel]] | None = None
) -> str:
    """The first validation error as one line: key, what was wrong, what is nearest.

    Args:
        error: of the model.
        model: what was to be validated.
        chosen: models that stand where the model's annotations do not say which, by their dotted paths.
    """
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    tags = {tuple(path.split(".")) for path in chosen or {}}  # of what the values of a key choose, no keys of the file
    own = [part for depth, part in enumerate(location, 1) if tuple(location[:depth]) not in tags]
    key = ".".join(part for part in own if not _KIND.fullmatch(part))
    if problem["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1], chosen or {})
        return f"{key}: unknown key{nearest(location[-1], known)}; known keys: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    got = repr(given)[:100]
    if problem["type"] == "literal_error" and isinstance(given, str):
        return f"{key}: {message[0].lower() + message[1:]}, got {got}{nearest(given[:100], _QUOTED.findall(message))}"
    said = isinstance(given, (dict, list)) or problem["type"] == "missing" or ", got " in message
    shown = "" if said else f", got {got}"
    if problem["type"] == "string_type" and not isinstance(given, (dict, list)):
        shown += quoting_hint(given)
    return f"{key}: {message[0].lower() + message[1:]}{shown}" if key else message


def _keys_at(model: type[BaseModel], path: list[str], chosen: Mapping[str, type[BaseModel]]) -> list[str]:
    """Keys that a nested model knows; names of union members in the path select the member."""
    options: list[type[BaseModel]] = [model]
    for depth, part in enumerate(path, 1):
        if (known := chosen.get(".".join(path[:depth]))) is not None:
            options = [known]
            continue
        found: list[type[BaseModel]] = []
        for option in options:
            if part in option.model_fields:
                found += _models_in(option.model_fields[part].annotation)
        named = [o for o in options if o.model_fields.get("algorithm") and part == o.model_fields["algorithm"].default]
        options = named or found or options
    return sorted({key for option in options for key in option.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
