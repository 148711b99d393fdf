"""A policy written as C99 answers as ONNX Runtime does, compiles without a warning, and replaces nothing of others."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_layers import ACTIONS, KINDS, TASK, make, observations
from torch import nn

from conftest import TinyTask
from envs.parts.actions import EndEffectorDelta, JointPosition
from envs.parts.observations import JointState
from envs.task import ActionComponent, Component
from simreal.cli.main import main
from simreal.common.layers import Dense, Layer
from simreal.common.layers import array as numbers
from simreal.deploy import Policy
from simreal.export.bundle import export_bundle
from simreal.export.c.int8 import int8
from simreal.export.c.text import Identifiers, array, comment, number, single, string
from simreal.export.c.writer import FILES
from simreal.export.source import ExportError
from small_arm import SmallArm

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
SLOW = pytest.mark.slow
EVERY_LAYER = ("si units", "action history of 3", "observation history of 3", "clip, elu", "gru", "lstm, bins")
CORTEX = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]


def found(tool: str) -> str:
    """The tool, or the test is skipped."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return tool


def run(*command: Any, folder: Path) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Compiled:
    """libpolicy.so of a folder, called through ctypes."""

    def __init__(self, folder: Path, tool: str = "gcc") -> None:
        run(found(tool), *STRICT, "-O1", "-fPIC", "-shared", "policy.c", "-o", "libpolicy.so", "-lm", folder=folder)
        self._library = ctypes.CDLL(str(folder / "libpolicy.so"))
        self._policy = ctypes.create_string_buffer(1 << 20)
        sizes = dict(re.findall(r"#define POLICY_(\w+)_SIZE (\d+)", (folder / "contract.h").read_text()))
        self.observations, self.actions = int(sizes["OBSERVATION"]), int(sizes["ACTION"])
        self.sent = int(sizes["TARGET"])
        self.reset()

    def reset(self, targets: Any = None) -> None:
        if targets is None:
            self._library.policy_reset(self._policy)
        else:
            self._library.policy_reset_to(self._policy, _pointer(np.asarray(targets, np.float64)))

    def __call__(self, observation: Any) -> np.ndarray:
        action = np.full(self.actions, 9.0, np.float32)
        given = np.ascontiguousarray(observation, np.float32)
        assert given.shape == (self.observations,)
        status = self._library.policy_step(self._policy, _pointer(given), _pointer(action))
        return action if status == 0 else np.array([status])

    def targets(self, action: Any) -> np.ndarray:
        sent = np.zeros(self.sent)
        status = self._library.policy_targets(self._policy, _pointer(np.asarray(action, np.float32)), _pointer(sent))
        return sent if status == 0 else np.array([status])


def _pointer(values: np.ndarray) -> Any:
    return values.ctypes.data_as(ctypes.c_void_p)


@pytest.mark.parametrize("kind", [kind if kind in EVERY_LAYER else pytest.param(kind, marks=SLOW) for kind in KINDS])
def test_c_answers_as_onnx_runtime_step_by_step(kind: str, tmp_path: Path) -> None:
    bundle = export_bundle(make(kind), TASK, tmp_path / "bundle", c=tmp_path / "c")
    deployed, compiled = Policy.load(bundle), Compiled(tmp_path / "c")
    for width in (1.0, 20.0):  # the latter is far outside training
        deployed.reset()
        compiled.reset()
        for row in observations(100):
            seen = 1.3 + width * (row - 1.3)
            np.testing.assert_allclose(compiled(seen), deployed(seen), rtol=0, atol=1e-5 * width)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == sorted([*FILES, "libpolicy.so"])
    contract = (tmp_path / "c" / "contract.h").read_text()
    assert f'POLICY_CONTRACT_SHA256 "{deployed.contract["contract_sha256"]}"' in contract
    assert "#define POLICY_CONTROL_PERIOD_S 0.04\n" in contract


