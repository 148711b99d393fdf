"""How the GPU engine is chosen and set up, and what it needs of the rest; nothing here is compiled for a GPU."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import mujoco
import pytest
import torch

from conftest import HINGE, SLIDER, TinyTask, build, manual_layer, snapshot
from envs.common.messages import warn_again
from envs.engines.base import EngineError
from envs.engines.cpu import CpuEngine
from envs.engines.gpu.buffers import Buffers, BufferWatch, buffers, contact_pairs
from envs.engines.gpu.options import GpuOptions, with_options
from envs.environment import Environment, on_device
from envs.registry import make_task
from randomization.parameters import Parameter
from randomization.samplers.adr import ADR
from randomization.samplers.device_cache import DeviceCache
from randomization.samplers.episode_reports import EpisodeReporter
from scripted import standing
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.evaluation.worlds import find_world, find_worlds
from simreal.training.build import make_engine, make_environment

pytestmark = pytest.mark.gpu

SPHERES = """
<mujoco>
  <option {option}/>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    <body><freejoint/><geom type="sphere" size="0.1"/></body>
    <body pos="0 0 1"><freejoint/><geom type="capsule" size="0.1 0.2"/></body>
  </worldbody>
</mujoco>
"""


def spheres(option: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(SPHERES.format(option=option))


def test_pgs_is_refused_unless_another_solver_is_named() -> None:
    model = spheres('solver="PGS"')
    with pytest.raises(EngineError, match=r"solver PGS does not run on the GPU.*set gpu.solver to newton or cg"):
        with_options(model, GpuOptions())
    changed = with_options(model, GpuOptions(solver="cg"))
    assert changed.opt.solver == int(mujoco.mjtSolver.mjSOL_CG)
    assert model.opt.solver == int(mujoco.mjtSolver.mjSOL_PGS)
    newton = spheres()
    assert with_options(newton, GpuOptions()) is newton


def test_models_that_would_behave_differently_are_refused() -> None:
    other_collisions, disabled = spheres(), spheres()
    other_collisions.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
    disabled.opt.disableactuator = 1
    for model, reason in ((other_collisions, "nativeccd"), (disabled, "groups of actuators")):
        with pytest.raises(EngineError, match=rf"{reason}.* does not run on the GPU"):
            with_options(model, GpuOptions())


def test_shapes_on_height_fields_lose_their_margin_and_others_keep_it() -> None:
    model = mujoco.MjModel.from_xml_string(
        """
        <mujoco>
          <asset><hfield name="h" nrow="2" ncol="2" size="1 1 1 1" elevation="0 1 0 1"/></asset>
          <worldbody>
            <geom name="hills" type="hfield" hfield="h"/>
            <body><freejoint/><geom name="foot" size="0.1" margin="0.01"/></body>
            <body pos="0 0 1"><freejoint/><geom name="hat" size="0.1" margin="0.02" contype="2" conaffinity="2"/></body>
          </worldbody>
          <contact>
            <pair geom1="hills" geom2="hat" margin="0.03"/><pair geom1="foot" geom2="hat" margin="0.04"/>
          </contact>
        </mujoco>
        """
    )
    changed = with_options(model, GpuOptions())
    assert [float(changed.geom(name).margin[0]) for name in ("foot", "hat")] == [0.0, 0.02]
    assert changed.pair_margin.tolist() == [0.0, 0.04]
    assert [float(model.geom(name).margin[0]) for name in ("foot", "hat")] == [0.01, 0.02]
    assert with_options(spheres(), GpuOptions()).geom_margin.tolist() == [0.0, 0.0, 0.0]


def test_a_model_that_asks_for_body_forces_runs_without_the_plugin() -> None:
    model = make_task("Ant-v5").model
    assert model.nplugin == 1
    assert with_options(model, GpuOptions()).nplugin == 0


def test_room_is_for_all_contacts_that_there_can_be_up_to_one_per_degree_of_freedom_and_24() -> None:
    # plane and sphere 1, plane and capsule 2, sphere and capsule 1 contact; twice that for candidates
    assert len(contact_pairs(spheres())) == 3
    # 4 contacts of 4 pyramid edges; 12 dofs that may have friction
    assert buffers(spheres(), GpuOptions()) == Buffers(8, 4 * 4 + 12)
    # elliptic cones of condim 3 have 3 rows
    assert buffers(spheres('cone="elliptic"'), GpuOptions()) == Buffers(8, 4 * 3 + 12)
    assert buffers(spheres(), GpuOptions(contacts_per_env=5, constraints_per_env=6)) == Buffers(5, 6)
    # FetchPush's 164 pairs of boxes and meshes could make hundreds of contacts; it has 21 dofs
    assert buffers(make_task("FetchPush-v4").model, GpuOptions()).contacts == 2 * (24 + 21)


def test_overflow_flags_that_matter_raise_and_those_of_solver_iterations_do_not() -> None:
    flags = torch.zeros(1, dtype=torch.int32)
    watch = BufferWatch(flags, Buffers(10, 20))
    flags[0] = 1 << 9 | 1 << 10  # iterations of the solver and of its line search
    watch.check()
    for bit, message in ((0, "constraints_per_env, now 20"), (3, "contacts_per_env, now 10"), (5, "height field")):
        flags[0] = 1 << bit
        with pytest.raises(EngineError, match=message):
            watch.check()


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "mujoco_warp" else find(name, *a))
    with pytest.raises(UserError, match=r"'gpu' needs mujoco-warp.*pip install 'simreal\[gpu\]'"):
        make_environment("InvertedPendulum-v5", 2, engine="gpu")
    with pytest.raises(SystemExit) as left:
        main(["train", "fetch_reach", "engine=gpu", "--run-dir", str(tmp_path / "run")])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert isinstance(make_engine("auto", mujoco.MjModel.from_xml_string(HINGE), 1, 1), CpuEngine)


def test_the_world_of_the_other_engine_says_what_to_install_and_a_group_leaves_it_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "mujoco_warp" else find(name, *a))
    policy = standing("InvertedPendulum-v5")
    with pytest.raises(UserError, match=r"^other_engine: engine: 'gpu' needs mujoco-warp.* pip install"):
        find_world("other_engine", policy)
    worlds, left_out = find_worlds(["unmodelled"], policy)
    assert "other_engine" not in [world.name for world in worlds]
    assert left_out["other_engine"].startswith("engine: 'gpu' needs mujoco-warp")


def test_simulations_that_are_stepped_by_gymnasium_refuse_the_gpu_and_auto_leaves_them_alone() -> None:
    with pytest.raises(UserError, match=r"^engine: 'gpu' cannot run gymnasium:FetchReach-v4, .*: use 'cpu' or 'auto'$"):
        make_environment("gymnasium:FetchReach-v4", 1, engine="gpu")
    assert make_environment("gymnasium:FetchReach-v4", 1, engine="auto").device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_auto_is_the_cpu_engine_where_there_is_no_cuda() -> None:
    assert isinstance(make_engine("auto", mujoco.MjModel.from_xml_string(HINGE), 1, 1), CpuEngine)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_the_gpu_engine_on_a_processor_announces_minutes_and_hides_what_warp_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mujoco_warp")
    engine = importlib.import_module("envs.engines.gpu.engine")

    def begin() -> None:
        assert "takes minutes" in caplog.text  # before anything that takes long
        os.write(2, b"Warp CUDA warning: as native code writes it\n")
        raise EngineError("begun")

    monkeypatch.setattr(engine.wp, "init", begin)
    warn_again()
    for _ in range(2):
        with pytest.raises(EngineError, match="begun"):
            make_engine("gpu", mujoco.MjModel.from_xml_string(HINGE), 1, 1)
    assert caplog.text.count("engine 'gpu' without CUDA") == 1
    assert "native code" not in capfd.readouterr().err


def test_auto_falls_back_to_the_cpu_for_a_model_that_the_gpu_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco_warp")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="PGS does not run on the GPU.*'auto' takes the CPU engine"):
        engine = make_engine("auto", spheres('solver="PGS"'), 1, 1)
    assert isinstance(engine, CpuEngine)


class FakeCuda:
    """Stands for Warp and torch.cuda: streams, captures and graphs that write down what happens on which stream."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.torch_stream = "default"
        self.stream = "warp"  # Warp's present one

    @contextmanager
    def ScopedStream(self, stream: str, sync_enter: bool) -> Iterator[None]:  # noqa: N802
        assert not sync_enter
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    @contextmanager
    def ScopedCapture(self, stream: str, external: bool = False) -> Iterator[Any]:  # noqa: N802
        assert stream == self.stream != "default"
        self.log.append(f"{'join' if external else 'record'} on {stream}")
        yield SimpleNamespace(graph="graph")
        self.log.append("end")

    def install(self, monkeypatch: pytest.MonkeyPatch, wp: Any) -> Any:
        monkeypatch.setattr(wp, "ScopedStream", self.ScopedStream)
        monkeypatch.setattr(wp, "ScopedCapture", self.ScopedCapture)
        monkeypatch.setattr(wp, "Stream", lambda device: "own")
        monkeypatch.setattr(wp, "stream_from_torch", lambda stream: stream.name)
        monkeypatch.setattr(wp, "device_to_torch", lambda device: torch.device("cuda", 0))
        monkeypatch.setattr(wp, "capture_launch", lambda graph, stream: self.log.append(f"{graph} on {stream}"))
        present = lambda device: SimpleNamespace(name=self.torch_stream, cuda_stream=hash(self.torch_stream))  # noqa: E731
        monkeypatch.setattr(torch.cuda, "current_stream", present)
        return SimpleNamespace(is_cuda=True, alias="fake")

    def launch(self) -> None:
        self.log.append(f"launch on {self.stream}")

    def taken(self) -> list[str]:
        log, self.log = self.log, []
        return log


