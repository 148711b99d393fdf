"""Learners by name: simreal's own, those given to `register_learner`, and those that installed packages announce.

An entry point of the group `simreal.learners` names a module; importing it calls `register_learner`:

    [project.entry-points."simreal.learners"]
    cem = "simreal_cem"

That module is imported when a configuration asks for `algorithm: cem`, and not before. Importing this one imports no
learner.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from envs.common.messages import nearest
from envs.platform.entry_points import entry_points
from simreal.common.errors import UserError
from simreal.learners.distill.options import DistillConfig
from simreal.learners.options import DDPGConfig, DQNConfig, FQIConfig, LearnerOptions, PPOConfig, SACConfig, TD3Config

if TYPE_CHECKING:
    from simreal.learners.base import Learner

ENTRY_POINTS = "simreal.learners"


@dataclass(frozen=True)
class _Entry:
    """What `register_learner` was given."""

    options: type[LearnerOptions]
    learner: str | type[Learner]


_LEARNERS: dict[str, _Entry] = {}
_WITH_PICTURES = {"ppo": "simreal.learners.pixels.ppo:PixelPPO", "sac": "simreal.learners.pixels.sac:PixelSAC"}


# Upper case, as both are classes.
def register_learner(name: str, Options: type[LearnerOptions], Learner: str | type[Learner]) -> None:  # noqa: N803
    """Make a learner available as `learner: {algorithm: name, ...}`.

    Args:
        name: its name.
        Options: its settings, a subclass of `LearnerOptions` with a field `algorithm: Literal[name]`.
        Learner: a subclass of `Learner`, or "module:Class" of one, which is imported when the first is made.

    Raises:
        UserError: the name is taken by another learner, simreal's or that of an installed package, or what was given is
            no learner. Registering the very same thing again does nothing.
    """
    _check_options(name, Options)
    if not isinstance(Learner, str):
        _check_class(name, Learner)
    entry = _Entry(Options, Learner)
    if _LEARNERS.get(name, entry) != entry:
        raise UserError(f"learner {name!r} is taken by {_home(_LEARNERS[name])}; register {_home(entry)} under another")
    for announced in announced_learners().get(name, ()):
        if _top(announced.module) != _top(Options.__module__):
            raise UserError(
                f"learner {name!r} is taken by module {announced.module!r} of an installed package; "
                f"register {_home(entry)} under another"
            )
    _LEARNERS[name] = entry


def announced_learners() -> dict[str, list[EntryPoint]]:
    """Learners of installed packages by name, but for names that are registered; nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(ENTRY_POINTS):
        if entry.name not in _LEARNERS and entry not in found.setdefault(entry.name, []):
            found[entry.name].append(entry)
    return {name: entries for name, entries in found.items() if entries}


def learner_names() -> list[str]:
    """Every learner's name; those of installed packages last."""
    return [*_LEARNERS, *announced_learners()]


def options_class(name: str) -> type[LearnerOptions]:
    """The settings of the learner of that name, whose package is imported.

    Raises:
        KeyError: there is none of that name.
        UserError: its package is broken, or two packages announce it.
    """
    if name not in _LEARNERS:
        _import_announced(name, announced_learners()[name])
    return _LEARNERS[name].options


def learner_class(name: str) -> type[Learner]:
    """The learner of that name, imported. Raises KeyError or UserError, as `options_class`."""
    options_class(name)
    found = _LEARNERS[name].learner
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    return _check_class(name, getattr(_import(name, module), attribute, None))


def pixel_learner(name: str) -> type[Learner]:
    """The learner of that name for policies that look at pictures. Raises UserError where there is none."""
    if name not in _WITH_PICTURES:
        raise UserError(f"observation: {name} reads no pictures; expected learner {' or '.join(_WITH_PICTURES)}")
    module, _, attribute = _WITH_PICTURES[name].partition(":")
    return _check_class(name, getattr(_import(name, module), attribute, None))


