"""What a robot's actuators exert, as a network learned from its logs (Hwangbo et al., Science Robotics 2019,
arXiv 1901.08652): torque from a short history of position error and velocity, or from a memory of them (a GRU).

`simreal actuator` writes such a network; `task_options.actuator` names its file. The whole file goes on with a run's
configuration and with a bundle's contract, so that both stay what they are wherever they are moved.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import mujoco
import torch
from torch import Tensor
from torch.nn import functional

from envs.common.checkpoint_files import read_tensors
from envs.common.errors import TaskError
from envs.common.messages import listed, near_file, nearest
from envs.common.safe_yaml import FileError

FILE = "actuator.safetensors"  # in the folder that `simreal actuator` writes
VERSION = 1
_LARGEST = 4_000_000  # bytes
SETTLING = 16  # times that a memory sees its first sample before it counts: what was before is not known
_TO_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


@dataclass(frozen=True)
class ActuatorNetwork:
    """Networks of G groups of joints: one that all share, or one for each.

    Attributes:
        joints: names or patterns of the joints that it is for; with a network for each, names in their order.
        period_s: time between two samples of its history.
        history: samples of error and velocity that it sees, the present one first: lags in periods, as (0, 1, 2).
        weights: of its layers, [G, inputs, outputs]; softsign between them. With a memory of H numbers three: of a
            sample [G, 2, 3 H], of the memory [G, H, 3 H], and of what is exerted [G, H, 1].
        biases: [G, 1, outputs].
        mean, scale: of its inputs [G, 1, 2 H]: errors, then velocities, each H samples.
        torque_scale: N m per unit of its output [G, 1, 1].
        limit: largest torque that it was shown, with a margin [G, 1, 1]: it exerts no more.
        about: what is known of it: where it is from and how far it was off on held-back time.
        raw: the file.
        kind: "mlp", of a history, or "gru", of a memory, which sees one sample each period.
    """

    joints: tuple[str, ...]
    period_s: float
    history: tuple[int, ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    mean: Tensor
    scale: Tensor
    torque_scale: Tensor
    limit: Tensor
    about: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    kind: Literal["mlp", "gru"] = "mlp"

    @property
    def shared(self) -> bool:
        """Whether all joints have the same network."""
        return len(self.mean) == 1

    def to(self, device: torch.device, dtype: torch.dtype, groups: list[int] | None = None) -> ActuatorNetwork:
        """The same on a device; of some groups only."""
        pick = slice(None) if groups is None else groups

        def moved(value: Tensor) -> Tensor:
            return value[pick].to(device, dtype)

        return replace(
            self, weights=tuple(map(moved, self.weights)), biases=tuple(map(moved, self.biases)),
            mean=moved(self.mean), scale=moved(self.scale), torque_scale=moved(self.torque_scale),
            limit=moved(self.limit),
        )  # fmt: skip

    def torque(self, inputs: Tensor) -> Tensor:
        """Torques [G, B], N m, for inputs [G, B, 2 H]: errors (command - position) rad, velocities rad/s."""
        x = (inputs - self.mean) / self.scale
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, functional.softsign(x) if i else x, weight)
        return torch.clamp(x * self.torque_scale, -self.limit, self.limit)[..., 0]

    def after(self, sample: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Torques [G, B], N m, and the memory [G, B, H] after a sample [G, B, 2]: error rad, velocity rad/s."""
        memory = gru((sample - self.mean) / self.scale, memory, self.weights, self.biases)
        out = torch.baddbmm(self.biases[2], memory, self.weights[2]) * self.torque_scale
        return torch.clamp(out, -self.limit, self.limit)[..., 0], memory

    def settled(self, sample: Tensor) -> Tensor:
        """The memory [G, B, H] of a motor that has seen nothing but this sample [G, B, 2]."""
        return settled((sample - self.mean) / self.scale, self.weights, self.biases)

    def drives(self, model: mujoco.MjModel) -> dict[int, int]:
        """Actuators of a model that it stands for, and the group of each. Raises TaskError where it is for none."""
        found: dict[int, int] = {}
        at_joints = {
            model.joint(int(model.actuator_trnid[a, 0])).name: a
            for a in range(model.nactuator) if int(model.actuator_trntype[a]) in _TO_JOINT
        }  # fmt: skip
        for group, pattern in enumerate(self.joints):
            hits = [a for name, a in at_joints.items() if fnmatchcase(name, pattern)]
            if not hits or (not self.shared and len(hits) != 1):
                raise TaskError(
                    f"actuator: the network is for joint {pattern!r}, and the model drives none of that name"
                    f"{nearest(pattern, list(at_joints))}; it drives {listed(list(at_joints))}"
                )
            found |= dict.fromkeys(hits, 0 if self.shared else group)
        return dict(sorted(found.items()))

    def packed(self) -> dict[str, str]:
        """The file as plain text, for a configuration."""
        return {"sha256": hashlib.sha256(self.raw).hexdigest(), "content": base64.b64encode(self.raw).decode()}


