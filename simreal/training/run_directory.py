"""Run directories, and policies loaded from a run or a bundle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from envs.common.messages import near_file
from envs.common.safe_yaml import one_line
from envs.environment import Environment, Observed
from envs.registry import make_task
from envs.task import Task
from randomization.catalogue.table import quantity_names
from randomization.parameters import Parameter, RandomizationError, build_parameters
from randomization.samplers.base import Manual, Sampler
from randomization.samplers.frozen import contract_entries, frozen_parameters
from simreal.common.atomic_files import LOCK, TEMPORARY, cannot_write
from simreal.common.errors import UserError
from simreal.common.trusted_code import check_code, use_current_folder
from simreal.evaluation.model_variants import ModelVariant
from simreal.learners.base import GivenPolicy, Learner, LearnerSpec
from simreal.learners.pixels.layout import PictureStack, PixelLayout, Seen
from simreal.learners.pixels.policy import PixelPolicy
from simreal.learners.privileged import PrivilegedView, critic_of_worlds, critics_of_worlds
from simreal.learners.registry import learner_names
from simreal.training.build import EngineName, make_environment, make_learner
from simreal.training.checkpoint import MISFITS, newest_checkpoint, newest_policy, policy_file
from simreal.training.run_config import RunConfig, parse_config, parse_schema, read_yaml
from simreal.vision.sensors.config import SensorConfig
from simreal.vision.sensors.pixels import ObservationConfig, camera_of

_ORIGIN = re.compile(r"# (learner|quantity) '([^']+)' is of Python package '(\w+)'\n")

Act = Callable[[Any], Tensor]
"""What `LoadedPolicy.reader` gives of N environments: an observation [N, nobs], or what policies see that look at
pictures -> action [N, A]."""


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy ready to be evaluated, and what is known of how it was trained."""

    name: str
    task_id: str
    act: Act
    reset: Callable[[Tensor], None]  # called with the environments [N] (bool) whose episodes begin
    parameters: list[Parameter]  # randomized in training, with the final ranges as limits
    entropy: float | None  # of the final distribution, nats per dimension
    config: RunConfig | None
    randomization: dict[str, Any] | None = None  # as the exported contract states it
    module: nn.Module | None = None
    task_options: dict[str, Any] = field(default_factory=dict)
    spec: LearnerSpec | None = None  # of the environments of its training; None for a bundle
    observation: ObservationConfig | None = None  # of policies that look at pictures

    def reader(self, environment: Environment) -> Callable[[Observed], Any]:
        """What the policy reads [N, n] of what these environments show: the policy group, unless it was trained to read
        the privileged group and the world too, or looks at pictures (`Seen`)."""
        if self.observation is not None:
            return partial(_seen, self.observation.layout(environment.task))
        if self.config is None or self.spec is None or not self.config.learner.reads_privileged:
            return lambda observed: observed.policy
        return PrivilegedView(self.spec.parameters, getattr(environment.layer, "parameters", ()))

    def make_task(self) -> Task:
        """A new instance of the task that the policy was trained for, with the camera that it looks through."""
        with camera_of(self.observation):
            return make_task(self.task_id, **self.task_options)

    def make_environment(
        self,
        num_envs: int,
        sampler: Sampler,
        seed: int,
        engine: EngineName = "cpu",
        variant: ModelVariant | None = None,
        sensors: Mapping[str, SensorConfig] | None = None,
    ) -> Environment:
        """Environments of the task in worlds of a sampler; results of episodes are not reported to the sampler. Without
        `sensors` with those of the training."""
        gpu = None if self.config is None else self.config.gpu.options()
        sensors = self.config.sensors if sensors is None and self.config is not None else sensors
        return make_environment(
            self.task_id, num_envs, sampler=sampler, explore=False, seed=seed, task_options=self.task_options,
            engine=engine, variant=variant, gpu=gpu, sensors=sensors, observation=self.observation,
        )  # fmt: skip

    def on_task(self, options: Mapping[str, Any] | None = None) -> LoadedPolicy:
        """This policy on its task with other options: those given, or None: those in which the task is evaluated."""
        changed = self.make_task().evaluation_options if options is None else options
        return replace(self, task_options={**self.task_options, **changed}) if changed else self

    def renamed(self, name: str) -> LoadedPolicy:
        """This policy under another name."""
        return replace(self, name=name)

    def trained_sampler(self) -> Sampler:
        """The final training distribution, frozen."""
        return Manual(self.parameters)


