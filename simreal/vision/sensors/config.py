"""The `sensors:` block: components of the observation that an estimator reads from pictures."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from envs.common.safe_yaml import FileError, read_yaml
from simreal.common.errors import UserError
from simreal.learners.options import Strict
from simreal.vision.rendering.mounts import Mount, mounted

_PREFIX = "estimator:"


class SensorConfig(Strict):
    """An estimator, and the camera that it looks through."""

    estimator: str = Field(min_length=1, description="the run of `simreal estimate`")
    rate_hz: float | None = Field(None, gt=0, description="pictures per second; null: one in every control step")
    latency_s: float = Field(0.0, ge=0, le=10, description="from a picture to what it shows, s")
    drop: float = Field(0.0, ge=0, lt=1, description="probability that a picture is lost")
    unseen: bool = Field(False, description="surfaces get patterns that no training is given")


def _short(value: Any) -> Any:
    """`estimator:RUN` in place of a mapping."""
    if isinstance(value, str) and value.startswith(_PREFIX):
        return {"estimator": value.removeprefix(_PREFIX)}
    if isinstance(value, str):
        raise ValueError(f"expected {_PREFIX}RUN or a mapping")
    return value


Sensors = dict[str, Annotated[SensorConfig, BeforeValidator(_short)]]


@contextmanager
def cameras_of(sensors: Mapping[str, SensorConfig] | None) -> Generator[None]:
    """Within the block, tasks are made with the cameras that estimators look through. Raises UserError where two of one
    name differ, or an estimator's configuration cannot be read."""
    mounts: dict[str, Mount] = {}
    for name, sensor in (sensors or {}).items():
        path = Path(sensor.estimator).expanduser() / "config.yaml"
        if not path.is_file():
            continue  # whoever loads the estimator says so
        try:
            found = TypeAdapter(dict[str, Mount]).validate_python(read_yaml(path).get("mounts") or {})
        except (FileError, ValidationError) as error:
            raise UserError(f"sensors.{name}: {path}: {str(error).splitlines()[0]}") from None
        for camera, mount in found.items():
            if mounts.setdefault(camera, mount) != mount:
                raise UserError(f"sensors.{name}: another estimator's camera {camera!r} hangs elsewhere")
    with mounted(mounts):
        yield
