"""Writes an estimator as a bundle: a directory that `simreal.deploy.Estimator` loads without torch and MuJoCo.

The graph ends where the network does; places, angles and rotations are made of its numbers by `simreal.deploy`.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simreal.common.errors import UserError
from simreal.common.json_io import read_json
from simreal.common.layers import array, layers_of
from simreal.deploy.files import GOLDEN, UNSIGNED, BundleError, relative_error
from simreal.deploy.pictures import PIXELS
from simreal.deploy.seeing.estimator import ESTIMATOR, ESTIMATOR_FORMAT, ESTIMATOR_GRAPH
from simreal.deploy.seeing.estimator import Estimator as Deployed
from simreal.export.contract import describe_randomization, plain, versions
from simreal.export.folders import Kind, signed
from simreal.export.onnx_writer import Graph
from simreal.export.pictures.camera import camera_entry
from simreal.export.pictures.graph import as_maps, convolved
from simreal.export.source import ExportError
from simreal.training.checkpoint import EVALUATION
from simreal.vision.datasets.maker import ChunkMaker
from simreal.vision.datasets.plan import RANDOM, worlds_of
from simreal.vision.estimator.loading import Estimator, load_estimator
from simreal.vision.estimator.network import EstimatorNetwork

_TOLERANCE = 1e-4  # of estimates, relative to at least 1
_SHOWN, _PATTERNS = 4, 2  # golden pictures of the task, and of noise
_KIND = Kind("estimator", (ESTIMATOR, ESTIMATOR_GRAPH, GOLDEN), (ESTIMATOR, f'"format": "{ESTIMATOR_FORMAT}"'))


def export_run(run: Path, output: Path) -> str:
    """`simreal export` of an estimator; returns what to tell. Raises UserError."""
    estimator = load_estimator(run)
    try:
        export_estimator(estimator, output, read_json(run / EVALUATION))
    except ExportError as error:
        raise UserError(f"{run}: {error}") from None
    read = ", ".join(target.name for target in estimator.targets)
    return f"{output}: exported an estimator of {read} in {estimator.config.task}"


def export_estimator(
    estimator: Estimator, output: str | os.PathLike[str], evaluation: Mapping[str, Any] | None = None
) -> Path:
    """Write an estimator as a bundle.

    Args:
        estimator: trained.
        output: directory to write; an estimator there is replaced, anything else is refused.
        evaluation: its figures, as `simreal estimate --json` gives them.

    Returns `output`.

    Raises:
        ExportError: what ONNX Runtime reads of golden pictures differs from torch's by more than 1e-4, or `output`
            holds something else. Then nothing is written.
    """
    target = Path(output).resolve()
    _KIND.refuse_foreign(target)
    pictures = _golden_pictures(estimator)
    found = estimator.estimate(pictures)
    expected = {target.name: found[target.name][0].double().numpy() for target in estimator.targets}
    if not all(np.isfinite(value).all() for value in expected.values()):
        raise ExportError(f"{estimator.name}: reads NaN or infinity; its weights are broken")
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **{PIXELS: pictures, **expected})
    graph = write_estimator(estimator.network, pictures.shape[1:4])
    files = {ESTIMATOR_GRAPH: graph, GOLDEN: arrays.getvalue()}
    contract = _contract(estimator, evaluation)

    def check(folder: Path) -> None:
        try:
            loaded = Deployed.load(folder)
        except BundleError as error:
            raise ExportError(f"the bundle cannot be loaded: {str(error).replace(str(folder), str(target))}") from None
        shown = loaded.of_stacks(pictures)
        for name in expected:
            error = relative_error(shown[name][0], expected[name])
            if not error <= _TOLERANCE:
                raise ExportError(f"{name}: ONNX Runtime differs from torch by {error:.1e}, expected {_TOLERANCE:g}")

    try:
        _KIND.write(target, files | {ESTIMATOR: signed(contract, files)}, check)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror}") from None
    return Path(output)


def _contract(estimator: Estimator, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    config, task = estimator.config, estimator.config.make_task()
    run = {"seed": config.seed, "frames": estimator.frames, "config": config.model_dump(mode="json")}
    looks = worlds_of(task, config.randomization).looks
    looks.load_state_dict(estimator.looks)
    pixels = {
        "shape": [config.height, config.width, 3], "dtype": "uint8", "order": ["height", "width", "colour"],
        "colours": "rgb",
    }  # fmt: skip
    cameras = [camera_entry(config.make_task(), name, config.width, config.height) | pixels for name in config.cameras]
    targets = [
        {"name": t.name, "kind": t.kind, "size": t.size, "elements": list(t.elements), "error_unit": t.unit,
         "within": t.within, "unit": task_unit(task, t.name)}
        for t in estimator.targets
    ]  # fmt: skip
    return {
        "format": ESTIMATOR_FORMAT, "schema_version": 1, "contract_sha256": UNSIGNED, "task": config.task,
        "cameras": plain(cameras, "cameras"), "targets": targets, "follows": followed(estimator),
        "randomization": describe_randomization(looks), "evaluation": plain(evaluation, "evaluation"),
        "run": plain(run, "run"),
        "tolerance": _TOLERANCE, "versions": versions(),
    }  # fmt: skip


def followed(estimator: Estimator) -> list[dict[str, Any]]:
    """What follows from what is read, with the arithmetic, as far as a bundle can have it."""
    task, found = estimator.task, []
    for target in estimator.readings[len(estimator.targets) :]:
        rule = task.picture_rule(target.name)
        if rule is not None:
            of = list(task.read_through[target.name])
            found.append({"name": target.name, "unit": task_unit(task, target.name), "of": of, **rule})
    return found


def task_unit(task: Any, name: str) -> str:
    """The unit of a component, of either group or beside them."""
    return next(c.unit for c in (*task.observation, *task.pictured) if c.name == name)


def _golden_pictures(estimator: Estimator) -> NDArray[np.uint8]:
    """Pictures [n, cameras, height, width, 3]: of the task, where this machine can render, and patterns."""
    config = estimator.config
    shape = (_PATTERNS, len(config.cameras), config.height, config.width, 3)
    patterns = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    try:
        shown = ChunkMaker(replace(config.plan(), states=RANDOM)).chunk(0, pictures=1).pictures[:_SHOWN]
    except UserError:
        return patterns
    return np.concatenate((shown, patterns))


def write_estimator(network: EstimatorNetwork, shape: tuple[int, ...]) -> bytes:
    """The ONNX file of an estimator: `pixels` [batch, cameras, height, width, 3] uint8 -> `outputs` [batch, n].

    Args:
        network: the weights.
        shape: cameras, height and width of pictures.
    """
    graph, (cameras, height, width) = Graph(), shape
    x = as_maps(graph, PIXELS, 3, height, width)
    x = graph.add("Sub", [graph.add("Div", [x, graph.weight(127.5)]), graph.weight(1.0)])
    channels = 3
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            x = convolved(graph, x, layer)
            channels, stride = layer.out_channels, layer.stride[0]
            height, width = -(-height // stride), -(-width // stride)
        elif isinstance(layer, nn.GroupNorm):
            x = _normalized(graph, x, layer, height, width)
        else:
            assert isinstance(layer, nn.ReLU)
            x = graph.add("Relu", [x])
    maps, x = x, _places(graph, x, channels, height, width, float(network.places.log_sharpness.detach().exp()))
    if network.grid:
        cell = [height // network.grid, width // network.grid]
        cells = graph.add("AveragePool", [maps], kernel_shape=cell, strides=cell)
        cells = graph.add("Reshape", [cells, _sizes(graph, 0, channels * network.grid**2)])
        x = graph.add("Concat", [x, cells], axis=1)
    x = graph.add("Reshape", [x, _sizes(graph, -1, cameras * (3 + network.grid**2) * channels)])
    for layer in layers_of(network.head):
        x = graph.plain(layer, x)
    factor, shift = _units(network)
    graph.add("Add", [graph.add("Mul", [x, graph.weight(factor)]), graph.weight(shift)], ["outputs"])
    return graph.file({}, {"outputs": len(factor)}, {PIXELS: (*shape, 3)})


def _sizes(graph: Graph, *sizes: int) -> str:
    return graph.weight(np.array(sizes, dtype=np.int64))


def _normalized(graph: Graph, x: str, layer: nn.GroupNorm, height: int, width: int) -> str:
    """A group's maps as one instance: opset 20 scales groups, torch scales channels."""
    groups, channels = layer.num_groups, layer.num_channels
    x = graph.add("Reshape", [x, _sizes(graph, 0, groups, -1)])
    flat = [graph.weight(np.full(groups, value, np.float32)) for value in (1.0, 0.0)]
    x = graph.add("InstanceNormalization", [x, *flat], epsilon=layer.eps)
    x = graph.add("Reshape", [x, _sizes(graph, -1, channels, height, width)])
    scale, bias = (graph.weight(array(value)[:, None, None]) for value in (layer.weight, layer.bias))
    return graph.add("Add", [graph.add("Mul", [x, scale]), bias])