def _seen(layout: PixelLayout, observed: Observed) -> Seen:
    """What a policy sees that looks at pictures."""
    assert observed.pictures is not None
    return Seen(observed.pictures, layout.beside(observed.policy))


def is_bundle(path: Path) -> bool:
    """Whether a directory looks like an exported bundle."""
    return (path / "policy.json").exists() or (path / "policy.onnx").exists()


def load_policy(path: Path, task: str | None = None) -> LoadedPolicy:
    """The policy of a run directory or of an exported bundle.

    Args:
        path: of the directory.
        task: `module:Class` that it was trained on, to say that this code may be imported; see `trusted_code`.

    Raises:
        UserError: naming what is wrong.
    """
    if not path.exists():
        raise UserError(f"{path}: no such run or bundle")
    if not path.is_dir():
        raise UserError(f"{path}: expected the directory of a run or of a bundle")
    if task is not None:
        use_current_folder()
    return _from_bundle(path, task) if is_bundle(path) else _from_run(path, task)


def is_estimator(run: Path) -> bool:
    """Whether a directory is a run of `simreal estimate`."""
    return (run / "config.yaml").is_file() and "targets" in read_yaml(run / "config.yaml")


def run_config(run: Path) -> RunConfig:
    """The configuration of a run directory; its task is not looked at. Raises UserError."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run}: has no config.yaml; expected a run directory of `simreal train` or a bundle")
    document = read_yaml(path)
    if "targets" in document:
        raise UserError(f"{run}: is an estimator's, which reads pictures (`simreal estimate`); expected a policy's run")
    _check_packages(document, path)
    return parse_schema(document, str(path))


def _check_packages(document: dict[str, Any], path: Path) -> None:
    """Raise UserError where a run's learner, or a quantity of its worlds, is of a package that is not installed, as
    `RunConfig.to_yaml` has noted."""
    learner, worlds = document.get("learner"), document.get("randomization")
    entries = worlds.get("parameters") if isinstance(worlds, dict) else None
    named = [("learner", learner.get("algorithm"))] if isinstance(learner, dict) else []
    if isinstance(entries, dict):
        named += [("quantity", e.get("quantity", label)) for label, e in entries.items() if isinstance(e, dict)]
    with path.open(encoding="utf-8", errors="replace") as file:
        noted = list(takewhile(bool, map(_ORIGIN.fullmatch, iter(partial(file.readline, 500), ""))))
    for kind, name, package in (match.groups() for match in noted if match is not None):
        known = learner_names() if kind == "learner" else quantity_names()
        if (kind, name) in named and name not in known:
            raise UserError(
                f"{path}: its {kind} {name!r} is of Python package {package!r}, which is not installed here, "
                "or does not announce it any more"
            )


def _from_run(run: Path, task: str | None) -> LoadedPolicy:
    from simreal.export.bundle import describe_randomization  # ONNX is not needed to train

    config = run_config(run)
    check_code(config.task, str(run / "config.yaml"), task, run)
    config = parse_config(config.model_dump(by_alias=True), str(run / "config.yaml"))
    try:
        weights, ranges = newest_policy(run, config.task)
    except MISFITS as error:
        raise UserError(f"{policy_file(run)}: not a file that `simreal train` wrote: {one_line(error)}") from None
    with camera_of(config.observation):  # no picture is taken
        environment = make_environment(
            config.task, 1, config.randomization, engine="cpu", explore=False, task_options=config.task_options
        )
    environment.reset()
    alone = {"num_envs": 1, "device": "cpu", "learner": config.learner.without_experience()}
    learner = make_learner(config.model_copy(update=alone), environment)
    sampler = config.randomization.sampler_for(environment.task)
    try:
        learner.policy.load_state_dict(weights)
        sampler.load_state_dict(ranges)
    except MISFITS as error:
        raise UserError(f"{policy_file(run)}: does not fit {run / 'config.yaml'}: {one_line(error)}") from None
    policy = learner.policy.eval()
    act, reset = stepper(policy)
    randomized = config.randomization.sampler != "none"
    return LoadedPolicy(
        name=run.name or str(run),
        task_id=config.task,
        act=act,
        reset=reset,
        parameters=frozen_parameters(sampler),
        entropy=sampler.entropy() if randomized and sampler.parameters else None,
        config=config,
        randomization=describe_randomization(sampler) if randomized else None,
        module=policy,
        task_options=config.task_options,
        spec=learner.spec,
        observation=config.observation,
    )


def given_policies(config: RunConfig) -> dict[str, tuple[GivenPolicy, ...]]:
    """The policies of the runs that a learner's settings name, by key.

    Raises:
        UserError: one is missing, not finished, of another task, or no run directory.
    """
    return {key: tuple(_given(key, run, config) for run in runs) for key, runs in config.learner.runs.items()}


def _given(key: str, run: str, config: RunConfig) -> GivenPolicy:
    path = Path(run).expanduser()
    if not path.is_dir():
        raise UserError(f"learner: {key}: {run}: no such run; expected the directory of a finished one")
    if is_bundle(path):
        raise UserError(f"learner: {key}: {run}: is a bundle; expected the directory of the run")
    try:
        of = run_config(path)
        if of.task != config.task:
            raise UserError(f"{run}: is of {of.task}, expected a run of {config.task}")
        done = newest_checkpoint(path)["env_steps"]
        length = of.learner.run_length(of.train.env_steps)
        if done < length:
            counted = of.learner.COUNTS.removeprefix("env_")
            raise UserError(f"{run}: has trained {done:,} of its {length:,} {counted}; go on with --resume")
        policy = load_policy(path, config.task)
    except UserError as error:
        raise UserError(f"learner: {key}: {error}") from None
    assert policy.module is not None
    assert policy.spec is not None
    return GivenPolicy(run, policy.module, of.learner, policy.spec)


def start_from(learner: Learner, config: RunConfig) -> None:
    """Give a new learner the networks and normalizers that `train.from` names, of the newest checkpoint there.

    A critic that reads the world may come from worlds of other parameters, see `critic_of_worlds`, `critics_of_worlds`.

    Raises:
        UserError: there is no such run, it is of another learner, or its networks have other sizes.
    """
    if config.train.source is None:
        return
    run = Path(config.train.source).expanduser()
    here = f"train.from: {run}"
    if not run.is_dir():
        raise UserError(f"{here}: no such run{near_file(run)}; expected a run directory of `simreal train`")
    if is_bundle(run):
        raise UserError(f"{here}: is a bundle; expected the directory of the run")
    try:
        of, state = run_config(run), newest_checkpoint(run)["learner"]
    except UserError as error:
        raise UserError(f"train.from: {error}") from None
    if of.learner.algorithm != config.learner.algorithm:
        raise UserError(f"{here}: is a run of {of.learner.algorithm}, expected one of {config.learner.algorithm}")
    try:
        state = _of_these_worlds(state, run, of, learner)
        apart = _first_other_shape(learner, state)
        if apart is not None:
            raise UserError(f"{here}: its task or its networks are others than here ({of.task}; {apart})")
        learner.start_from(state)
    except MISFITS as error:
        raise UserError(
            f"{here}: its task or its networks are others than here ({of.task}; {one_line(error)})"
        ) from None


def _of_these_worlds(state: dict[str, Any], run: Path, of: RunConfig, learner: Learner) -> dict[str, Any]:
    """The state with its critics, where they read the world, as `privileged.py` makes them."""
    critic = state.get("critic", {})
    on_policy = len(critic.get("normalizer.mean", ())) > 0
    off_policy = "target_critic" in state and ("privileged_normalizer" in state or "states" in state)
    theirs = load_policy(run, of.task).spec if on_policy or off_policy else None
    here = learner.spec
    if theirs is None or theirs.parameters == here.parameters:
        return state
    if off_policy:
        blind = "states" in state and theirs.pixels is not None and not theirs.pixels.state_critic
        actions, goal = theirs.action_size, theirs.goal_size
        return state if blind else critics_of_worlds(state, theirs.parameters, here.parameters, actions, goal)
    wide = theirs.observation_size + theirs.privileged_size  # with pictures
    if len(critic["normalizer.mean"]) not in (theirs.privileged_size, wide):
        return state
    return state | {"critic": critic_of_worlds(critic, theirs.parameters, here.parameters)}


def _first_other_shape(learner: Learner, state: dict[str, Any]) -> str | None:
    """The first tensor of a learner's networks that has another shape in a state, in words; None where all fit."""
    for part in learner.networks():
        theirs = state.get(part, {})
        for name, value in getattr(learner, part).state_dict().items():
            shape = list(theirs[name].shape) if name in theirs else "missing"
            if shape != list(value.shape):
                return f"{part}.{name} is {shape} there, {list(value.shape)} here"
    return None


