"""What may stand in a sweep's YAML file: which keys are looked over, and by what a trial is judged."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from randomization.config import first_problem
from simreal.common.errors import UserError
from simreal.common.trusted_code import module_of, use_current_folder
from simreal.study.spec import Name, Seed, different
from simreal.training.run_config import (
    EvaluateConfig,
    RunConfig,
    Strict,
    apply_overrides,
    find_config,
    parse_config,
    read_yaml,
)

Number = int | float


class Span(Strict):
    """The values of a key: all between two ends, or some."""

    low: Number | None = Field(None, description="lowest value; whole numbers at both ends give whole numbers")
    high: Number | None = Field(None, description="highest value")
    log: bool = Field(False, description="spread evenly over the logarithm")
    choices: tuple[Any, ...] | None = Field(None, min_length=2, description="instead of ends: these values")

    @model_validator(mode="after")
    def _complete(self) -> Span:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("choices: expected these alone, or low and high")
            shown = [json.dumps(choice) for choice in self.choices]
            if twice := next((one for one in shown if shown.count(one) > 1), None):
                raise ValueError(f"choices: {twice} stands {shown.count(twice)} times")
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("expected low below high, or choices")
        if self.log and self.low <= 0:
            raise ValueError(f"log: low is {self.low:g}, expected a number above 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def tried(self) -> list[Any]:
        """Values that have to be possible if all are: its ends first, and one between them that is no round number."""
        if self.choices is not None:
            return list(self.choices)
        assert self.low is not None
        assert self.high is not None
        between = self.low + 0.381966 * (self.high - self.low)
        return [self.low, self.high, int(between) if self.whole else between]


class PruneSpec(Strict):
    """When a trial is broken off: where its curve lies below the median of the others at the same step."""

    after: float = Field(0.3, ge=0, lt=1, description="share of a training before which none is")
    others: int = Field(4, ge=1, description="finished trials that it takes")


class SweepSpec(Strict):
    """A sweep, as its file describes it."""

    name: Name = Field(description="of the folder of results")
    description: str = ""
    config: str | dict[str, Any] = Field(description="configuration of every trial: a file or a shipped one")
    set: dict[str, Any] = Field(default_factory=dict, description="key.sub: value, on top of the configuration's")
    space: dict[str, Span] = Field(min_length=1, description="key.sub: what it may be")
    trials: int = Field(20, ge=1, le=100_000, description="in all")
    parallel: int = Field(1, ge=1, le=1000, description="that are proposed together, before the first is judged")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(different)] = (0,)
    evaluate: EvaluateConfig = EvaluateConfig()  # pyright: ignore[reportCallIssue]
    prune: PruneSpec | None = PruneSpec()  # pyright: ignore[reportCallIssue]
    seed: int = Field(0, ge=0, lt=2**31, description="of the search")

    @model_validator(mode="after")
    def _of_trials(self) -> SweepSpec:
        for key in (*self.set, *self.space):
            if key.partition(".")[0] in ("seed", "evaluate"):
                raise ValueError(f"{key}: belongs to the whole sweep, see seeds and evaluate")
        for key in (*self.set, *self.space):
            for over in self.space:
                if f"{key}.".startswith(f"{over}.") and (key != over or key in self.set):
                    raise ValueError(f"{key}: has no effect beside space.{over}, which is put in its place")
        return self

    def config_of(self, values: dict[str, Any], seed: int) -> RunConfig:
        """The configuration of a run: `values` by key. Raises UserError, naming the sweep and the key."""
        document = copy.deepcopy(self.config) if isinstance(self.config, dict) else read_yaml(find_config(self.config))
        if module_of(document.get("task")) is not None:
            use_current_folder()
        chosen = {**self.set, **values}
        document = apply_overrides(document, [f"{key}={json.dumps(value)}" for key, value in chosen.items()])
        document |= {"seed": seed, "evaluate": self.evaluate.model_dump(mode="json")}
        return parse_config(document, f"sweep {self.name}")


def load_sweep(name: str) -> SweepSpec:
    """Read a sweep and try the ends of its space. Raises UserError: file, key, what is wrong."""
    path: Path = find_config(name, "sweeps")
    document = read_yaml(path)
    try:
        spec = SweepSpec.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, SweepSpec)}") from None
    middle = {key: span.tried()[0] for key, span in spec.space.items()}
    try:
        for key, span in spec.space.items():
            for end in span.tried():
                if isinstance(end, float) and not math.isfinite(end):
                    raise UserError(f"{key}: {end} is not finite")
                spec.config_of(middle | {key: end}, spec.seeds[0])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return spec
