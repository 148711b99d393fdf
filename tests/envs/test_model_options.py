"""Options of models that no engine can have are named in one line, wherever the model is met first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mujoco
import pytest

from conftest import HINGE, TinyTask
from envs.engines.base import EngineError
from envs.engines.cpu import CpuEngine
from envs.engines.gpu.options import GpuOptions, with_options
from envs.registry import TaskError
from envs.validation.task_contract import check_task
from simreal.cli.main import main

ARM = HINGE.replace('gravity="0 0 0"/>', 'gravity="0 0 0" integrator="discrete"><flag {flag}="enable"/></option>')
CODE = f'''
from conftest import TinyTask

class Doze(TinyTask):
    def __init__(self):
        super().__init__("""{ARM.format(flag="sleep")}""", max_episode_steps=20)
'''
CONFIG = """
task: dozing_arm:Doze
num_envs: 2
learner: {algorithm: ppo, horizon: 8}
train: {env_steps: 64}
"""


@pytest.fixture
def called_back() -> Iterator[mujoco.MjModel]:
    """A model in a process where a callback is installed."""
    model = mujoco.MjModel.from_xml_string(HINGE)
    mujoco.set_mjcb_passive(lambda _model, _data: None)
    yield model
    mujoco.set_mjcb_passive(None)


@pytest.mark.parametrize("flag", ["sleep", "ipc"])
def test_flags_that_keep_more_than_the_state_are_refused_with_what_to_switch_off(flag: str) -> None:
    task = TinyTask(ARM.format(flag=flag))
    with pytest.raises(TaskError, match=f'task: Tiny-v0: model: the flag {flag}="enable".*switch it off'):
        check_task("x:Tiny", task)
    for make in (lambda: CpuEngine(task.model, 2, 1), lambda: with_options(task.model, GpuOptions())):
        with pytest.raises(EngineError, match=f'engine: the flag {flag}="enable".*<flag {flag}="disable"/>'):
            make()


@pytest.mark.parametrize("command", [["train", "doze.yaml"], ["describe", "dozing_arm:Doze"]])
def test_every_command_says_it_in_one_line_with_exit_status_2(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dozing_arm.py").write_text(CODE)
    (tmp_path / "doze.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert 'the flag sleep="enable"' in said
    assert said.count("\n") == 1


def test_a_callback_in_python_is_named(called_back: mujoco.MjModel) -> None:
    for make in (lambda: CpuEngine(called_back, 2, 1), lambda: with_options(called_back, GpuOptions())):
        with pytest.raises(EngineError, match=r"mujoco\.set_mjcb_passive\(None\)"):
            make()


def test_every_other_flag_runs_as_a_simulation_alone_does() -> None:
    flags = dict.fromkeys(("override", "energy", "fwdinv", "invdiscrete", "speculative", "diagexact"), "enable")
    flags |= dict.fromkeys(("multiccd", "island", "autoreset", "nativeccd", "midphase", "eulerdamp"), "disable")
    for flag, way in flags.items():
        xml = HINGE.replace('gravity="0 0 0"/>', f'><flag {flag}="{way}"/></option>')
        model = mujoco.MjModel.from_xml_string(xml)
        engine, data = CpuEngine(model, 2, 1), mujoco.MjData(model)
        engine.data("ctrl")[...] = data.ctrl[:] = 0.3
        engine.step(50)
        mujoco.mj_step(model, data, 50)
        assert engine.data("qpos").tolist() == [data.qpos.tolist()] * 2, flag