def stepper(policy: nn.Module) -> tuple[Act, Callable[[Tensor], None]]:
    """Functions that run a torch policy in batched environments: act, and reset of its recurrent state if any."""
    if isinstance(policy, PixelPolicy):
        return _pixel_stepper(policy)
    begin = getattr(policy, "initial_state", None)
    state: list[Tensor] = []

    @torch.no_grad()
    def act(observation: Tensor) -> Tensor:
        if begin is None:
            return policy(observation.float())
        if not state or len(state[0]) != len(observation):
            state[:] = [begin(len(observation))]
        action, state[0] = policy(observation.float(), state[0])
        return action

    def reset(mask: Tensor) -> None:
        if begin is not None and state and len(state[0]) == len(mask):
            rows = mask.view(-1, *[1] * (state[0].dim() - 1))
            state[0] = torch.where(rows, begin(len(mask)), state[0])

    return act, reset


def _pixel_stepper(policy: PixelPolicy) -> tuple[Act, Callable[[Tensor], None]]:
    """The same of a policy that looks at pictures: it remembers the last ones."""
    stack = PictureStack(policy.layout.stack)

    @torch.no_grad()
    def act(seen: Seen) -> Tensor:
        return policy(stack.push(seen.pictures), seen.components.float())

    return act, stack.begin