def package_of(name: str) -> str | None:
    """The package outside simreal that a registered learner comes from, as Python imports it; None for our own."""
    package = _top(options_class(name).__module__)
    return None if package == _top(__name__) else package


def _import_announced(name: str, entries: list[EntryPoint]) -> None:
    if len(entries) > 1:
        modules = " and ".join(entry.module for entry in entries)
        raise UserError(f"learner {name!r} is announced by two packages, as {modules}; uninstall one of them")
    _import(name, entries[0].module)
    if name not in _LEARNERS:
        raise UserError(f"learner {name!r}: module {entries[0].module!r}, which announces it, does not register it")


def _import(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        raise UserError(f"learner {name!r}: importing {module!r} failed: {type(error).__name__}: {said}") from error


def _check_options(name: str, options: Any) -> None:
    """Raise UserError unless these are the settings of a learner of that name."""
    if not (isinstance(options, type) and issubclass(options, LearnerOptions)):
        raise UserError(f"learner {name!r}: expected a subclass of simreal.LearnerOptions, got {options!r:.80}")
    field = options.model_fields.get("algorithm")
    literal = None if field is None else field.annotation
    if get_origin(literal) is not Literal or get_args(literal) != (name,):
        raise UserError(f"learner {name!r}: {options.__name__} needs a field `algorithm: Literal[{name!r}]`")


def _check_class(name: str, found: Any) -> type[Learner]:
    """What was found, if it is a learner's class. Raises UserError."""
    from simreal.learners.base import Learner

    if not (isinstance(found, type) and issubclass(found, Learner)):
        raise UserError(f"learner {name!r}: expected a subclass of simreal.Learner, got {found!r:.80}")
    return found


def _home(entry: _Entry) -> str:
    return f"{entry.options.__module__}.{entry.options.__qualname__}"


def _top(module: str) -> str:
    return module.partition(".")[0]


class _Registered:
    """Marks a key of a configuration whose type its `algorithm` chooses among the registered learners' settings."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(_validated, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        choices = tuple(options_class(name) for name in learner_names())
        union: Any = Annotated[Union[choices], Field(discriminator="algorithm")]  # noqa: UP007
        return handler(TypeAdapter(union).core_schema)


AnyLearner = _Registered()


def _validated(value: Any, handler: core_schema.ValidatorFunctionWrapHandler) -> Any:
    """The settings that a mapping states; settings stay as they are. Raises ValidationError with keys below `value`."""
    if not isinstance(value, Mapping) and value is not None:
        return handler(value)
    value = value or {}
    name = value.get("algorithm")
    names = sorted(learner_names())
    if name not in names:
        kind = "no 'algorithm'" if "algorithm" not in value else f"no learner {name!r:.80}"
        hint = nearest(name, names) if isinstance(name, str) else ""
        message = PydanticCustomError("learner", "{kind}{hint}; there are: {names}", {
            "kind": kind, "hint": hint, "names": ", ".join(names),
        })  # fmt: skip
        raise _failure([InitErrorDetails(type=message, loc=("algorithm",), input={})])
    try:
        return options_class(name).model_validate(value)
    except ValidationError as error:
        raise _failure([
            InitErrorDetails(type=e["type"], loc=(name, *e["loc"]), input=e["input"], ctx=e.get("ctx", {}))
            for e in error.errors()
        ]) from None  # fmt: skip


def _failure(problems: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("learner", problems)


register_learner("sac", SACConfig, "simreal.learners.off_policy.sac:SAC")
register_learner("td3", TD3Config, "simreal.learners.off_policy.td3:TD3")
register_learner("ddpg", DDPGConfig, "simreal.learners.off_policy.ddpg:DDPG")
register_learner("dqn", DQNConfig, "simreal.learners.off_policy.dqn:DQN")
register_learner("fqi", FQIConfig, "simreal.learners.off_policy.fqi:FQI")
register_learner("ppo", PPOConfig, "simreal.learners.on_policy.ppo:PPO")
register_learner("distill", DistillConfig, "simreal.learners.distill.learner:Distill")
