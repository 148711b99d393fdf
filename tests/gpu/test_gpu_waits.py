"""Nothing in a control step makes the host wait for the device.

torch's meta device stands for the GPU: its tensors have no numbers, so reading one raises, and so does choosing rows by
a mask or bringing a tensor home. What goes to the device from the host's memory, which waits on CUDA too, is seen on
its way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from envs.engines.base import COMMAND_FIELDS, Stage
from envs.engines.gpu.host_sync import no_waits, no_waits_if_asked
from envs.environment import Environment
from envs.platform.menagerie import ModelUnavailableError
from envs.registry import make_task
from envs.task import Task
from randomization.parameters import RandomizationError, build_parameters
from randomization.randomizer import DomainRandomizer
from randomization.samplers.base import Manual
from simreal.cli.describe import available
from simreal.learners.base import LearnerSpec
from simreal.learners.on_policy.ppo import PPO
from simreal.learners.options import PPOConfig
from simreal.training.build import make_environment

pytestmark = pytest.mark.gpu

META = torch.device("meta")
RANGES = {"body_mass": {"range": [0.7, 1.4]}, "action_delay": {"range": [0, 20]}, "observation_noise": {}}
_BETWEEN_NEWS = 16  # control steps in which the sampler is told once, for which the host waits
IS_CUDA = Tensor.is_cuda.__get__  # type: ignore[attr-defined]
# HandManipulate waits where an object is dropped onto a palm, as docs/gpu.md says.
TASKS = ("InvertedPendulum-v5", "Ant-v5", "Reacher-v5", "Pusher-v5", "FetchReach-v4", "FetchPush-v4", "HandReach-v3",
         "AdroitHandPen-v1", "Go1Velocity-v0", "AllegroCube-v0", "ShadowCube-v0")  # fmt: skip
LIKE_ANOTHER = (
    "Reacher-v5",
    "Pusher-v5",
    "FetchReach-v4",
    "ShadowCube-v0",
)  # of the same family, with the same quantities


class MetaEngine:
    """An engine on a device where nothing can be read; it has the shapes of a model's fields and computes nothing."""

    def __init__(self, model: mujoco.MjModel, num_envs: int) -> None:
        self.model, self.num_envs, self.device, self.dtype = model, num_envs, META, torch.float32
        self._shapes = mujoco.MjData(model)
        self._made: dict[str, Tensor] = {}

    def _like(self, name: str, value: Any) -> Tensor:
        if name not in self._made:
            kind = np.asarray(value).dtype
            dtype = self.dtype if kind.kind == "f" else torch.as_tensor(np.zeros(0, kind)).dtype
            self._made[name] = torch.zeros(self.num_envs, *np.shape(value), dtype=dtype, device=META)
        return self._made[name]

    def data(self, name: str) -> Tensor:
        return self._like(name, getattr(self._shapes, name))

    def _of_model(self, name: str) -> Any:
        owner = self.model.opt if name.startswith("opt.") else self.model
        return getattr(owner, name.removeprefix("opt."))

    def field(self, name: str) -> Tensor:
        return self._like("model." + name, self._of_model(name))

    def handed_out(self) -> list[Tensor]:
        return list(self._made.values())

    def nominal(self, name: str) -> Tensor:
        return torch.as_tensor(np.array(self._of_model(name)))

    def use_commands(self, fields: tuple[str, ...]) -> int:
        self._fields = sorted(fields, key=lambda key: COMMAND_FIELDS[key])
        return sum(self.data(name)[0].numel() for name in self._fields)

    def write_command(self, command: Tensor) -> None:
        start = 0
        for flat in (self.data(name).view(self.num_envs, -1) for name in self._fields):
            flat.copy_(command[:, start : start + flat.shape[1]])
            start += flat.shape[1]

    def diverged(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.bool, device=META)

    def step(self, nstep: int, commands: Tensor | None = None) -> None:
        if commands is not None:
            assert commands.shape[:2] == (self.num_envs, nstep)

    def advance_some(self, nstep: int, mask: Tensor) -> None: ...

    def forward(self, mask: Tensor | None = None, stage: Stage = "acceleration") -> None: ...

    def reset(self, mask: Tensor | None = None) -> None: ...

    def set_const(self, mask: Tensor | None = None) -> None: ...

    def refresh_written(self) -> None: ...

    def start_histories(self, mask: Tensor) -> None: ...


class Copies(TorchDispatchMode):
    """Raises where a tensor goes from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [a for a in args if isinstance(a, Tensor)]
        copies = func._schema.name in ("aten::copy_", "aten::_to_copy")
        places = {t.device.type for t in tensors if t.dim() > 0 or copies}
        if tensors and kwargs.get("device") is not None:
            places.add(torch.device(kwargs["device"]).type)
        if len(places) > 1:
            raise RuntimeError(f"{func}: a copy between devices")
        return func(*args, **kwargs)


class LikeCuda(TorchFunctionMode):
    """`is_cuda` says what it would say where there is CUDA."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return args[0].device.type != "cpu" if func == IS_CUDA else func(*args, **(kwargs or {}))


