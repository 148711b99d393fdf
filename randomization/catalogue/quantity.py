"""What can differ between worlds: quantities, each with all that is known of it, and parameters: chosen ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import mujoco

from envs.task import Task
from randomization.effects.effect import Effect
from randomization.physics.contacts import ContactPart
from randomization.physics.edit import Edit, Writer, edit_values
from randomization.physics.model_edits import rows
from randomization.visual.effects import Look

Mode = Literal["scale", "add", "spread", "absolute"]
Target = Literal[
    "body", "moving body", "floating body", "geom", "joint", "tendon", "actuator", "axis", "action", "component",
    "camera", "light", "material", "none",
]  # fmt: skip
Channel = Literal["physics", "action", "observation", "disturbance", "adversary", "visual"]
Distribution = Literal["uniform", "loguniform", "normal", "lognormal"]
_INF = math.inf


class RandomizationError(ValueError):
    """A randomization block, or a quantity, that cannot be used; the message names the key and what exists."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Something that can differ between worlds.

    A quantity of the model needs no code: `writes` names the fields of MuJoCo's mjModel (or, after `opt.`, mjOption) in
    which the named object has its values. Any other one has an `effect`, or `needs` a quantity that has.

    Attributes:
        name: as configurations spell it.
        channel: where it acts.
        target: the kind of object that it belongs to.
        default_range: a sensible range to start from.
        description: one line for people.
        unit: of lambda ("1" for factors; "unit" for that of the component).
        mode: scale multiplies the nominal value, add is added to it, absolute replaces it; spread is the standard
            deviation of what is added to each value, drawn anew in every episode. Effects have absolute ones.
        nominal: lambda of the calibrated world; where left out 1 for factors, 0 for others.
        limits: values outside make no sense; where left out anything for what is added, for others nothing below 0.
        writes: model fields written: rows of the object, those of all of a joint's dofs in fields of dofs. Of several
            fields for parts of one thing those that are not zero.
        effect: what happens during an episode; quantities may share one.
        needs: a quantity without which this one does nothing.
        suits: whether an object (task, index) is one that it makes sense for; the index is that in the model, or of a
            component in `Task.measured_components()`. None: as far as it writes anything.
        expected: what an object has to be for that, after "is no"; for messages.
        writer: which values it writes, if not simply the rows in `writes`.
        idle: why it would change nothing to an object, to follow the object's name; "" if it does.
        shown: why it may be named though it changes no motion, likewise.
        switches: flags of the model that switch off what it acts through.
        contact: of what contacts take from geoms, which part this is.
        look: of the visual channel, what it changes of pictures.
        instead: what to use where a task does not leave its commands to the engine; "" if that does not matter.
        suggested: whether it is on in a suggested block.
        usual: what `of` says there: the name of an axis, "loose" for objects that nothing holds, or "" for everything.
    """

    name: str
    channel: Channel
    target: Target
    default_range: tuple[float, float]
    description: str
    unit: str = "1"
    mode: Mode = "absolute"
    nominal: float = math.nan
    limits: tuple[float, float] = (math.nan, math.nan)
    writes: tuple[str, ...] = ()
    effect: type[Effect] | None = None
    needs: str = ""
    suits: Callable[[Task, int], bool] | None = None
    expected: str = ""
    writer: Writer | None = None
    idle: Callable[[Task, Quantity, int], str] | None = None
    shown: Callable[[Task, Quantity, int], str] | None = None
    switches: tuple[mujoco.mjtDisableBit, ...] = ()
    contact: ContactPart | None = None
    look: Look = field(default_factory=Look)
    instead: str = ""
    suggested: bool = False
    usual: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.nominal):
            object.__setattr__(self, "nominal", 1.0 if self.mode == "scale" else 0.0)
        if math.isnan(self.limits[0]):
            object.__setattr__(self, "limits", (-_INF if self.mode == "add" else 0.0, _INF))

    def edits(self, model: mujoco.MjModel, index: int) -> list[Edit]:
        """What it writes of object `index`; empty where it makes no sense for that object, or writes no fields."""
        return (self.writer or rows(*self.writes))(model, index) if self.writes else []

    def is_for(self, task: Task, index: int) -> bool:
        """Whether it makes sense for object `index`: not the range of a joint without limits, or the size of a mesh."""
        if self.suits is not None:
            return self.suits(task, index)
        return not self.writes or bool(self.edits(task.model, index))

    def room(self, model: mujoco.MjModel, index: int) -> tuple[float, float]:
        """How far it may be shifted before its value makes less sense than in the model: down (at most 0) and up."""
        low, high = -_INF, _INF
        for edit in self.edits(model, index):
            for value in edit_values(model, edit):
                low, high = max(low, min(edit.low - value, 0.0)), min(high, max(edit.high - value, 0.0))
        return low, high

    def nominal_values(self, model: mujoco.MjModel, index: int) -> list[float]:
        """Nominal values that it acts on: of the first field in which any is not zero, or of the one named first."""
        of_fields = [edit_values(model, edit) for edit in self.edits(model, index)]
        return next((values for values in of_fields if any(values)), of_fields[0] if of_fields else [])

    def multiplies_zero(self, model: mujoco.MjModel, index: int) -> bool:
        """Whether it is a factor and all that it would multiply is zero."""
        values = self.nominal_values(model, index) if self.mode == "scale" else []
        return bool(values) and not any(values)

    @property
    def shifts_com(self) -> bool:
        """Whether it moves centres of mass, of which MuJoCo compiles some as if they never could."""
        return "body_ipos" in self.writes and self.mode != "scale"

    @property
    def changes_timestep(self) -> bool:
        """Whether it changes the duration of a physics step."""
        return "opt.timestep" in self.writes


QUANTITIES: dict[str, Quantity] = {}
"""What is known so far: simreal's own once `catalogue.table` is imported, and those of packages that were asked for."""


@dataclass(frozen=True)
class Parameter:
    """One entry of lambda.

    Attributes:
        name: label in the configuration.
        nominal: value of the calibrated world, where ADR starts.
        limits: lowest and highest value it may take; bounds stop there.
        step: ADR's Delta, in the parameter's unit.
        unit: of the value.
        mode: see `Quantity`.
        quantity: name of its quantity.
        targets: labels of the objects it applies to; see `names`.
        distribution: how fixed ranges are sampled; normal ones have their middle at the range's and two standard
            deviations on either side, and do not leave the range (lognormal: the same of the logarithm).
        group: fixed ranges of one group are drawn with one uniform number, so that they rise and fall together.
    """

    name: str
    nominal: float = 0.0
    limits: tuple[float, float] = (-4.0, 4.0)
    step: float = 0.02
    unit: str = "1"
    mode: Mode = "absolute"
    quantity: str = ""
    targets: tuple[str, ...] = ()
    distribution: Distribution = "uniform"
    writes: tuple[str, ...] = field(default=())
    group: str = ""

    def __post_init__(self) -> None:
        low, high = self.limits
        if not low <= high:
            raise RandomizationError(f"{self.name}: range [{low:g}, {high:g}] has its lower end above its upper")
        if not low <= self.nominal <= high:
            raise RandomizationError(f"{self.name}: the nominal value {self.nominal:g} is outside [{low:g}, {high:g}]")
        if not self.step > 0:
            raise RandomizationError(f"{self.name}: step {self.step:g} must be positive")
        if self.distribution in ("loguniform", "lognormal") and low <= 0:
            raise RandomizationError(
                f"{self.name}: a {self.distribution} range must be positive, got [{low:g}, {high:g}]"
            )
