"""ONNX files of other frameworks: a contract says how they are fed, and they play like any policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from envs.common.step_records import Observed
from envs.registry import make_task
from simreal.common.errors import UserError
from simreal.evaluation.compare import load_policies
from simreal.evaluation.evaluate import evaluate
from simreal.evaluation.worlds import find_worlds
from simreal.export.foreign import load_foreign
from simreal.training.run_directory import LoadedPolicy

POLE = "InvertedPendulum-v5"
GAINS = np.array([[0.02], [-0.3], [0.05], [0.1]])  # of its observation: falls after some dozens of steps


def graph(
    path: Path,
    gains: np.ndarray,
    batch: str | int = "batch",
    nodes: int = 1,
    width: str | None = None,
    gives: str | None = None,
    flat: bool = False,
) -> Path:
    """y = x gains, as a file with `nodes` inputs; `width` and `gives` stand in place of the sizes of both. A `flat` one
    puts out one row, whatever it gets."""
    inputs = [
        helper.make_tensor_value_info(f"obs{i or ''}", TensorProto.FLOAT, [batch, width or len(gains)])
        for i in range(nodes)
    ]
    output = helper.make_tensor_value_info("continuous_actions", TensorProto.FLOAT, [batch, gives or gains.shape[1]])
    weights = [numpy_helper.from_array(gains.astype(np.float32), "gains")]
    steps = [helper.make_node("MatMul", ["obs", "gains"], ["made" if flat else "continuous_actions"])]
    if flat:
        weights.append(numpy_helper.from_array(np.array([1, -1]), "row"))
        steps.append(helper.make_node("Reshape", ["made", "row"], ["continuous_actions"]))
    made = helper.make_graph(steps, "policy", inputs, [output], weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def contract(path: Path, text: str) -> Path:
    path.write_text(f"task: {POLE}\n{text}")
    return path


def names() -> list[str]:
    return [c.name for c in make_task(POLE).components("policy")]


def whole() -> str:
    return "observation: [" + ", ".join(f"{{of: {name}}}" for name in names()) + "]\n"


@pytest.mark.parametrize("batch", ["batch", 1])
def test_a_file_plays_as_the_same_gains_do(tmp_path: Path, batch: str | int) -> None:
    path = graph(tmp_path / "other.onnx", GAINS, batch)
    scale = make_task(POLE).action[0].scale[0]
    (policy,) = load_policies([path], contract=contract(tmp_path / "c.yaml", f"{whole()}action: {{scale: {scale}}}\n"))
    own = LoadedPolicy(
        "own",
        POLE,
        lambda seen: (seen.float() @ torch.from_numpy(GAINS).float()).clamp(-1, 1),
        lambda mask: None,
        [],
        None,
        None,
    )
    worlds, _ = find_worlds(["nominal", "latency"], policy)
    rows = [evaluate(p, worlds, 5, 3, seed=2)["worlds"] for p in (policy, own)]
    for row, other in zip(*rows, strict=True):
        np.testing.assert_allclose(row["samples"]["return"], other["samples"]["return"], atol=1e-3)
    assert policy.name == "other"


def test_values_are_picked_shifted_scaled_and_limited_and_the_last_output_comes_back(tmp_path: Path) -> None:
    first, *_ = names()
    size = make_task(POLE).components("policy")[0].size
    text = (
        f"observation:\n  - {{of: {first}, minus: 0.5, scale: 2, limits: [-3, 3]}}\n  - {{of: last_output}}\n"
        "action: {scale: 2, offset: 0.5}\n"
    )
    gains = np.concatenate((np.ones((size, 1)), np.full((1, 1), 10.0)))
    policy = load_foreign(graph(tmp_path / "p.onnx", gains), contract(tmp_path / "c.yaml", text))
    policy.reset(torch.ones(2, dtype=torch.bool))
    task = make_task(POLE)
    shown = torch.zeros(2, sum(c.size for c in task.components("policy")), dtype=torch.float64)
    shown[0, :size], shown[1, :size] = 0.6, 9.0
    read = policy.reader(None)  # pyright: ignore[reportArgumentType]
    observed = Observed(shown, None, None, None)
    fed = read(observed)
    np.testing.assert_allclose(fed[:, :size], [[0.2] * size, [3.0] * size])  # 2 (0.6 - 0.5), and 17 limited
    np.testing.assert_allclose(fed[:, size], 0.0)
    out = np.array([0.2, 3.0]) * size
    scale, offset = task.action[0].scale[0], task.action[0].offset[0]
    np.testing.assert_allclose(policy.act(fed)[:, 0], np.clip((0.5 + 2 * out - offset) / scale, -1, 1), rtol=1e-6)
    np.testing.assert_allclose(read(observed)[:, size], out, rtol=1e-6)
    policy.reset(torch.tensor([True, False]))
    np.testing.assert_allclose(read(observed)[:, size], [0.0, out[1]], rtol=1e-6)


def test_orders_of_joints_are_the_files(tmp_path: Path) -> None:
    task = make_task("HalfCheetah-v5")
    part, action = next(c for c in task.components("policy") if c.size > 1), task.action[0]
    start = task.slices()[part.name].start
    elements = part.elements or part.joints
    assert len(elements) == part.size > 1
    joints = action.elements or action.joints
    text = (
        f"task: HalfCheetah-v5\nobservation: [{{of: {part.name}, order: [{elements[1]}, {elements[0]}]}}]\n"
        f"action: {{order: [{', '.join(reversed(joints))}]}}\n"
    )
    (tmp_path / "c.yaml").write_text(text)
    gains = np.vstack((np.eye(2, len(joints)), np.zeros((0, len(joints)))))
    policy = load_foreign(graph(tmp_path / "p.onnx", gains), tmp_path / "c.yaml")
    shown = torch.arange(sum(c.size for c in task.components("policy")), dtype=torch.float64)[None] / 100
    fed = policy.reader(None)(Observed(shown, None, None, None))  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(fed, [[(start + 1) / 100, start / 100]])
    target = np.zeros(len(joints))
    target[-1], target[-2] = (start + 1) / 100, start / 100  # the file's first value is of the last joint
    scale, offset = np.array(action.scale), np.array(action.offset)
    np.testing.assert_allclose(policy.act(fed)[0], np.clip((target - offset) / scale, -1, 1), rtol=1e-6)


def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path) -> None:
    fits, file = whole(), graph(tmp_path / "p.onnx", GAINS)
    wrong = {
        "observation: [{of: nothing}]": r"observation\.0\.of: InvertedPendulum-v5 does not show 'nothing'.*last_output",
        "observation: []": r"observation: ",
        f"{fits}weights: 1": r"weights: unknown key",
        f"{fits[:-2]}, {{of: last_output}}]": r"observation has 5 values, but .*p\.onnx takes 4 \('obs'\)",
        f"{fits}action: {{scale: [1, 2]}}": r"action\.scale: expected one number or 1, got 2",
        f"{fits}action: {{order: [nobody]}}": r"action\.order: no element 'nobody'",
        f"observation: [{{of: {names()[0]}, limits: [1, -1]}}]": r"limits: .*expected \[lower, upper\], got \[1",
        f"observation: [{{of: {names()[0]}, order: [slider, slider]}}]": r"0\.order: 'slider' stands 2 times",
    }
    for text, said in wrong.items():
        with pytest.raises(UserError, match=said) as caught:
            load_foreign(file, contract(tmp_path / "c.yaml", text))
        assert "\n" not in str(caught.value)
    good = contract(tmp_path / "c.yaml", fits)
    with pytest.raises(UserError, match=r"has 2 inputs \('obs', 'obs1'\); expected one"):
        load_foreign(graph(tmp_path / "q.onnx", GAINS, nodes=2), good)
    with pytest.raises(UserError, match=r"action has 1 values, but .*r\.onnx gives 2"):
        load_foreign(graph(tmp_path / "r.onnx", np.ones((4, 2))), good)
    (tmp_path / "s.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"s\.onnx: "):
        load_foreign(tmp_path / "s.onnx", good)
    with pytest.raises(UserError, match=r"expected --contract FILE\.yaml$"):
        load_policies([file])
    with pytest.raises(UserError, match=r"^--contract: says how an ONNX file is fed"):
        load_policies([Path("random")], contract=good)


def test_files_that_cannot_play_are_refused_before_an_episode(tmp_path: Path) -> None:
    good = contract(tmp_path / "c.yaml", whole())
    with pytest.raises(UserError, match=r"p\.onnx: 'obs' takes 8 rows at once; expected one, or any number$"):
        load_foreign(graph(tmp_path / "p.onnx", GAINS, batch=8), good)
    with pytest.raises(UserError, match=r"q\.onnx: cannot play 2 observations of 4 values: ") as caught:
        load_foreign(graph(tmp_path / "q.onnx", np.ones((9, 1)), width="n", gives="m"), good)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"r\.onnx: made \[1, 2\] of 2 observations; expected actions \[2, 1\]$"):
        load_foreign(graph(tmp_path / "r.onnx", GAINS, flat=True, width="n", gives="m"), good)
    policy = load_foreign(graph(tmp_path / "s.onnx", GAINS * np.nan), good)
    policy.reset(torch.ones(1, dtype=torch.bool))
    with pytest.raises(UserError, match=r"s\.onnx: 'continuous_actions' is nan"):
        policy.act(torch.zeros(1, 4, dtype=torch.float64))


def test_nobody_knows_the_worlds_of_its_training(tmp_path: Path) -> None:
    policy = load_foreign(graph(tmp_path / "p.onnx", GAINS), contract(tmp_path / "c.yaml", whole()))
    with pytest.raises(UserError, match=r"^p is an ONNX file, which does not say in which worlds it was trained$"):
        find_worlds(["nominal", "trained"], policy)
