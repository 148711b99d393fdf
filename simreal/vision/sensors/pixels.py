"""The `observation:` block: policies that look at pictures themselves."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from envs.common.messages import nearest
from envs.task import Task
from randomization.targets.appearance import camera_names
from simreal.common.errors import UserError
from simreal.learners.options import Strict
from simreal.learners.pixels.layout import PixelLayout
from simreal.vision.datasets.plan import check_size
from simreal.vision.rendering.mounts import Mount, mounted

STATE, PIXELS = "state", "pixels"
_SMALLEST = 8  # pixels along an edge of what convolutions see
Edge = Annotated[int, Field(ge=0, le=4096)]


class EncoderConfig(Strict):
    """Convolutions, the first one 8 x 8 with a stride of 4, the others 4 x 4 with one of 2; what they find becomes
    `features` numbers."""

    channels: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (16, 32),
        min_length=1,
        max_length=6,
        description="of the convolutions: the first shrinks to a quarter, the others to a half",
    )
    features: int = Field(50, ge=1, le=4096, description="that networks read of the pictures")


class PixelsConfig(Strict):
    """A camera, and what a policy makes of its pictures."""

    camera: str = Field("view", description="'view', one of the model's, or one of mounts")
    mounts: dict[str, Mount] = Field(default_factory=dict, description="cameras beside the model's, by name")
    size: Annotated[int, Field(ge=1)] | tuple[int, int] = Field(
        64, description="of the camera's pictures, pixels: an edge, or width and height"
    )
    crop: tuple[Edge, Edge, Edge, Edge] | None = Field(
        None, description="left, top, width and height of the part that is looked at; null: all"
    )
    shrink: int = Field(1, ge=1, le=16, description="edge of the squares of pixels whose mean is one of the network's")
    colours: Literal["rgb", "bgr"] = Field("rgb", description="order in a pixel of the robot's camera")
    stack: int = Field(3, ge=1, le=16, description="pictures that are looked at: the present one and those before it")
    shift: int = Field(4, ge=0, le=64, description="most pixels by which pictures are moved at random when learnt from")
    rate_hz: float | None = Field(None, gt=0, description="pictures per second; null: one in every control step")
    latency_s: float = Field(0.0, ge=0, le=10, description="from a picture to the policy, s")
    drop: float = Field(0.0, ge=0, lt=1, description="probability that a picture is lost")
    encoder: EncoderConfig = EncoderConfig()  # pyright: ignore[reportCallIssue]

    @property
    def width(self) -> int:
        """Of the camera's pictures, pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def height(self) -> int:
        """Of the camera's pictures, pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]


class ObservationConfig(Strict):
    """What a policy reads that looks at pictures."""

    pixels: PixelsConfig = PixelsConfig()  # pyright: ignore[reportCallIssue]
    components: tuple[str, ...] | None = Field(
        None, description="of the observation, read beside the pictures; null: the goal, where the task has one"
    )
    critic: Literal["state", "pixels"] = Field(
        "state", description="what the critic reads: all that the simulator knows, or what the policy reads"
    )

    def layout(self, task: Task) -> PixelLayout:
        """For a task, made with the cameras of `mounts`. Raises UserError, naming the key."""
        pixels = self.pixels
        names = camera_names(task.model)
        if pixels.camera not in names:
            raise UserError(
                f"observation.pixels.camera: no camera {pixels.camera!r}{nearest(pixels.camera, names)}; there are: "
                f"{', '.join(names)}"
            )
        try:
            check_size(pixels.width, pixels.height)
        except UserError as error:
            raise UserError(f"observation.pixels.{error}") from None
        edge = min(self._crop()[2:]) // pixels.shrink
        if edge < 4 * 2 ** (len(pixels.encoder.channels) - 1):
            most = (edge // 4).bit_length()
            raise UserError(
                f"observation.pixels.encoder.channels: expected at most {most} convolutions of {edge} pixels, got "
                f"{len(pixels.encoder.channels)}"
            )
        slices = task.slices()
        chosen = self._chosen(task)
        for name in chosen:
            if name not in slices:
                raise UserError(
                    f"observation.components: no component {name!r}{nearest(name, slices)}; there are: "
                    f"{', '.join(slices)}"
                )
        return PixelLayout(
            pixels.height, pixels.width, self._crop(), pixels.shrink, pixels.stack, pixels.shift,
            tuple(i for name in slices if name in chosen for i in range(slices[name].start, slices[name].stop)),
            tuple(name for name in slices if name in chosen), self.critic == "state", pixels.encoder.channels,
            pixels.encoder.features,
        )  # fmt: skip

    def _chosen(self, task: Task) -> tuple[str, ...]:
        """Components read beside the pictures. Raises UserError where a goal is not among them: none shows in the
        pictures."""
        if self.components is None:
            return ("desired_goal",) if task.goal_size else ()
        if task.goal_size and "desired_goal" not in self.components:
            raise UserError(
                f"observation.components: the pictures do not show the goal of {task.id}; expected desired_goal among "
                "them"
            )
        return self.components

    def _crop(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of what is looked at. Raises UserError."""
        pixels = self.pixels
        left, top, width, height = pixels.crop or (0, 0, pixels.width, pixels.height)
        if left + width > pixels.width or top + height > pixels.height:
            raise UserError(
                f"observation.pixels.crop: expected a part of the {pixels.width} x {pixels.height} pixels, got "
                f"{list(pixels.crop or ())}"
            )
        if width % pixels.shrink or height % pixels.shrink or min(width, height) < _SMALLEST * pixels.shrink:
            raise UserError(
                f"observation.pixels.shrink: expected a divisor of {width} and {height} that leaves at least "
                f"{_SMALLEST} pixels, got {pixels.shrink}"
            )
        return left, top, width, height


def _short(value: Any) -> Any:
    """`pixels` and `state` in place of a mapping and of nothing."""
    if value == PIXELS:
        return {}
    if isinstance(value, str) and value != STATE:
        raise ValueError(f"expected {STATE}, {PIXELS} or a mapping with {PIXELS}, got {value!r:.80}")
    return None if value == STATE else value


Observation = Annotated[
    ObservationConfig | None,
    BeforeValidator(_short, json_schema_input_type=ObservationConfig | Literal["state", "pixels"] | None),
]


@contextmanager
def camera_of(observation: ObservationConfig | None) -> Generator[None]:
    """Within the block, tasks are made with the cameras that a policy may look through."""
    with mounted({} if observation is None else observation.pixels.mounts):
        yield