@pytest.mark.parametrize(
    ("kind", "tool"), [("lstm", "gcc"), pytest.param("observation history of 3", "clang", marks=SLOW)]
)
def test_golden_vectors_come_back_under_sanitizers(kind: str, tool: str, tmp_path: Path) -> None:
    found(tool)
    export_bundle(make(kind), TASK, tmp_path / "bundle", c=tmp_path / "c")
    said = run(found("make"), "sanitize", f"CC={tool}", folder=tmp_path / "c")
    assert re.search(r"FetchReach-v4, float32 weights, 64 golden steps: actions off by \d.\de-0[78] ", said)
    golden = tmp_path / "c" / "golden.h"
    text = golden.read_text()
    place = text.index("golden_actions[64][4] = {\n    {") + len("golden_actions[64][4] = {\n    {")
    golden.write_text(text[:place] + "0.9f + " + text[place:])
    done = subprocess.run(
        ["make", "test", f"CC={tool}", "CFLAGS=-O0"], cwd=tmp_path / "c", capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "FAILED: actions are those of golden.h" in done.stdout


@pytest.mark.parametrize("kind", ["gru", pytest.param("bins", marks=SLOW)])
def test_other_processors_compile_it_and_one_of_them_answers(kind: str, tmp_path: Path) -> None:
    export_bundle(make(kind), TASK, tmp_path / "bundle", c=tmp_path / "c")
    if shutil.which("arm-none-eabi-gcc"):
        run("arm-none-eabi-gcc", *CORTEX, *STRICT, "-O3", "-c", "policy.c", folder=tmp_path / "c")
    tool, emulator = found("aarch64-linux-gnu-gcc"), f"{found('qemu-aarch64')} -L /usr/aarch64-linux-gnu"
    (tmp_path / "c" / "policy.o").unlink(missing_ok=True)
    assert "64 golden steps" in run("make", "test", f"CC={tool}", f"RUN={emulator}", folder=tmp_path / "c")


def test_nothing_is_allocated_and_nothing_else_is_called(tmp_path: Path) -> None:
    export_bundle(make("lstm, bins"), TASK, tmp_path / "bundle", c=tmp_path / "c")
    run(found("gcc"), *STRICT, "-O2", "-fno-pic", "-c", "policy.c", folder=tmp_path / "c")
    kinds: dict[str, set[str]] = {}
    for line in run(found("nm"), "policy.o", folder=tmp_path / "c").splitlines():
        *_, kind, name = line.split()
        kinds.setdefault(kind, set()).add(name)
    assert kinds.pop("U", set()) <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}
    assert kinds.pop("T") == {"policy_reset", "policy_reset_to", "policy_step", "policy_targets"}
    assert kinds.keys() <= set("tRr")  # constants, no variable: as many policies may run as there are structs


def test_targets_are_limited_and_smoothed_as_simreal_deploy_does(tmp_path: Path) -> None:
    task = TinyTask()
    task.action = (replace(task.action[0], scale=(0.5,), offset=(0.1,), smoothing=0.25, target_limits=((-0.2,), (0.4,)),
                           initial_target="position", afterwards="nothing"),)  # fmt: skip
    step = nn.Linear(3, 1)
    step.layers = lambda: [Dense(numbers(step.weight), numbers(step.bias))]  # pyright: ignore
    bundle = export_bundle(_stated(step), task, tmp_path / "bundle", c=tmp_path / "c")
    deployed, compiled = Policy.load(bundle), Compiled(tmp_path / "c")
    assert compiled.targets([0.0]) == 3  # where the robot is has not been seen
    generator = np.random.default_rng(0)
    for start in (None, [0.3]):
        deployed.reset(targets=start)
        compiled.reset(start)
        for row in generator.standard_normal((30, 3)).astype(np.float32):
            action = deployed(row)
            expected = deployed.targets(action)["ctrl"]
            assert compiled(row) == pytest.approx(action, abs=1e-6)
            np.testing.assert_array_equal(compiled.targets(action), expected)  # to the last bit
    # target 0.1 + 0.5 * 1 -> at most 0.4; from 0.3 a quarter of the way: 0.3 + 0.25 * 0.1
    compiled.reset([0.3])
    assert compiled.targets([5.0]) == pytest.approx([0.325], abs=1e-12)
    assert compiled.targets([np.nan]) == 2


def _stated(module: nn.Module) -> nn.Module:
    """A policy that is one dense layer."""

    class Stated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            return self.net(observation)

        def layers(self) -> list[Layer]:
            net: Any = self.net
            return [Dense(numbers(net.weight), numbers(net.bias))]

    return Stated()


def test_what_is_not_finite_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    policy = make("action history of 3")
    export_bundle(policy, TASK, tmp_path / "bundle", c=tmp_path / "c")
    compiled, rows = Compiled(tmp_path / "c"), observations(3)
    expected = [compiled(row).copy() for row in rows]
    compiled.reset()
    for row, action in zip(rows, expected, strict=True):
        spoilt = row.copy()
        spoilt[5] = np.nan
        assert compiled(spoilt) == 1
        spoilt[5] = -np.inf
        assert compiled(spoilt) == 1
        np.testing.assert_array_equal(compiled(row), action)


