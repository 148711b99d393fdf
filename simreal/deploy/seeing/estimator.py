"""Runs an exported estimator, which reads components of the observation from pictures, and a policy on what it reads.

Part of `simreal.deploy`, which imports nothing else of simreal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..bundle_reader import CONTRACT
from ..files import (
    GOLDEN,
    GOLDEN_TOLERANCE,
    Array,
    BundleError,
    blaming,
    check_sha256,
    open_arrays,
    open_session,
    parse_signed,
    read_file,
    relative_error,
    stated_files,
    unknown_name,
)
from ..pictures import PIXELS, Bytes, Pictures, read_pictures
from ..policy import Policy
from .follows import read_follows
from .rotations import matrix_to_euler, matrix_to_quat, six_to_matrix

if TYPE_CHECKING:
    import onnxruntime

ESTIMATOR, ESTIMATOR_GRAPH = "estimator.json", "estimator.onnx"
ESTIMATOR_FORMAT = "simreal-estimator"
_LOG_STD = (-9.0, 3.0)
_KINDS = ("position", "quaternion", "euler", "angles")


@dataclass(frozen=True)
class Read:
    """One component that an estimator reads.

    Attributes:
        name, kind: of the component.
        size: its values.
        start, stop: where the network's numbers for it lie.
    """

    name: str
    kind: str
    size: int
    start: int
    stop: int

    def estimate(self, outputs: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values [B, size] and standard deviations (of a rotation one) of a network's outputs [B, n]."""
        numbers = outputs[:, self.start : self.stop].astype(np.float64)
        spreads = 1 if self.kind in ("quaternion", "euler") else self.size
        raw, deviation = numbers[:, :-spreads], np.exp(np.clip(numbers[:, -spreads:], *_LOG_STD))
        if self.kind == "position":
            return raw, deviation
        if self.kind == "angles":
            return np.arctan2(raw[:, self.size :], raw[:, : self.size]), deviation
        matrix = six_to_matrix(raw)
        return (matrix_to_euler(matrix) if self.kind == "euler" else matrix_to_quat(matrix)), deviation