def _places(graph: Graph, x: str, features: int, height: int, width: int, sharpness: float) -> str:
    """See `SpatialSoftmax`: [B, features, h, w] -> [B, 3 features]."""
    flat = graph.add("Reshape", [x, _sizes(graph, 0, features, height * width)])
    weights = graph.add("Softmax", [graph.add("Mul", [flat, graph.weight(sharpness)])], axis=2)
    right, down = (torch.linspace(-1.0, 1.0, n).numpy() for n in (width, height))
    where = np.stack((np.tile(right, height), np.repeat(down, width)), axis=1)  # [h w, 2]
    places = graph.add("Transpose", [graph.add("MatMul", [weights, graph.weight(where)])], perm=[0, 2, 1])
    places = graph.add("Reshape", [places, _sizes(graph, -1, 2 * features)])
    strength = graph.add("Tanh", [graph.add("ReduceMax", [flat, _sizes(graph, 2)], keepdims=0)])
    return graph.add("Concat", [places, strength], axis=1)


def _units(network: EstimatorNetwork) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What outputs are multiplied by, and what is added, to be in the components' units; see `EstimatorNetwork`."""
    factors, shifts = [], []
    for i, target in enumerate(network.targets):
        factor, shift = np.ones(target.outputs, np.float32), np.zeros(target.outputs, np.float32)
        if target.kind == "position":
            scale = float(getattr(network, f"scale{i}"))
            factor[: target.size], shift[: target.size] = scale, array(getattr(network, f"middle{i}"))
            shift[target.size :] = math.log(scale)
        factors.append(factor)
        shifts.append(shift)
    return np.concatenate(factors), np.concatenate(shifts)