def test_weights_of_8_bits_are_near_and_their_error_is_stated_or_refused(tmp_path: Path) -> None:
    # 127 steps for the largest of a row: 2.54 / 127 = 0.02, and 0.05 / 0.02 = 2.5 -> 2 (to even)
    whole, scale = int8(np.array([[2.54, -1.27, 0.05], [0.0, 0.0, 0.0]], np.float32))
    np.testing.assert_array_equal(whole[:, :2], [[127, -64], [0, 0]])
    np.testing.assert_allclose(scale, [0.02, 1.0], rtol=1e-6)
    for kind in ("clip, elu", "gru"):
        folder = tmp_path / kind[:4]
        bundle = export_bundle(make(kind), TASK, tmp_path / "bundle", c=folder, int8_limit=0.2)
        stated = re.search(r"#define POLICY_INT8_ERROR (\S+)", (folder / "contract.h").read_text())
        assert stated is not None
        deployed, compiled, worst = Policy.load(bundle), Compiled(folder), 0.0
        for row in np.load(bundle / "golden.npz")["observations"]:
            worst = max(worst, float(np.abs(compiled(row) - deployed(row)).max()))
        assert 1e-4 < worst <= float(stated[1]) + 1e-5 < 0.2
        assert "static const int8_t layer" in (folder / "policy.c").read_text()
        assert "int8 weights, 64 golden steps" in run("make", "test", "CFLAGS=-O1", folder=folder)
    before = (folder / "policy.c").read_bytes()
    with pytest.raises(ExportError, match=r"--int8: weights of 8 bits change actions .* expected at most 0.0001"):
        export_bundle(make("gru"), TASK, tmp_path / "bundle", c=folder, int8_limit=1e-4)
    assert (folder / "policy.c").read_bytes() == before


def test_odd_names_become_identifiers_each_once(tmp_path: Path) -> None:
    names = Identifiers(["P_A"])
    given = ["a", "a", "é-ü", "1", "日本", "a_2", "*/ ??/"]
    assert [names.name("P", name) for name in given] == ["P_A_2", "P_A_3", "P_E_U", "P_1", "P_X", "P_A_2_2", "P_X_2"]
    assert string('a"\\\n?é') == '"a\\"\\\\\\n\\?"'.replace('\\"', "\\042").replace("\\\\", "\\134").replace(
        "\\n", "\\012").replace("\\?", "\\077\\303\\251")  # fmt: skip
    assert comment("a */ b\n??/ \\") == "a * / b ? ?/ /"
    assert [single(float(np.float32(v))) for v in (1.0, 0.1, np.inf)] == ["1.0f", "0.100000001f", "INFINITY"]
    assert [number(v) for v in (1, 0.1, None, -np.inf)] == ["1.0", "0.1", "NAN", "-HUGE_VAL"]
    assert array("int", "x", [1, 2]) == "static const int x[2] = {\n    1, 2\n};\n"

    task = TinyTask()
    first = Component('a/b */ ??/ "x" \\', 2, "rad", elements=("für", "fur"), description="100 % // \\")
    task.observation = (first, Component("a b x", 1, "1", description="é"))
    task.action = (ActionComponent("a/b", 1, "N", (1.0,), (0.0,), elements=("sizE",), afterwards="?"),)
    export_bundle(_stated(nn.Linear(3, 1)), task, tmp_path / "bundle", c=tmp_path / "c", observations=np.zeros((2, 3)))
    Compiled(tmp_path / "c")
    run(found("gcc"), *STRICT, "-O0", "test_policy.c", "policy.c", "-lm", folder=tmp_path / "c")
    enumerators = re.findall(r"(POLICY_\w+) = \d", (tmp_path / "c" / "contract.h").read_text())
    assert len(enumerators) == len(set(enumerators)) == 8


def test_wrong_requests_are_refused_in_one_line_and_replace_nothing(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = trained_run / "bundle" / "policy.json"
    before = bundle.stat().st_mtime_ns
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("calibrated on Monday")
    (tmp_path / "file").write_text("")
    output = ["--output", str(tmp_path / "bundle")]
    wrong: list[tuple[list[str], str]] = [
        (["--c", str(tmp_path / "other")], "holds 'notes.txt' and is no policy in C"),
        (["--c", str(tmp_path / "file")], "is a file; name a directory"),
        (["--c", str(tmp_path / "bundle" / "c")], "is in the way of the bundle"),
        (["--c", str(tmp_path)], "is in the way of the bundle"),
        (["--int8"], "--int8: needs --c DIR"),
        (["--c", str(tmp_path / "c"), "--int8-limit", "0.1"], "--int8-limit: needs --int8"),
        (["--c", str(tmp_path / "c"), "--int8", "--int8-limit", "nan"], "--int8-limit: expected a difference"),
        (["--c", str(tmp_path / "c"), "--int8", "--int8-limit", "1e-9"], "expected at most 1e-09"),
    ]
    for options, message in wrong:
        with pytest.raises(SystemExit) as caught:
            main(["export", str(trained_run), *output, *options])
        said = capsys.readouterr().err
        assert (caught.value.code, said.count("\n")) == (2, 1), said
        assert message in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]
    assert bundle.stat().st_mtime_ns == before