class Literals(TorchFunctionMode):
    """Raises where numbers of Python's become a tensor on the device, or an index of one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        made = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if made and not isinstance(args[0], Tensor) and torch.device(kwargs.get("device") or "cpu").type != "cpu":
            raise RuntimeError(f"{func.__name__}: a copy to the device")
        if func in (Tensor.__getitem__, Tensor.__setitem__) and not _at_home(args[0]):
            for part in args[1] if isinstance(args[1], tuple) else (args[1],):
                _refuse_index(part, args[2] if func is Tensor.__setitem__ else None)
        return func(*args, **kwargs)


def _at_home(value: Any) -> bool:
    return isinstance(value, (list, np.ndarray)) or (isinstance(value, Tensor) and value.device.type == "cpu")


def _refuse_index(part: Any, value: Any) -> None:
    """Raise where an index, or what is written by it, makes the host wait."""
    if _at_home(part):
        raise RuntimeError("an index that is not on the device")
    if isinstance(part, Tensor) and part.dtype == torch.bool and isinstance(value, Tensor) and value.dim() > 0:
        raise RuntimeError("rows chosen by a mask")


@contextmanager
def watched() -> Iterator[None]:
    """Raises where the host would wait for the device."""
    with Copies(), Literals(), LikeCuda():
        yield


def task_of(task_id: str) -> Task:
    """The task, or a skip where its robot cannot be had."""
    try:
        return make_task(task_id)
    except ModelUnavailableError as error:
        pytest.skip(str(error))


def made(task_id: str, entries: dict[str, Any], num_envs: int = 4) -> Environment:
    """On the device where nothing can be read, after its first reset."""
    task = task_of(task_id)
    layer = DomainRandomizer(Manual(build_parameters(task, entries)))
    layer.prepare(task)
    with LikeCuda():
        environment = Environment(task, MetaEngine(task.model, num_envs), layer, 0)  # type: ignore[arg-type]
    return environment


def with_everything(task_id: str) -> Environment:
    """Every quantity that the task has, where its default range is possible in that task's model."""
    entries: dict[str, Any] = {name: {} for name in available(task_of(task_id))}
    while True:
        try:
            return made(task_id, entries)
        except RandomizationError as error:
            del entries[re.split(r"[:. ]", str(error))[0]]


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first observation of all is read, once, to name a component that is not finite."""
    monkeypatch.setattr("envs.validation.step_checks.check_observed", lambda *_: None)


@pytest.mark.parametrize(
    ("task_id", "everything"),
    [pytest.param(task, False, id=f"{task}-plain") for task in (*TASKS, "small_arm:Everything")]
    + [
        pytest.param(task, True, id=f"{task}-randomized", marks=pytest.mark.slow if task in LIKE_ANOTHER else ())
        for task in TASKS
    ],
)
def test_a_control_step_waits_for_nothing(task_id: str, everything: bool) -> None:
    environment = with_everything(task_id) if everything else made(task_id, {})
    layer: Any = environment.layer
    assert len(layer.parameters) >= 20 * everything
    action = torch.zeros(environment.num_envs, environment.task.action_size, device=META)
    with LikeCuda():
        environment.reset()
        environment.step(action)  # what is made once, in the first step
    with watched():
        for _ in range(2):
            environment.step(action)
    assert environment.observed.policy.device == META


@pytest.mark.parametrize(
    "settings", [{}, {"actor": "categorical", "observation_history": 2, "actor_reads": "privileged"}]
)
def test_collecting_experience_waits_for_nothing_after_the_first_rollout(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = made("Go1Velocity-v0", {"body_mass": {"range": [0.5, 2.0]}})
    monkeypatch.setattr(torch, "Generator", lambda device: SimpleNamespace(manual_seed=lambda seed: None))
    with LikeCuda():
        environment.reset()
        config = PPOConfig.model_validate({"horizon": 4, "minibatches": 1} | settings)
        learner = PPO(LearnerSpec.of(environment, META), config, 0)
    learner.updates = 1
    with watched():
        for _ in range(3):
            observed = environment.observed
            action = learner.act(observed)
            learner.record(observed, action, environment.step(action))
    assert learner.steps == 12


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.__setitem__(x > 0, x),
        lambda x: x[[0, 1]],
        lambda x: x.copy_(torch.zeros(3)),
        lambda x: torch.zeros(3).to(x.device),
        lambda x: torch.tensor([1.0], device=x.device),
    ],
)
def test_what_would_wait_is_noticed(wait: Callable[[Tensor], object]) -> None:
    with watched(), pytest.raises((RuntimeError, NotImplementedError)):
        wait(torch.zeros(3, device=META))


def test_what_does_not_wait_is_let_through() -> None:
    x = torch.zeros(3, device=META)
    with watched():
        x[x > 0] = 0.0  # a fill where a mask says so
        torch.where(x > 0, x, 0.0)
        x.masked_fill_(x > 0, 1.0)
        x.mul_(torch.tensor(2.0))


def test_waiting_is_an_error_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    cuda = torch.device("cuda", 0)
    monkeypatch.delenv("SIMREAL_GPU_WAITS", raising=False)
    with no_waits_if_asked(cuda), no_waits(torch.device("cpu")):
        assert modes == []
    monkeypatch.setenv("SIMREAL_GPU_WAITS", "error")
    with no_waits_if_asked(cuda):
        assert modes == ["error"]
    assert modes == ["error", 0]
    monkeypatch.setenv("SIMREAL_GPU_WAITS", "yes")
    with (
        pytest.raises(ValueError, match="SIMREAL_GPU_WAITS: expected 'error' or nothing, got 'yes'"),
        no_waits_if_asked(cuda),
    ):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("task_id", ["InvertedPendulum-v5", "FetchPush-v4", "Go1Velocity-v0", "AllegroCube-v0"])
def test_on_cuda_a_control_step_waits_for_nothing(task_id: str) -> None:
    try:
        environment = make_environment(task_id, 16, {"sampler": "manual", "parameters": RANGES}, engine="gpu")
    except ModelUnavailableError as error:
        pytest.skip(str(error))
    environment.reset()
    action = torch.zeros(16, environment.task.action_size, device=environment.device)
    for _ in range(_BETWEEN_NEWS + 2):
        environment.step(action)
    with no_waits(environment.device):
        for _ in range(_BETWEEN_NEWS - 4):
            environment.step(action)
