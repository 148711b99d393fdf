"""The one schema of an estimator: what may stand in its YAML file, with defaults, ranges and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from envs.registry import make_task
from envs.task import Task
from randomization.config import RandomizationConfig, first_problem
from simreal.common.errors import UserError
from simreal.common.trusted_code import module_of, use_current_folder
from simreal.learners.options import Strict
from simreal.training.run_config import apply_overrides, find_config, read_yaml
from simreal.vision.datasets.plan import FRAMES, RANDOM, PicturePlan, check_cameras, check_size, worlds_of
from simreal.vision.estimator.targets import Kind, Target, find_target
from simreal.vision.rendering.mounts import Mount, mounted

Width = Annotated[int, Field(ge=1, le=4096)]
LOOKS = ("nominal", "trained", "held_out", "blur", "occluder")
_VISION_ADR = {"thresholds": [0.3, 0.7], "buffer_size": 240}  # arXiv 1910.07113, table 15
Look = Literal["nominal", "trained", "held_out", "blur", "occluder"]


class TargetConfig(Strict):
    """Something that is read from pictures: a component of the task's observation."""

    kind: Kind | Literal["auto"] = Field("auto", description="what its numbers mean; auto: as its unit says")
    within: float = Field(gt=0, description="m or rad; an estimate with a smaller error counts as right")


class PicturesConfig(Strict):
    """Where pictures come from."""

    folder: str | None = Field(None, description="of `simreal render`; null: rendered on the fly")
    states: str = Field(RANDOM, description="on the fly: 'random' actions, or the run whose policy acts")
    per_episode: int | None = Field(
        None, ge=1, le=FRAMES,
        description="on the fly: of one environment before it begins anew; null: as its episode lasts, up to 64",
    )  # fmt: skip
    workers: int | None = Field(None, ge=0, le=256, description="rendering processes; null: all processors but one")


class NetworkConfig(Strict):
    """Convolutions that all cameras share, places of features in each picture, and a network on all of them."""

    channels: tuple[Width, ...] = Field((16, 32, 48, 48), min_length=2, max_length=8, description="of convolutions")
    halvings: int = Field(2, ge=1, le=5, description="how many of them halve the picture, the first ones")
    features: int = Field(32, ge=1, le=1024, description="whose places are found in each picture")
    grid: int = Field(
        0, ge=0, le=64,
        description="cells along an edge of a picture, in each of which every feature is averaged too; 0: none",
    )  # fmt: skip
    hidden: tuple[Width, ...] = Field((256,), min_length=1, max_length=4, description="of the network on them")


class EstimatorTrainConfig(Strict):
    """How long to train, and what to write down on the way."""

    frames: int = Field(100_000, ge=1, description="fresh pictures in all (of a folder: pictures shown)")
    batch_size: int = Field(64, ge=2, le=8192, description="pictures in a gradient step")
    passes: int = Field(1, ge=1, le=100, description="times that each fresh picture is used")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, at the start; it falls to 0 along a cosine")
    round_chunks: int = Field(2, ge=1, le=64, description="chunks of about 256 pictures that are shuffled together")
    log_interval: int = Field(5_000, ge=1, description="pictures between rows of metrics.csv and adr.csv")
    checkpoint_interval_s: float = Field(60.0, gt=0, description="seconds between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that are kept")
    torch_threads: int | None = Field(None, ge=1, le=1024, description="null: half of the processors")


class EstimatorEvaluateConfig(Strict):
    """Fresh pictures that the training never had."""

    frames: int = Field(2_000, ge=16, description="in each look")
    seed: int = Field(1_000_003, ge=0, description="of states and looks")
    looks: tuple[Look, ...] = Field(LOOKS, min_length=1, description="see docs/vision.md")
    reach: float = Field(0.5, gt=0, le=10, description="held_out: how far beyond the ranges, in their widths")
    boundary_frames: int = Field(100, ge=0, description="sampler adr: pictures at each of its final boundaries")


