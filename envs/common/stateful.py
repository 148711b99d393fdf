"""State that is saved with a run, and that a resumed run goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor


class Stateful:
    """An object whose state is some of its attributes: tensors, plain values, and parts with a state of their own."""

    _state: ClassVar[tuple[str, ...]] = ()  # their names; those that a configuration does without do not count

    def state_dict(self) -> dict[str, Any]:
        """Copies of the attributes, by their names without the underscore."""
        return {name.lstrip("_"): _copied(getattr(self, name)) for name in self._state if hasattr(self, name)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name in filter(lambda name: hasattr(self, name), self._state):
            setattr(self, name, _loaded(getattr(self, name), state[name.lstrip("_")]))


def _loaded(present: Any, value: Any) -> Any:
    """What an attribute becomes: parts go on from their state, anything else is replaced."""
    if hasattr(present, "load_state_dict"):
        present.load_state_dict(value)
        return present
    if isinstance(present, Mapping) and any(hasattr(part, "load_state_dict") for part in present.values()):
        return {key: _loaded(part, value[key]) for key, part in present.items()}
    return _copied(value)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return value.state_dict() if hasattr(value, "state_dict") else value