def test_the_command_writes_bundle_and_c_and_replaces_its_own(trained_run: Path, tmp_path: Path) -> None:
    for _ in range(2):
        main(["export", str(trained_run), "--output", str(tmp_path / "bundle"), "--c", str(tmp_path / "c")])
        (tmp_path / "c" / "policy.o").write_text("left by make")
    deployed, compiled = Policy.load(tmp_path / "bundle"), Compiled(tmp_path / "c")
    row = np.zeros(deployed.observation_size, np.float32)
    np.testing.assert_allclose(compiled(row), deployed(row), atol=1e-5)
    assert (
        json.loads((tmp_path / "bundle" / "policy.json").read_text())["contract_sha256"]
        in (tmp_path / "c" / "contract.h").read_text()
    )


def test_a_policy_without_layers_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Silent(nn.Module):
        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            return observation[:, :ACTIONS]

    with pytest.raises(ExportError, match=r"and Silent does not state them; give it a method layers\(\)"):
        export_bundle(Silent(), TASK, tmp_path / "bundle", c=tmp_path / "c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spec",
    [
        JointPosition(0.2, relative="target"),
        JointPosition(0.3, relative="target", smoothing=0.5, limits=(-0.5, 0.5)),
        JointPosition(0.2, relative="joint"),
        [JointPosition(0.3, of="yaw"), JointPosition(0.2, relative="joint", smoothing=0.5, of="[pe]*", name="rest")],
    ],
)
def test_targets_that_are_added_to_something_are_those_of_the_bundle(spec: Any, tmp_path: Path) -> None:
    task, layers = SmallArm(spec, JointState()), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    bundle = export_bundle(layers, task, tmp_path / "bundle", c=tmp_path / "c")
    policy, compiled = Policy.load(bundle), Compiled(tmp_path / "c")
    rows = np.random.default_rng(0).normal(0.0, 0.5, (20, 6)).astype(np.float32)
    for relative in filter(None, (part.get("relative") for part in policy.contract["action"])):
        told = relative if isinstance(relative, str) else relative["component"]
        assert f'"{told}", 0.0, ' in (tmp_path / "c" / "policy.c").read_text()  # beside the offset
    for episode in range(2):
        policy.reset()
        compiled.reset()
        if any(part.relative for part in task.action):
            assert compiled.targets(np.zeros(3)).tolist() == [3.0]  # nothing is known yet
        for row in rows[episode:]:
            action = policy(row)
            sent = np.concatenate(list(policy.targets(action).values()))
            compiled(row)
            np.testing.assert_allclose(compiled.targets(action), sent, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        EndEffectorDelta("tool", 0.03),
        EndEffectorDelta("tool", 0.03, turn_scale=0.1, relative="joint", smoothing=0.5),
    ],
)
def test_steps_of_a_tool_become_the_steps_of_joints_of_the_bundle(spec: Any, tmp_path: Path) -> None:
    task = SmallArm(spec, JointState())
    size = task.action_size
    bundle = export_bundle(nn.Linear(6, size), task, tmp_path / "bundle", c=tmp_path / "c")
    policy, compiled = Policy.load(bundle), Compiled(tmp_path / "c")
    contract = (tmp_path / "c" / "contract.h").read_text()
    assert f"#define POLICY_ACTION_SIZE {size}\n" in contract
    assert "#define POLICY_TARGET_SIZE 3\n" in contract
    assert '{"yaw", "m_yaw", "rad", ' in (tmp_path / "c" / "policy.c").read_text()
    rows = np.random.default_rng(0).normal(0.0, 0.7, (40, 6)).astype(np.float32)
    for begin in (0, 20):
        policy.reset()
        compiled.reset()
        for row in rows[begin:]:
            action = policy(row)
            sent = np.concatenate(list(policy.targets(action).values()))
            compiled(row)
            assert np.abs(sent - row[:3]).max() > 1e-4 or spec.relative == "target"
            np.testing.assert_allclose(compiled.targets(action), sent, rtol=0.0, atol=1e-9)
    assert "64 golden steps" in run(found("make"), "sanitize", folder=tmp_path / "c")