def _from_bundle(path: Path, task: str | None) -> LoadedPolicy:
    from simreal.deploy.policy import CONTRACT, BundleError, Policy

    try:
        policy = Policy.load(path)
    except BundleError as error:
        raise UserError(str(error)) from None
    contract = policy.contract
    randomization = contract.get("randomization") or {}
    try:
        task_id = contract.get("task")
        if not isinstance(task_id, str):
            raise UserError(f"{path / CONTRACT}: task: expected the id of a task, got {task_id!r}")
        check_code(task_id, str(path / CONTRACT), task, path)
        options = ((contract.get("run") or {}).get("config") or {}).get("task_options") or {}
        seen = _observation_of(contract)
        with camera_of(seen):
            parameters = build_parameters(make_task(task_id, **options), contract_entries(path / CONTRACT))
        entropy = None if randomization.get("entropy_npd") is None else float(randomization["entropy_npd"])
    except RandomizationError as error:
        raise UserError(f"{path / CONTRACT}: randomization: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path / CONTRACT}: {one_line(error)}") from None

    def act(observation: Tensor | Seen) -> Tensor:
        given: Any = observation.numpy() if isinstance(observation, Tensor) else policy.named(*observation.numpy())
        return torch.from_numpy(policy(given))

    def reset(mask: Tensor) -> None:
        policy.reset(mask.numpy())

    return LoadedPolicy(
        path.name, task_id, act, reset, parameters, entropy, None, task_options=options, observation=seen
    )


def _observation_of(contract: Mapping[str, Any]) -> ObservationConfig | None:
    """How a bundle's pictures are taken; None where it takes none. Raises ValueError where it does not say so."""
    if "pictures" not in contract:
        return None
    stated = ((contract.get("run") or {}).get("config") or {}).get("observation")
    if stated is None:
        raise ValueError("run.config.observation: expected how its pictures are taken, to render them")
    return ObservationConfig.model_validate(stated)


def is_empty(run: Path) -> bool:
    """Whether a directory holds nothing but what a process that owns it, or was killed at once, leaves there."""
    return all(entry.name == LOCK or entry.name.endswith(TEMPORARY) for entry in run.iterdir())


def refuse_filled(run: Path) -> None:
    """Raise UserError unless a path is free or an empty directory."""
    try:
        if run.exists() and (not run.is_dir() or not is_empty(run)):
            raise UserError(f"{run}: exists and is not empty; name another --run-dir or add --resume")
    except OSError as error:
        raise UserError(f"{run}: cannot be read: {error.strerror}") from None


def new_run_directory(config_name: str, requested: Path | None) -> Path:
    """A directory for a new run: the requested one, or runs/NAME-1, -2, ..., created so that nobody else takes it.

    Raises UserError if the requested one holds anything.
    """
    if requested is not None:
        refuse_filled(requested)
        return requested
    stem = Path(config_name).stem
    number = 1
    while True:
        run = Path("runs") / f"{stem}-{number}"
        try:
            run.mkdir(parents=True)
            return run
        except FileExistsError:
            number += 1
        except OSError as error:
            raise cannot_write(run, error) from None


def newest_run(config_name: str) -> Path:
    """The newest runs/NAME-N of a configuration. Raises UserError if there is none."""
    stem = Path(config_name).stem
    found = [p for p in Path("runs").glob(f"{stem}-*") if p.name.removeprefix(f"{stem}-").isdigit()]
    if not found:
        raise UserError(f"--resume: no run of {stem} in runs/; name one with --run-dir")
    return max(found, key=lambda p: int(p.name.removeprefix(f"{stem}-")))