class Estimator:
    """An estimator with its contract; `Estimator.load` makes one.

    Attributes:
        contract: the parsed estimator.json.
        cameras: whose pictures it takes, in order.
        reads: the components that it reads.
        follows: those that follow from these.
    """

    def __init__(self, contract: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
        self.contract, self._session = contract, session
        self.cameras, self.reads = _cameras(contract), _reads(contract)
        self.follows = read_follows(contract, {read.name: (read.kind, read.size) for read in self.reads})

    @classmethod
    def load(cls, bundle: str | os.PathLike[str]) -> Estimator:
        """Load an estimator's bundle; prove that it is whole and reads here what it read where it was exported.

        Raises:
            BundleError: a file is missing, altered or unreadable, or the golden estimates do not come back.
        """
        folder = Path(bundle)
        if not (folder / ESTIMATOR).is_file():
            raise BundleError(f"{folder}: no such estimator; expected a directory with {ESTIMATOR}, see simreal export")
        with blaming(folder / ESTIMATOR):
            contract = parse_signed(read_file(folder / ESTIMATOR), ESTIMATOR_FORMAT, (1,))
            cameras, reads = _cameras(contract), _reads(contract)
            read_follows(contract, {read.name: (read.kind, read.size) for read in reads})
            files = stated_files(contract, (ESTIMATOR_GRAPH, GOLDEN))
        contents = {}
        for name, (size, digest) in files.items():
            with blaming(folder / name):
                contents[name] = read_file(folder / name)
                check_sha256(contents[name], size, digest)
        shape = [len(cameras), *cameras[0].shape]
        with blaming(folder / ESTIMATOR_GRAPH):
            outputs = {"outputs": [reads[-1].stop]}
            session = open_session(contents[ESTIMATOR_GRAPH], {PIXELS: shape}, outputs, PIXELS)
        estimator = cls(contract, session)
        with blaming(folder / GOLDEN):
            kinds: dict[str, tuple[tuple[int, ...], Any]] = {PIXELS: (tuple(shape), np.uint8)}
            kinds |= {read.name: ((read.size,), np.float64) for read in reads}
            estimator._replay(open_arrays(contents[GOLDEN], kinds))
        return estimator

    def __call__(self, pictures: Mapping[str, ArrayLike] | ArrayLike) -> dict[str, tuple[Any, Any]]:
        """What pictures show.

        Args:
            pictures: by camera, [height, width, 3] in bytes as the contract states them, or [B, height, width, 3];
                of a single camera the picture itself.

        Returns:
            By component, values [size] or [B, size] in the contract's units, and standard deviations: how unsure the
            network is, in m or rad; of a rotation one.

        Raises:
            ValueError: pictures of another camera, type, size or number.
        """
        given = pictures if isinstance(pictures, Mapping) else {self.cameras[0].camera: pictures}
        names = [camera.camera for camera in self.cameras]
        for name in given:
            if name not in names:
                raise ValueError(unknown_name("unknown camera", str(name), names, "this estimator"))
        found: list[Bytes] = []
        for camera in self.cameras:
            if camera.camera not in given:
                raise ValueError(f"{camera.camera}: missing; this estimator takes pictures of: {', '.join(names)}")
            found.append(camera.checked(given[camera.camera], camera.camera))
            if found[-1].shape != found[0].shape:
                raise ValueError(f"{camera.camera}: expected as many pictures as of {names[0]}")
        single = found[0].ndim == 3
        stack = np.stack([f[None] if single else f for f in found], axis=1)
        estimates = self.of_stacks(stack)
        return {n: (v[0], d[0]) for n, (v, d) in estimates.items()} if single else estimates

    def of_stacks(self, stack: Bytes) -> dict[str, tuple[Any, Any]]:
        """The same of pictures [B, cameras, height, width, 3]."""
        outputs: Any = self._session.run(["outputs"], {PIXELS: np.ascontiguousarray(stack)})[0]
        found = {read.name: read.estimate(outputs) for read in self.reads}
        return found | {one.name: one.estimate(found) for one in self.follows}

    def _replay(self, golden: dict[str, NDArray[Any]]) -> None:
        """Raise BundleError unless the golden estimates come back."""
        estimates = self.of_stacks(golden[PIXELS])
        for read in self.reads:
            error = relative_error(estimates[read.name][0], golden[read.name])
            if not error <= GOLDEN_TOLERANCE:
                raise BundleError(
                    f"{ESTIMATOR_GRAPH} reads another {read.name} on this machine: off by {error:.1e}, expected at "
                    f"most {GOLDEN_TOLERANCE:g}"
                )


class SeeingPolicy:
    """A policy whose observation estimators read in part.

    Pictures come at their cameras' rate: give them to `see` when they do. In between the last estimates stay, as in
    training with `sensors`.

    Args:
        policy: to be asked.
        estimators: by component of its observation.

    Raises:
        ValueError: an estimator is of another task, or does not read its component.
    """

    def __init__(self, policy: Policy, estimators: Mapping[str, Estimator]) -> None:
        observed = [part.name for part in policy.layout.observation]
        if not estimators:
            raise ValueError(f"estimators: expected one for a component; the policy observes {', '.join(observed)}")
        for name, estimator in estimators.items():
            task, other = policy.contract.get("task"), estimator.contract.get("task")
            if task != other:
                raise ValueError(f"{name}: the estimator is of {other}, expected one of {task}")
            if name not in observed:
                raise ValueError(unknown_name("unknown observation component", name, observed))
            read = [r.name for r in (*estimator.reads, *estimator.follows)]
            if name not in read:
                raise ValueError(f"{name}: the estimator reads {', '.join(read)}, and not {name}")
        self.policy, self.estimators = policy, dict(estimators)
        self._known: dict[str, Any] = {}

    @classmethod
    def load(cls, bundle: str | os.PathLike[str]) -> SeeingPolicy:
        """A policy with the estimators that were exported beside it: its contract names them under `sensors`.

        Raises:
            BundleError: a bundle is not there, cannot be trusted, or is another one than the policy was exported with.
        """
        policy, folder = Policy.load(bundle), Path(bundle).resolve().parent
        entries = policy.contract.get("sensors")
        with blaming(Path(bundle) / CONTRACT):
            if not isinstance(entries, list) or not entries or not all(map(_names_a_bundle, entries)):
                raise BundleError("sensors: expected component, bundle and contract_sha256 of every estimator")
        loaded: dict[str, Estimator] = {}
        found: dict[str, Estimator] = {}
        for entry in entries:
            name = entry["bundle"]
            loaded[name] = loaded.get(name) or Estimator.load(folder / name)
            if loaded[name].contract["contract_sha256"] != entry["contract_sha256"]:
                raise BundleError(
                    f"{folder / name}: another estimator than {bundle} was exported with; export both again"
                )
            found[entry["component"]] = loaded[name]
        try:
            return cls(policy, found)
        except ValueError as error:
            raise BundleError(f"{bundle}: sensors: {error}") from None

    def reset(self, **more: Any) -> None:
        """Forget the episode so far, its estimates included; arguments as of `Policy.reset`."""
        self._known = {}
        self.policy.reset(**more)

    def see(self, pictures: Mapping[str, ArrayLike] | ArrayLike) -> dict[str, Any]:
        """Take new pictures in, see `Estimator`; of several cameras those that have one.

        Returns:
            What is known now of the components that are read, by name.

        Raises:
            ValueError: an unknown camera, or a picture of another type or size.
        """
        estimators = list(dict.fromkeys(self.estimators.values()))
        cameras = [camera.camera for estimator in estimators for camera in estimator.cameras]
        given = pictures if isinstance(pictures, Mapping) else {cameras[0]: pictures}
        for name in given:
            if name not in cameras:
                raise ValueError(unknown_name("unknown camera", str(name), cameras, "this estimator"))
        for estimator in estimators:
            own = {c.camera: given[c.camera] for c in estimator.cameras if c.camera in given}
            if own:
                found = estimator(own)
                self._known |= {name: found[name][0] for name, e in self.estimators.items() if e is estimator}
        return dict(self._known)

    def __call__(self, observation: Mapping[str, ArrayLike]) -> Array:
        """The action for the components that no picture shows, see `Policy`, and the last estimates of the others.

        Raises:
            ValueError: a component was not seen in this episode yet, or is given although it is read.
        """
        for name in self.estimators:
            if name not in self._known:
                raise ValueError(
                    f"observation component {name!r}: no picture showed it in this episode; call see() first"
                )
            if name in observation:
                raise ValueError(f"observation component {name!r}: is read from pictures; leave it out")
        return self.policy({**observation, **self._known})

    def targets(self, action: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """What is sent to the robot for an action; see `Policy.targets`."""
        return self.policy.targets(action)


def _names_a_bundle(entry: Any) -> bool:
    """Whether an entry of `sensors` names an estimator that lies beside the policy's bundle."""
    keys = ("component", "bundle", "contract_sha256")
    good = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in keys)
    return good and entry["bundle"] == Path(entry["bundle"]).name


def _cameras(contract: Mapping[str, Any]) -> tuple[Pictures, ...]:
    entries = contract.get("cameras")
    if not isinstance(entries, list) or not entries:
        raise BundleError("cameras: expected a list of cameras")
    try:
        found = tuple(read_pictures(entry, f"cameras[{i}]") for i, entry in enumerate(entries))
    except ValueError as error:
        raise BundleError(str(error)) from None
    if len({camera.shape for camera in found}) > 1:
        raise BundleError("cameras: expected pictures of one size")
    return found


def _reads(contract: Mapping[str, Any]) -> tuple[Read, ...]:
    entries, found = contract.get("targets"), list[Read]()
    if not isinstance(entries, list) or not entries:
        raise BundleError("targets: expected a list of components")
    for i, entry in enumerate(entries):
        name, kind, size = (entry.get(key) if isinstance(entry, dict) else None for key in ("name", "kind", "size"))
        if not isinstance(name, str) or kind not in _KINDS or type(size) is not int or not 0 < size < 1000:
            raise BundleError(f"targets[{i}]: expected a name, a size and a kind among {', '.join(_KINDS)}")
        start = found[-1].stop if found else 0
        count = {"position": 2 * size, "angles": 3 * size}.get(kind, 7)
        found.append(Read(name, kind, size, start, start + count))
    return tuple(found)