class EstimatorConfig(Strict):
    """One estimator, complete."""

    task: str = Field(description="an id of `simreal envs`, or module:Class")
    task_options: dict[str, Any] = Field(default_factory=dict, description="arguments of the task")
    cameras: tuple[str, ...] = Field(("view",), description="one to three: 'view', the model's, or those of mounts")
    mounts: dict[str, Mount] = Field(default_factory=dict, description="cameras beside the model's, by name")
    size: Annotated[int, Field(ge=1)] | tuple[int, int] = Field(96, description="pixels: an edge, or width and height")
    seed: int = Field(0, ge=0, lt=2**63, description="of every random draw")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the network runs")
    targets: dict[str, TargetConfig] = Field(min_length=1, description="components of the observation, by name")
    pictures: PicturesConfig = PicturesConfig()  # pyright: ignore[reportCallIssue]
    network: NetworkConfig = NetworkConfig()  # pyright: ignore[reportCallIssue]
    randomization: RandomizationConfig = Field(
        default_factory=lambda: RandomizationConfig.model_validate({"adr": _VISION_ADR}), description="of the pictures"
    )
    train: EstimatorTrainConfig = EstimatorTrainConfig()  # pyright: ignore[reportCallIssue]
    evaluate: EstimatorEvaluateConfig = EstimatorEvaluateConfig()  # pyright: ignore[reportCallIssue]

    @field_validator("randomization", mode="before")
    @classmethod
    def _of_vision(cls, block: Any) -> Any:
        """ADR of looks has the published thresholds unless the block says others: shares of pictures read well."""
        if not isinstance(block, Mapping) or not isinstance(block.get("adr") or {}, Mapping):
            return block
        return {**block, "adr": _VISION_ADR | dict(block.get("adr") or {})}

    @model_validator(mode="after")
    def _goes_together(self) -> EstimatorConfig:
        if self.network.halvings > len(self.network.channels):
            raise ValueError(f"network.halvings: expected at most {len(self.network.channels)}, one per convolution")
        edges = [self.width, self.height]
        for _ in range(self.network.halvings):
            edges = [-(-edge // 2) for edge in edges]
        if self.network.grid and any(edge % self.network.grid for edge in edges):
            raise ValueError(
                f"network.grid: expected a number that divides {' and '.join(map(str, sorted(set(edges))))}, the edges "
                f"of pictures halved {self.network.halvings} times, got {self.network.grid}"
            )
        if self.pictures.folder is not None and self.randomization.sampler in ("adr", "doraemon"):
            raise ValueError("pictures.folder: ranges that widen need fresh pictures; expected null")
        if self.randomization.sampler == "doraemon":
            raise ValueError("randomization.sampler: estimators take none, manual, adr or frozen")
        return self

    @property
    def width(self) -> int:
        """Of pictures, pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def height(self) -> int:
        """Of pictures, pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

    def to_yaml(self) -> str:
        """The complete configuration, defaults included."""
        document = self.model_dump(mode="json", by_alias=True)
        return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)

    def make_task(self) -> Task:
        """A new instance of the task, with the cameras that are put up."""
        with mounted(self.mounts):
            return make_task(self.task, **self.task_options)

    def plan(self) -> PicturePlan:
        """The pictures that it is trained on, where they are rendered on the fly."""
        return PicturePlan(
            self.task, self.cameras, self.width, self.height, self.seed, self.pictures.states, self.task_options,
            self.mounts, self.randomization.model_dump(mode="json", by_alias=True),
            per_episode=self.pictures.per_episode,
        )  # fmt: skip

    def find_targets(self, task: Task) -> list[Target]:
        """What is read from pictures. Raises UserError, naming the key."""
        return [find_target(task, name, target.kind, target.within) for name, target in self.targets.items()]


def parse_estimator(document: Mapping[str, Any], source: str) -> EstimatorConfig:
    """Validate a document, its task, cameras, targets and randomization. Raises UserError: source, key, what is
    wrong."""
    try:
        config = EstimatorConfig.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, EstimatorConfig)}") from None
    try:
        task = config.make_task()
        check_cameras(task, config.cameras)
        check_size(config.width, config.height)
        config.find_targets(task)
        worlds_of(task, config.randomization)
        return config.model_copy(update={"randomization": config.randomization.resolved(task)})
    except (UserError, ValueError, OSError) as error:
        raise UserError(f"{source}: {error}") from None


def load_estimator_config(name: str, overrides: Sequence[str] = ()) -> EstimatorConfig:
    """A configuration by path or shipped name. Raises UserError."""
    path = find_config(name)
    document = apply_overrides(read_yaml(path), overrides)
    if "learner" in document:
        raise UserError(f"{path}: is of a policy, for `simreal train`; expected one of an estimator, with targets")
    if module_of(document.get("task")) is not None:
        use_current_folder()
    return parse_estimator(document, str(path))


def estimator_config(run: Path) -> EstimatorConfig:
    """The configuration of an estimator's run directory. Raises UserError."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run}: has no config.yaml; expected a run directory of `simreal estimate`")
    document = read_yaml(path)
    if "targets" not in document:
        raise UserError(f"{run}: is a run of a policy; expected one of `simreal estimate`")
    return parse_estimator(document, str(path))
