"""`simreal evaluate --world drake`: the same episodes in another simulator, beside the others, with what differs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.engines.bridge import simulator
from envs.engines.bridge.simulator import KINDS
from scripted import standing
from simreal.common.errors import UserError
from simreal.evaluation.compare import engine_differences
from simreal.evaluation.evaluate import evaluate
from simreal.evaluation.metrics import RETURN
from simreal.evaluation.worlds import check_names, find_world, find_worlds

HERE = [kind for kind, of in KINDS.items() if importlib.util.find_spec(of.package) is not None]
needs_one = pytest.mark.skipif(not HERE, reason="no other simulator is installed")
POLE = "InvertedPendulum-v5"


@needs_one
@pytest.mark.parametrize("kind", HERE)
def test_episodes_begin_alike_and_do_not_depend_on_how_many_are_played_together(kind: str) -> None:
    policy = standing(POLE)
    worlds, _ = find_worlds(["nominal", kind], policy)
    documents = [evaluate(policy, worlds, 6, n, seed=5) for n in (6, 2)]
    rows: list[dict[str, Any]] = documents[0]["worlds"]
    assert rows[1] == documents[1]["worlds"][1]
    assert (rows[1]["engine"], rows[1]["group"]) == (kind, "unmodelled")
    assert rows[1]["statement"][0].startswith("steps: ")
    # a pole that nobody balances falls as fast in both, from the same starts
    returns = [np.array(row["samples"]["return"]) for row in rows]
    assert np.abs(returns[0] - returns[1]).max() <= 1.0
    assert np.unique(returns[0]).size > 1
    (found,) = engine_differences(documents[0], worlds, RETURN)
    assert (found["a"], found["b"], found["policy"]) == (kind, "nominal", "standing")
    assert found["return"] == pytest.approx(float((returns[1] - returns[0]).mean()))


@needs_one
def test_a_file_takes_a_world_into_another_simulator(tmp_path: Path) -> None:
    text = "randomization: {parameters: {action_delay: {range: [40, 40]}, body_mass: {range: [1.5, 1.5]}}}\n"
    (tmp_path / "late.yaml").write_text(text)
    (tmp_path / "there.yaml").write_text(f"{text}engine: {HERE[0]}\n")
    policy = standing(POLE)
    worlds, _ = find_worlds([str(tmp_path / name) for name in ("late.yaml", "there.yaml")], policy)
    document = evaluate(policy, worlds, 3, None, seed=5)
    (found,) = engine_differences(document, worlds, RETURN)
    assert (found["a"], found["b"]) == ("there", "late")
    json.dumps(document)


@needs_one
def test_a_task_that_cannot_be_translated_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=rf"^{HERE[0]}: engine: equality [^\n]* is not translated[^\n]*$"):
        find_world(HERE[0], standing("FetchReach-v4"))
    with pytest.raises(UserError, match=rf"^{HERE[0]}: engine: '{HERE[0]}' cannot run gymnasium:[^\n]*$"):
        find_world(HERE[0], standing("gymnasium:Hopper-v5"))


def test_a_simulator_that_is_not_installed_is_said_before_anything_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator.importlib.util, "find_spec", lambda name: None)
    said = r"drake is not installed: pip install 'simreal\[drake\]'$"
    with pytest.raises(UserError, match=said):
        check_names(["nominal", "drake"])
    with pytest.raises(UserError, match=said):
        find_world("drake", standing(POLE))