def test_a_graph_is_recorded_in_the_second_run_and_again_when_an_array_was_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mujoco_warp")
    from envs.engines.gpu import kernels

    cuda = FakeCuda()
    recorder = kernels.Recorder(cuda.install(monkeypatch, kernels.wp))
    recorded = ["record on own", "launch on own", "end", "graph on default"]
    for expected in (["launch on default"], recorded, ["graph on default"]):
        recorder.run("step", cuda.launch)
        assert cuda.taken() == expected
    recorder.forget()
    recorder.run("step", cuda.launch)
    assert cuda.taken() == ["launch on default"]


def test_launches_follow_torch_to_whatever_stream_it_is_on_and_into_a_graph_that_it_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("mujoco_warp")
    from envs.engines.gpu import kernels

    cuda = FakeCuda()
    recorder = kernels.Recorder(cuda.install(monkeypatch, kernels.wp))
    for stream, expected in (("default", 1), ("side", 4), ("default", 1), ("side", 1)):
        cuda.torch_stream = stream
        recorder.run("step", cuda.launch)
        log = cuda.taken()
        assert len(log) == expected
        assert log[-1].endswith(f" on {stream}")
    with recorder.inlined():
        recorder.run("step", cuda.launch)
        recorder.run("another", cuda.launch)
    assert cuda.taken() == ["join on side", "launch on side", "end"] * 2
    assert cuda.stream == "warp"  # as it was found


