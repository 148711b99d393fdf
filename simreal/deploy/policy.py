"""Runs the policy of a bundle with NumPy and ONNX Runtime.

`simreal.deploy` imports nothing else of simreal: this folder, copied to a robot, is enough. `docs/deploy.md` says what
a bundle holds; `simreal.export` writes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle_reader import (
    CONTRACT,
    GRAPH,
    Layout,
    as_float32,
    open_golden,
    open_graph,
    parse_contract,
    read_layout,
)
from .compiled import Compiled
from .files import (
    GOLDEN,
    GOLDEN_TOLERANCE,
    Array,
    BundleError,
    blaming,
    check_sha256,
    one_line,
    read_file,
    relative_error,
    unknown_name,
)
from .files import UNSIGNED as UNSIGNED  # where programs that sign bundles have always found it
from .pictures import PIXELS, Bytes, Pictures, Stack
from .targets import Targets

if TYPE_CHECKING:
    import onnxruntime


class Policy:
    """A policy with its contract; `Policy.load` makes one.

    It keeps what it remembers and what was sent last between calls: call `reset` when an episode starts.

    Attributes:
        contract: the parsed policy.json.
        control_period_s: time between two actions, s.
        observation_size, action_size: lengths of the flat vectors.
    """

    def __init__(
        self, contract: dict[str, Any], layout: Layout, session: onnxruntime.InferenceSession | Compiled
    ) -> None:
        self.contract = contract
        self.control_period_s = float(contract["control_period_s"])
        self.observation_size = layout.observation_size
        self.action_size = layout.action[-1].stop
        self._layout, self._session = layout, session
        self._names = [part.name for part in layout.observation]
        self._outputs = ["action"] if layout.initial_state is None else ["action", "next_state"]
        self._state: Array | None = None  # [B, *shape]; None at the start of an episode
        self._stack = None if layout.pictures is None else Stack(layout.pictures.stack)
        self._targets = Targets(layout.action, layout.observation)
        self._given: Array | None = None  # the action that was given last, until another is asked for
        self._sent: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # what it was, and what was sent

    @classmethod
    def load(cls, bundle: str | os.PathLike[str], *, library: str | os.PathLike[str] | None = None) -> Policy:
        """Load a bundle; prove that it is whole and computes here what it computed where it was exported.

        Args:
            bundle: the directory.
            library: libpolicy.so, made in a folder that `simreal export --c` wrote beside this bundle: it computes the
                actions, and ONNX Runtime is not needed.

        Raises:
            BundleError: a file is missing, altered or unreadable, or the golden actions do not come back.
        """
        folder = Path(bundle)
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such bundle; expected a directory with {CONTRACT}, {GRAPH} and {GOLDEN}")
        with blaming(folder / CONTRACT):
            contract = parse_contract(read_file(folder / CONTRACT))
            layout = read_layout(contract)
        contents: dict[str, bytes] = {}
        for name, (size, digest) in layout.files.items():
            with blaming(folder / name):
                raw = read_file(folder / name)
                check_sha256(raw, size, digest)
            contents[name] = raw if name in (GRAPH, GOLDEN) else b""
        if library is not None:
            policy = cls(contract, layout, Compiled(Path(library), contract, layout))
        else:
            with blaming(folder / GRAPH):
                policy = cls(contract, layout, open_graph(contents[GRAPH], layout))
        with blaming(folder / GOLDEN if library is None else Path(library)):
            policy._replay(open_golden(contents[GOLDEN], layout))
        return policy

    def reset(
        self, mask: ArrayLike | None = None, *, targets: Mapping[str, ArrayLike] | ArrayLike | None = None
    ) -> None:
        """Forget the episode so far; call it when an episode starts.

        Args:
            mask: [B] bool, in batched use: only these rows start anew. None: all.
            targets: what the robot is told to hold now, from where smoothing starts: a mapping from names of action
                components to values [size] or [B, size], or the flat vector [S] or [B, S] of all, in their units.
                Where left out, as the contract says under `initial_target`.

        Raises:
            ValueError: another number of rows than in the calls before, an unknown component or a wrong size.
        """
        rows = None if mask is None else np.asarray(mask, dtype=bool)
        initial, state = self._layout.initial_state, self._state
        if rows is not None and rows.ndim != 1:
            raise ValueError(f"mask: expected shape [B], got {list(rows.shape)}")
        if rows is not None and state is not None and len(rows) != len(state):
            raise ValueError(f"mask: expected [{len(state)}], as in the calls before, got shape {rows.shape}")
        if self._stack is not None:
            self._stack.reset(rows)
        self._targets.reset(rows, targets)
        self._given = self._sent = None
        if rows is None or state is None or initial is None:
            self._state = None
        else:
            state[rows] = initial

    def __call__(self, observation: Mapping[str, ArrayLike] | ArrayLike) -> Array:
        """The action for an observation.

        Args:
            observation: in the contract's units, either the flat vector [nobs] or a mapping from the name of
                every component to its values [size]; or a batch of those, [B, nobs] or [B, size]. A policy that looks
                at pictures takes a mapping in which "pixels" is the present one, [height, width, 3] or [B, height,
                width, 3] in bytes, as the contract states it under `pictures`; it remembers those before.

        Returns:
            Action [A], or [B, A], in [-1, 1]; see `targets`.

        Raises:
            ValueError: a component is unknown, missing, of the wrong size, NaN or infinite; it is named.
            FloatingPointError: the policy put out NaN; the state is left as it was.
        """
        pictures = None
        if self._layout.pictures is not None:
            flat, pictures = self._with_pictures(observation, self._layout.pictures)
        else:
            flat = (
                self._join(observation) if isinstance(observation, Mapping) else as_float32(observation, "observation")
            )
        size = self.observation_size
        # ONNX Runtime's GRU ends the whole process when it gets an empty batch.
        empty = flat.ndim == 2 and not len(flat)
        if flat.ndim not in (1, 2) or flat.shape[-1] != size or empty:
            raise ValueError(f"observation: expected shape [{size}] or [B, {size}], got {list(flat.shape)}")
        if not np.isfinite(flat).all():
            raise ValueError(self._not_finite(flat))
        batch = np.ascontiguousarray(np.atleast_2d(flat))
        stacks = None if pictures is None or self._stack is None else self._stack.after(pictures)
        action, state = self._run(batch, self._state_of(len(batch)), stacks)
        if not np.isfinite(action).all():
            raise FloatingPointError("the policy put out NaN or infinity; stop the robot and reset the policy")
        self._state = state
        if stacks is not None and self._stack is not None:
            self._stack.keep(stacks)
        self._targets.observe(batch)
        given = action[0] if flat.ndim == 1 else action
        self._given, self._sent = given, None
        return given

    def targets(self, action: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """What is sent to the robot for the action of a control step, as in training; the next call goes on from it.

        For each value target = base + offset + scale * action, within `target_limits`; what is sent moves from what
        was sent last by `smoothing` of the way to the target. An action that `policy(...)` gave is one step, however
        often it is asked for; any other array is a step of its own.

        Args:
            action: [A], or [B, A], clipped to [-1, 1].

        Returns:
            What to send by action component, [size] or [B, size], in its unit; of one with inverse kinematics, targets
            of the joints.

        Raises:
            ValueError: a wrong size, NaN, or it is not known what the robot was told before (see `reset`).
        """
        values = self._values(action)
        if self._sent is not None and action is self._given and np.array_equal(values, self._sent[0]):
            return self._targets.split(self._sent[1].copy())
        batch = np.atleast_2d(values)
        sent = self._targets.advance(batch)
        sent = sent[0] if values.ndim == 1 else sent
        self._sent = (values.copy(), sent.copy()) if action is self._given else None
        return self._targets.split(sent)

    def unsmoothed_targets(self, action: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Where actions [A] or [B, A] want the robot to go: `targets` without smoothing. Remembers nothing."""
        values = self._values(action)
        asked = self._targets.asked(np.atleast_2d(values))
        return self._targets.split(asked[0] if values.ndim == 1 else asked)

    def sent_instead(self, targets: Mapping[str, ArrayLike]) -> None:
        """Say that others than the last `targets` were sent, as where a limit of the robot holds: smoothing and
        relative targets go on from these.

        Args:
            targets: by action component, [size] or [B, size], of all.
        """
        sent = [np.atleast_2d(np.asarray(targets[part.name], dtype=np.float64)) for part in self._layout.action]
        self._targets.correct(np.concatenate(sent, axis=1))
        self._given = self._sent = None

    def named(self, pictures: ArrayLike, components: ArrayLike) -> dict[str, Any]:
        """The mapping that a policy takes which looks at pictures, of those [B, height, width, 3] and all components
        [B, nobs] in order."""
        flat = np.asarray(components)
        return {PIXELS: pictures} | {part.name: flat[..., part.start : part.stop] for part in self._layout.observation}

    @property
    def layout(self) -> Layout:
        """The components of its contract, as `simreal.deploy` uses them."""
        return self._layout

    def _values(self, action: ArrayLike) -> NDArray[np.float64]:
        """An action of the right size. Raises ValueError."""
        values = np.asarray(action, dtype=np.float64)
        size = self.action_size
        if values.ndim not in (1, 2) or values.shape[-1] != size or not len(values):
            raise ValueError(f"action: expected shape [{size}] or [B, {size}], got {list(values.shape)}")
        if np.isnan(values).any():
            raise ValueError(f"action: value {int(np.argwhere(np.isnan(values))[0, -1])} is nan, expected numbers")
        return values

    def _with_pictures(self, observation: Mapping[str, ArrayLike] | ArrayLike, takes: Pictures) -> tuple[Array, Bytes]:
        """The flat vector [nobs] or [B, nobs] of a mapping, and its pictures [B, height, width, 3]."""
        if not isinstance(observation, Mapping) or PIXELS not in observation:
            raise ValueError(
                f"observation: expected a mapping with {PIXELS!r}, a picture of camera {takes.camera!r}"
                + "".join(f", and {name!r}" for name in self._names)
            )
        pictures = takes.checked(observation[PIXELS])
        rest: dict[str, ArrayLike] = {name: values for name, values in observation.items() if name != PIXELS}
        lead = pictures.shape[:-3]
        if self._names or rest:
            flat = self._join(rest)
            if flat.shape[:-1] != lead:
                raise ValueError(f"{PIXELS}: expected as many as observations {list(flat.shape)}, got {list(lead)}")
        else:
            flat = np.zeros((*lead, 0), dtype=np.float32)
        return flat, pictures if lead else pictures[None]

    def _run(
        self, observation: Array, state: Array | None, pictures: Bytes | None = None
    ) -> tuple[Array, Array | None]:
        """Action [B, A] and next state [B, *shape] for observations [B, nobs] and stacks [B, K, height, width, 3]."""
        feeds: dict[str, Any] = {"observation": observation} if self._names else {}
        feeds |= {} if state is None else {"state": state}
        feeds |= {} if pictures is None else {PIXELS: np.ascontiguousarray(pictures)}
        outputs: list[Any] = list(self._session.run(self._outputs, feeds))
        return outputs[0], None if state is None else outputs[1]

    def _state_of(self, count: int) -> Array | None:
        initial = self._layout.initial_state
        if initial is None:
            return None
        if self._state is None:
            return np.repeat(initial[None], count, axis=0)
        if len(self._state) != count:
            raise ValueError(f"observation: {count} rows after {len(self._state)} in one episode; call reset() first")
        return self._state

    def _join(self, observation: Mapping[str, ArrayLike]) -> Array:
        """The flat vector [nobs] or [B, nobs] of a mapping."""
        takes = f"this policy takes: {', '.join(self._names)}"
        for name in observation:
            if name not in self._names:
                raise ValueError(unknown_name("unknown observation component", str(name), self._names))
        values: list[Array] = []
        for part in self._layout.observation:
            what = f"observation component {part.name!r}"
            if part.name not in observation:
                raise ValueError(f"{what} is missing; {takes}")
            value = as_float32(observation[part.name], what)
            lead = (values[0] if values else value).shape[:-1]
            expected = (*lead, len(part.scale))
            if value.ndim not in (1, 2) or value.shape != expected:
                raise ValueError(f"{what}: expected shape {list(expected)}, got {list(value.shape)}")
            values.append(value)
        return np.concatenate(values, axis=-1)

    def _not_finite(self, flat: Array) -> str:
        column = int(np.argwhere(~np.isfinite(flat))[0, -1])
        part = next(p for p in self._layout.observation if column < p.stop)
        value = flat[..., column][~np.isfinite(flat[..., column])].flat[0]
        element = part.elements[column - part.start] if part.elements else str(column - part.start)
        return f"observation component {part.name!r}: element {element!r} is {value}, expected a finite float32"

    def _replay(self, golden: dict[str, NDArray[Any]]) -> None:
        """Raise BundleError unless the golden actions (and states, and targets) come back."""
        initial = self._layout.initial_state
        before = None if initial is None else np.concatenate((initial[None], golden["states"][:-1]))
        try:
            action, state = self._run(golden["observations"], before, golden.get(PIXELS))
        except Exception as error:  # see `open_graph`
            raise BundleError(f"{GRAPH} cannot answer it: {one_line(error)}") from None
        pairs: list[tuple[str, NDArray[Any], NDArray[Any]]] = [("action", action, golden["actions"])]
        if state is not None:
            pairs.append(("state", state, golden["states"]))
        if "targets" in golden:
            try:
                chain = Targets(self._layout.action, self._layout.observation)
                sent = chain.replay(golden["observations"], golden["actions"])
            except ValueError as error:
                raise BundleError(f"{CONTRACT} does not lead to its targets: {error}") from None
            pairs.append(("target", sent, golden["targets"]))
        eight_bits = self._session.tolerance if isinstance(self._session, Compiled) else 0.0
        for what, actual, expected in pairs:
            if what == "state" and eight_bits:
                continue  # what 8 bits change is known of actions
            error, most = relative_error(actual, expected), max(GOLDEN_TOLERANCE, eight_bits)
            if not error <= most:
                raise BundleError(
                    f"{CONTRACT if what == 'target' else GRAPH} answers with another {what} on this machine: "
                    f"off by {error:.1e}, expected at most {most:g}"
                )
