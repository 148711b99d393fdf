"""What a bundle holds of a policy that looks at pictures: graph, golden pictures, what is said of the camera."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.task import Task
from simreal.common.layers import Clip, layers_of
from simreal.deploy.files import relative_error
from simreal.deploy.pictures import PIXELS
from simreal.export.contract import plain
from simreal.export.pictures.camera import camera_entry
from simreal.export.pictures.graph import write_pixel_policy
from simreal.export.source import ExportError, Source, Step
from simreal.export.verify import session_of
from simreal.learners.pixels.layout import PixelLayout
from simreal.learners.pixels.policy import PixelPolicy
from simreal.vision.sensors.pixels import ObservationConfig

PIXEL_TOLERANCE = 1e-4
"""Largest |ONNX Runtime - torch| / max(1, |torch|) of actions: sums of a convolution have hundreds of summands."""
NO_C = (
    "C is not written of policies that look at pictures; without --c the bundle runs wherever ONNX Runtime does "
    "(simreal.deploy.Policy)"
)
_CHECKED = 16  # stacks of noise that are compared


@dataclass(frozen=True)
class Sight:
    """How a policy sees.

    Attributes:
        camera: how its pictures are taken; None: it looks at none.
        pictures: [n, stack, height, width, 3] golden pictures of it, beside patterns; None: patterns alone.
        components: [n, k] what it reads beside them there.
        sensors: components that estimators read, which are exported beside it; see `beside`.
    """

    camera: ObservationConfig | None = None
    pictures: NDArray[np.uint8] | None = None
    components: NDArray[np.float32] | None = None
    sensors: tuple[Mapping[str, Any], ...] = ()


BLIND = Sight()


@dataclass(frozen=True)
class PixelSource(Source):
    """What is exported, of a policy that looks at pictures; `size` is of the components beside them.

    Attributes:
        observation: how pictures are taken.
    """

    observation: ObservationConfig

    @property
    def policy(self) -> PixelPolicy:
        """The policy itself."""
        policy = self.step.policy
        assert isinstance(policy, PixelPolicy)
        return policy

    @property
    def layout(self) -> PixelLayout:
        """What it reads."""
        return self.policy.layout

    @property
    def read(self) -> tuple[str, ...]:
        """Names of the components beside the pictures."""
        return self.layout.components

    def noise(self, count: int, seed: int) -> Tensor:
        """Stacks [count, K, height, width, 3] of bytes: coarse patterns, finer from one to the next."""
        layout, generator = self.layout, torch.Generator().manual_seed(seed)
        shape = (layout.height, layout.width)
        stacks = torch.empty(count, layout.stack, *shape, 3, dtype=torch.uint8)
        for i in range(count):
            cells = min(2 ** (i % 6 + 1), *shape)
            coarse = torch.randint(0, 256, (layout.stack, 3, cells, cells), generator=generator).float()
            fine = nn.functional.interpolate(coarse, size=shape, mode="nearest")
            stacks[i] = fine.permute(0, 2, 3, 1).to(torch.uint8)
        return stacks

    def undecided(self, stacks: Tensor, components: Tensor) -> Tensor:
        """[B] where rounding decides between two discrete actions."""
        ask = getattr(self.policy, "undecided", None)
        none = torch.zeros(len(stacks), dtype=torch.bool)
        return none if ask is None else ask(PIXEL_TOLERANCE, stacks, components)


def prepare_pixels(policy: PixelPolicy, task: Task, observation: ObservationConfig) -> PixelSource:
    """A copy of the policy, if it fits the task. Raises ExportError."""
    step = Step(copy.deepcopy(policy).cpu().eval().requires_grad_(False))
    layout = policy.layout
    if observation.layout(task) != layout:
        raise ExportError(f"the policy looks at other pictures than its configuration says of {task.id}")
    k = len(layout.columns)
    with torch.no_grad():
        shape = (2, layout.stack, layout.height, layout.width, 3)
        action = step(torch.zeros(shape, dtype=torch.uint8), torch.zeros(2, k))[0]
    if action.shape != (2, task.action_size):
        raise ExportError(f"action: expected shape [2, {task.action_size}] for 2 rows, got {list(action.shape)}")
    layers = [*layers_of(policy.actor), Clip(-1.0, 1.0)]
    return PixelSource(step, task, k, policy.normalizer, None, layers, observation)


def with_pictures(contract: dict[str, Any], source: PixelSource) -> dict[str, Any]:
    """A contract that says what pictures are taken. A start of targets that only the state shows becomes one that the
    robot has to be told; see `Policy.reset`.

    Raises:
        ExportError: targets are added to a component that the policy does not read.
    """
    actions = []
    for entry in contract["action"]:
        shown, start = entry.get("relative"), entry["initial_target"]
        if isinstance(shown, dict) and shown["component"] not in source.read:
            raise ExportError(
                f"observation.components: targets of {entry['name']} are added to {shown['component']}, which the "
                "policy does not read beside its pictures; expected it among them"
            )
        unseen = isinstance(start, dict) and start["component"] not in source.read
        actions.append(entry | {"initial_target": None} if unseen else entry)
    return contract | {"schema_version": 3, "pictures": plain(_pictures_entry(source), "pictures"), "action": actions}


def _pictures_entry(source: PixelSource) -> dict[str, Any]:
    """What the contract says of the pictures."""
    pixels, layout, task = source.observation.pixels, source.layout, source.task
    left, top, width, height = layout.crop
    return {
        **camera_entry(task, pixels.camera, layout.width, layout.height),
        "shape": [layout.height, layout.width, 3], "dtype": "uint8", "order": ["height", "width", "colour"],
        "colours": pixels.colours, "stack": layout.stack,
        "crop": {"left": left, "top": top, "width": width, "height": height}, "shrink": layout.shrink,
        "rate_hz": pixels.rate_hz or 1.0 / task.control_period_s, "latency_s": pixels.latency_s, "drop": pixels.drop,
    }  # fmt: skip


def pixel_contents(source: PixelSource, sight: Sight) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """Graph and golden arrays: `pixels` [n, K, height, width, 3], `observations` [n, k], `actions` [n, A].

    Args:
        source: of the policy.
        sight: what it is shown.

    Raises:
        ExportError: ONNX Runtime differs from torch.
    """
    assert source.layers is not None
    stacks = source.noise(4, seed=0)
    components = source.draw(len(stacks), 1.0, seed=0)
    if sight.pictures is not None:
        count, given = len(sight.pictures), sight.components
        stacks = torch.cat((torch.from_numpy(np.ascontiguousarray(sight.pictures)), stacks))
        beside = source.draw(count, 1.0, seed=3) if given is None else torch.from_numpy(given)
        components = torch.cat((beside.reshape(count, source.size), components))
    decided = ~source.undecided(stacks, components)
    stacks, components = stacks[decided], components[decided]
    if not len(stacks):
        raise ExportError("pictures: in each of them two discrete actions are as good as each other")
    with torch.no_grad():
        actions = source.step(stacks, components)[0]
    if not actions.isfinite().all():
        raise ExportError("the policy puts out NaN or infinity; its weights or its normalizer are broken")
    graph = write_pixel_policy(source.policy, source.layers, source.size, source.task.action_size)
    _verify(graph, source, stacks, components)
    golden = {PIXELS: stacks, "observations": components, "actions": actions}
    return graph, {name: value.numpy() for name, value in golden.items()}


def _verify(graph: bytes, source: PixelSource, stacks: Tensor, components: Tensor) -> None:
    """Raise ExportError unless ONNX Runtime answers as torch does, in a batch and row by row."""
    session = session_of(graph)
    stacks = torch.cat((stacks, source.noise(_CHECKED, seed=1)))
    components = torch.cat((components, source.draw(_CHECKED, 1.0, seed=1)))
    decided = ~source.undecided(stacks, components)
    stacks, components = stacks[decided], components[decided]
    with torch.no_grad():
        expected = source.step(stacks, components)[0].numpy()
    for count in (len(stacks), 1):
        answers = []
        for i in range(0, len(stacks), count):
            feeds = {PIXELS: stacks[i : i + count].numpy()}
            feeds |= {"observation": components[i : i + count].numpy()} if source.size else {}
            answers.append(session.run(None, feeds)[0])
        error = relative_error(np.concatenate(answers), expected)
        if not error <= PIXEL_TOLERANCE:
            raise ExportError(
                f"ONNX Runtime's action differs from torch's by {error:.1e}, expected at most {PIXEL_TOLERANCE:g}"
            )