def test_a_sampler_that_hears_late_hears_the_same() -> None:
    def adr() -> ADR:
        parameter = Parameter("p", nominal=0.0, limits=(-1.0, 1.0), step=0.1)
        return ADR([parameter], boundary_probability=1.0, buffer_size=4, thresholds=(0.4, 0.6))

    generator = torch.Generator().manual_seed(0)
    at_once, late, resumed = adr(), adr(), adr()
    news = [EpisodeReporter(at_once, 1), EpisodeReporter(late, 5), EpisodeReporter(resumed, 5)]
    for step in range(10):
        done = torch.rand(8, generator=generator) < 0.5
        boundary = torch.randint(0, 2, (8,), generator=generator)
        performance = torch.rand(8, generator=generator)
        lam = torch.zeros(8, 1, dtype=torch.float64)
        for each in news:
            each.report(done, boundary, performance, lam)
        if step == 3:
            assert not torch.equal(late.state_dict()["sum"], at_once.state_dict()["sum"])
            kept = news[2].state_dict()
            news[2] = EpisodeReporter(resumed, 5)
            news[2].load_state_dict(kept)
    for each in (late, resumed):
        for name in ("sum", "count", "lower", "upper"):
            assert torch.equal(each.state_dict()[name], at_once.state_dict()[name]), name


def test_a_tensor_is_copied_again_to_a_device_when_it_changed_or_is_another_one() -> None:
    copies, meta = DeviceCache(), torch.device("meta")
    bound = torch.zeros(2)
    assert copies("bound", bound, bound.device) is bound
    first = copies("bound", bound, meta)
    assert first.device == meta
    assert copies("bound", bound, meta) is first
    bound[0] = 1.0
    second = copies("bound", bound, meta)
    assert second is not first
    assert copies("bound", bound.clone(), meta) is not second


WORLDS = {
    "body_mass": {"of": "box", "range": [0.5, 2]},
    "action_delay": {"range": [0, 50]},
    "actuator_backlash": {"of": "push", "range": [0, 0.1]},
    "adversary_action": {"range": [0, 0.3]},
    "observation_noise": {"of": "position", "range": [0, 0.1]},
}


def test_environments_that_do_not_ask_whether_an_episode_ended_play_the_same_ones() -> None:
    """On a GPU nothing may depend on what the CPU would have to wait for: masks decide."""

    def play(asks: bool) -> tuple[list[torch.Tensor], Environment]:
        task = TinyTask(SLIDER, spread=0.1, max_episode_steps=5, terminate_above=0.05)
        env = build(task, 6, manual_layer(task, WORLDS))
        env.sync_allowed = asks
        shown = []
        for step in range(14):
            generator = torch.Generator().manual_seed(step)
            result = env.step(2.0 * torch.rand(6, 2, generator=generator) - 1.0)
            shown += [result.observed.policy, result.final.policy, result.reward, result.done, result.episode_return]
        return shown, env

    (first, asking), (second, silent) = play(True), play(False)
    assert bool(torch.stack(first[3::5]).any())
    assert not bool(torch.stack(first[3::5]).all())
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert asking.divergences == silent.divergences == 0


def test_a_state_moves_to_a_device_with_everything_in_it() -> None:
    env = build(TinyTask(HINGE), 2)
    moved = on_device(snapshot(env), torch.device("meta"))
    assert moved["engine"]["state"].device.type == "meta"
    assert moved["rng"]["key"].device.type == "meta"
    observed = env.observed
    assert observed.to(torch.device("cpu")) is observed
    assert on_device(observed, torch.device("meta")).policy.device.type == "meta"