def gru(x: Tensor, memory: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The memory [G, B, H] after inputs [G, B, inputs]: gates r, z, n in the order of torch.nn.GRU (Cho et al. 2014,
    arXiv 1406.1078)."""
    size = memory.shape[-1]
    seen = torch.baddbmm(biases[0], x, weights[0])
    kept = torch.baddbmm(biases[1], memory, weights[1])
    reset, update = torch.sigmoid(seen[..., : 2 * size] + kept[..., : 2 * size]).split(size, dim=-1)
    new = torch.tanh(seen[..., 2 * size :] + reset * kept[..., 2 * size :])
    return torch.lerp(new, memory, update)


def settled(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The memory [G, B, H] after the same inputs [G, B, inputs] for a while."""
    memory = x.new_zeros(*x.shape[:-1], weights[1].shape[1])
    for _ in range(SETTLING):
        memory = gru(x, memory, weights, biases)
    return memory


def load_actuator(source: Any) -> ActuatorNetwork:
    """A network from its file, the folder that holds it, or what `ActuatorNetwork.packed` says.

    Raises:
        TaskError: there is none, or it is damaged; one line.
    """
    if isinstance(source, Mapping):
        raw = _unpacked(source)
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(raw)
            file.flush()
            return _parsed("actuator", Path(file.name), raw)
    if not isinstance(source, (str, Path)):
        raise TaskError(f"actuator: expected the folder that `simreal actuator` wrote, got {source!r:.80}")
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        raise TaskError(
            f"actuator: {path}: no such file{near_file(path)}; `simreal actuator LOG --output DIR` writes one"
        )
    if path.stat().st_size > _LARGEST:
        raise TaskError(f"actuator: {path}: has more than {_LARGEST} bytes, expected what `simreal actuator` wrote")
    return _parsed(f"actuator: {path}", path, path.read_bytes())


def _unpacked(source: Mapping[Any, Any]) -> bytes:
    content, digest = source.get("content"), source.get("sha256")
    try:
        raw = base64.b64decode(content if isinstance(content, str) else "", validate=True)
    except binascii.Error:
        raw = b""
    if not raw or hashlib.sha256(raw).hexdigest() != digest:
        raise TaskError("actuator: its content is not what its sha256 says: damaged, or edited")
    return raw


def _parsed(where: str, path: Path, raw: bytes) -> ActuatorNetwork:
    try:
        content = read_tensors(path)
    except FileError as error:
        raise TaskError(f"{where}: {error}") from None
    if content.get("kind") != "simreal actuator" or content.get("version") != VERSION:
        raise TaskError(f"{where}: expected what `simreal actuator` of this version wrote")
    try:
        network = ActuatorNetwork(
            tuple(map(str, content["joints"])), float(content["period_s"]), tuple(map(int, content["history"])),
            tuple(content["weights"]), tuple(content["biases"]), content["mean"], content["scale"],
            content["torque_scale"], content["limit"], dict(content["about"]), raw, content.get("network", "mlp"),
        )  # fmt: skip
        _check(network)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise TaskError(f"{where}: damaged: {' '.join(str(error).split())}") from None
    return network


def _check(network: ActuatorNetwork) -> None:
    """Raise ValueError unless its parts fit together."""
    values = (*network.weights, *network.biases, network.mean, network.scale, network.torque_scale, network.limit)
    if not all(bool(torch.isfinite(v).all()) for v in values) or not bool((network.scale > 0).all()):
        raise ValueError("a number in it is not finite, or a scale not positive")
    if not (network.period_s > 0 and network.history and network.history[0] == 0 and min(network.history) >= 0):
        raise ValueError("expected a period above 0, and a history that begins with 0")
    if network.kind not in ("mlp", "gru"):
        raise ValueError(f"a network of kind {network.kind!r}")
    groups = 1 if network.shared else len(network.joints)
    nothing = torch.zeros(groups, 1, 2 * len(network.history), dtype=network.mean.dtype)
    out = network.torque(nothing) if network.kind == "mlp" else network.after(nothing, network.settled(nothing))[0]
    if out.shape != (groups, 1):
        raise ValueError(f"its layers lead to {list(out.shape)}, expected {[groups, 1]}")
