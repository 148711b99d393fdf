"""Recorded transitions and fitted Q iteration: against tabular value iteration, restarts, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import Run, refused, simreal_command
from envs.environment import Observed
from simreal.learners.base import LearnerSpec
from simreal.learners.off_policy.dataset import Dataset, read_dataset, write_dataset
from simreal.learners.off_policy.fqi import FQI
from simreal.learners.off_policy.replay import HerReplayBuffer
from simreal.learners.options import FQIConfig
from simreal.report import write_report
from tiny import differences

CONFIG = """
task: FetchReach-v4
num_envs: 2
threads: 1
learner: {algorithm: fqi, dataset: reach.npz, sweeps: 4, updates_per_sweep: 3, hidden: [8], batch_size: 16}
train: {keep: last}
evaluate: {episodes: 2, worlds: [nominal]}
"""


@pytest.fixture(scope="module")
def recorded(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """230 transitions of FetchReach: four episodes and a part of one."""
    from simreal.cli.main import main

    path = tmp_path_factory.mktemp("record") / "reach.npz"
    main(["record", str(trained_run), "--steps", "230", "--output", str(path), "--noise", "0.1", "--random", "0.25"])
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "reach.npz").write_bytes(recorded.read_bytes())

    return partial(simreal_command, capsys)


def changed(path: Path, target: Path, **arrays: Any) -> Path:
    """A dataset with other arrays; those that are None are left out."""
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files} | arrays
    np.savez(target, **{name: value for name, value in kept.items() if value is not None})
    return target


def test_a_record_holds_what_the_environments_did(recorded: Path) -> None:
    dataset = read_dataset(recorded)
    a = dataset.arrays
    assert {name: value.shape for name, value in a.items()} == {
        "observation": (230, 13), "next_observation": (230, 13), "action": (230, 4), "reward": (230,),
        "terminated": (230,), "truncated": (230,), "success": (230,), "episode": (230,), "achieved_goal": (230, 3),
    }  # fmt: skip
    assert np.unique(a["episode"], return_counts=True)[1].tolist() == [50, 50, 50, 50, 30]
    goes_on = a["episode"][1:] == a["episode"][:-1]
    np.testing.assert_array_equal(a["next_observation"][:-1][goes_on], a["observation"][1:][goes_on])
    np.testing.assert_array_equal(a["truncated"][:-1], ~goes_on)
    distance = np.linalg.norm(a["achieved_goal"] - a["next_observation"][:, -3:], axis=1)
    np.testing.assert_array_equal(a["reward"], -(distance > 0.05).astype(np.float32))
    np.testing.assert_array_equal(a["success"], distance < 0.05)
    np.testing.assert_allclose(a["achieved_goal"], a["next_observation"][:, :3], atol=1e-6)  # the gripper
    contract = dataset.contract
    assert contract["task"] == "FetchReach-v4"
    assert [part["name"] for part in contract["observation"]][-1] == "desired_goal"
    assert (contract["noise"], contract["random"], contract["world"]) == (0.1, 0.25, "nominal")


def test_the_same_seed_records_the_same_and_another_kind_of_file_is_not_replaced(
    run: Run, trained_run: Path, recorded: Path
) -> None:
    def record(*more: str) -> tuple[int, str, str]:
        return run("record", trained_run, "--steps", "230", *more)

    assert record("--output", "again.npz", "--noise", "0.1", "--random", "0.25")[0] == 0
    assert read_dataset(Path("again.npz")).digest() == read_dataset(recorded).digest()
    assert record("--output", "again.npz", "--seed", "12")[0] == 0  # a dataset may be replaced
    assert read_dataset(Path("again.npz")).digest() != read_dataset(recorded).digest()
    np.savez("golden.npz", observations=np.zeros(3))
    before = Path("golden.npz").read_bytes()
    refused(record("--output", "golden.npz"), "golden.npz", "no dataset")
    assert Path("golden.npz").read_bytes() == before
    refused(record("--output", "data.csv"), "data.csv", ".npz")
    refused(record("--output", "nowhere/data.npz"), "nowhere", "existing folder")
    refused(record("--output", "d.npz", "--world", "nominl"), "nominl", "nominal")
    refused(record("--output", "d.npz", "--seed", str(2**63)), "--seed")
    refused(record("--output", "d.npz", "--noise", "inf"), "--noise")
    refused(run("record", "nothing", "--output", "d.npz"), "nothing", "no such run")


def test_sweeps_are_those_of_tabular_value_iteration(tmp_path: Path) -> None:
    """A walk along five places, left or right; the right end pays 1 and ends it, the left end 0.2."""
    places, gamma = 5, 0.9
    rows = []
    for place in range(1, places - 1):
        for bin_, step in ((0, -1), (1, 1)):
            to = place + step
            pays, ends = (1.0 if to == places - 1 else 0.2 if to == 0 else 0.0), to in (0, places - 1)
            rows.append((np.eye(places)[place], [2.0 * bin_ - 1.0], pays, np.eye(places)[to], ends))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    names = ("observation", "action", "reward", "next_observation", "terminated")
    arrays = {n: c.astype(np.float32) for n, c in zip(names, columns, strict=True)}
    arrays |= {"terminated": columns[4].astype(bool), "episode": np.arange(6)}
    arrays |= {name: np.zeros(6, dtype=bool) for name in ("truncated", "success")}
    write_dataset(tmp_path / "walk.npz", Dataset(arrays, {"task": "Walk-v0"}))
    spec = LearnerSpec(1, places, 1, 0, 0, None, torch.device("cpu"), task="Walk-v0")
    config = FQIConfig.model_validate({
        "dataset": str(tmp_path / "walk.npz"), "bins": 2, "hidden": [32], "lr": 3e-3, "updates_per_sweep": 400,
        "batch_size": 32, "gamma": gamma, "normalize_observation": False,
    })  # fmt: skip
    learner = FQI(spec, config, seed=0)
    table, states = np.zeros((places, 2)), torch.eye(places)
    for sweep in range(3):
        learner.proceed()
        assert learner.ready()
        learner.update()
        if sweep == 0:  # there, targets are made of values that nothing has been learnt of
            table = learner.target_q(states).mean(0)[:, 0].detach().numpy().copy()
        later = np.zeros_like(table)
        for place in range(1, places - 1):
            for bin_, step in ((0, -1), (1, 1)):
                to = place + step
                ends = to in (0, places - 1)
                pays = 1.0 if to == places - 1 else 0.2 if to == 0 else 0.0
                later[place, bin_] = pays + (0.0 if ends else gamma * table[to].max())
        table = later
        found = learner.q(states).mean(0)[1:4, 0].detach().numpy()
        if sweep > 0:
            np.testing.assert_allclose(found, table[1:4], atol=0.05)
        table[1:4] = found
    assert not learner.ready()
    with torch.no_grad():
        taken = learner.act(Observed(states[1:4], None, None, None))
    assert taken[:, 0].tolist() == [1.0, 1.0, 1.0]  # 0.9 squared is more than 0.2


def test_a_dataset_fills_a_replay_as_its_steps_would_have(recorded: Path) -> None:
    a = {name: torch.from_numpy(value) for name, value in read_dataset(recorded).arrays.items()}
    filled, added = (HerReplayBuffer(230, 1, 13, 4, 3) for _ in range(2))
    names = ("observation", "action", "reward", "next_observation", "terminated")
    filled.fill(*(a[name] for name in (*names, "episode")), achieved_goal=a["achieved_goal"])
    for i in range(230):
        done = torch.tensor([i + 1 == 230 or bool(a["episode"][i] != a["episode"][i + 1])])
        added.add(*(a[name][i : i + 1] for name in names), done=done, achieved_goal=a["achieved_goal"][i : i + 1])
    for name in ("_rows", "_end", "_valid", "_time"):
        one, other = getattr(filled, name), getattr(added, name)
        assert one == other if isinstance(one, int) else torch.equal(one, other), name


def test_a_run_counts_sweeps_resumes_bit_for_bit_and_can_be_prolonged(run: Run, tmp_path: Path) -> None:
    status, out, err = run("train", "c.yaml", "--run-dir", "whole")
    assert status == 0, err
    assert "with FQI for 4 sweeps" in out
    header, *rows = Path("whole/metrics.csv").read_text().splitlines()
    assert header.split(",") == ["sweeps", "loss", "q", "target", "updates", "seconds"]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4"]
    assert run("train", "c.yaml", "learner.sweeps=2", "--run-dir", "parts")[0] == 0
    status, out, err = run("train", "c.yaml", "--run-dir", "parts", "--resume")
    assert status == 0, err
    assert "from sweep 2" in out
    assert [d for d in differences(tmp_path / "whole", tmp_path / "parts") if not d.startswith("/config")] == []
    write_report([tmp_path / "whole"], tmp_path / "report.html", pictures=False)
    assert "4 sweeps" in (tmp_path / "report.html").read_text()
    Path("reach.npz").unlink()  # is not needed to use the policy
    assert run("evaluate", "whole", "--episodes", "1", "--world", "nominal")[0] == 0
    assert json.loads(Path("whole/bundle/policy.json").read_text())["recurrent_state"] is None


def test_a_finished_run_can_teach(run: Run, tmp_path: Path) -> None:
    """It counts sweeps; of its `train.env_steps`, which have no meaning, it makes none."""
    student = CONFIG.replace("algorithm: fqi, dataset: reach.npz, sweeps: 4, updates_per_sweep: 3, hidden: [8],", "%s")
    student %= "algorithm: distill, teacher: r, horizon: 4, gradient_steps: 1,"
    (tmp_path / "s.yaml").write_text(f"{student}".replace("keep: last", "keep: last, env_steps: 8"))
    assert run("train", "c.yaml", "learner.sweeps=1", "--run-dir", "r")[0] == 0
    status, _, err = run("train", "s.yaml", "--run-dir", "s")
    assert status == 0, err
    document = (tmp_path / "r" / "config.yaml").read_text()
    (tmp_path / "r" / "config.yaml").write_text(document.replace("sweeps: 1\n", "sweeps: 3\n"))
    refused(run("train", "s.yaml", "--run-dir", "t"), "learner: teacher: r: has trained 1 of its 3 sweeps")


def test_a_run_goes_on_only_with_the_transitions_that_it_began_with(run: Run, tmp_path: Path, recorded: Path) -> None:
    assert run("train", "c.yaml", "learner.sweeps=1", "--run-dir", "r")[0] == 0
    changed(recorded, tmp_path / "reach.npz", reward=np.zeros(230, dtype=np.float32))
    refused(run("train", "c.yaml", "--run-dir", "r", "--resume"), "learner.dataset", "other transitions")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("learner.bins=1", ("learner.bins", "greater than or equal to 2", "got 1")),
        ("learner.dataset=missing.npz", ("missing.npz", "no such file", "simreal record")),
        ("learner.dataset=c.yaml", ("c.yaml", "no dataset")),
        ("learner.action_history=2", ("learner.action_history", "unknown key", "known keys")),
        ("learner.observation_history=2", ("learner.observation_history", "unknown key")),
        ("learner.target_limits=[0, -1]", ("learner: target_limits: expected lowest < highest", "[0.0, -1.0]")),
        ("learner.target_limits=[.nan, 0]", ("learner: target_limits: expected lowest < highest",)),
        ("evaluate.worlds=[]", ("evaluate.worlds", "at least 1 item")),
        ("learner.sweeps=0", ("learner.sweeps", "got 0")),
        ("train.env_steps=500", ("train.env_steps", "learner.sweeps")),
        ("task=FetchPush-v4", ("reach.npz", "'FetchReach-v4'", "expected FetchPush-v4")),
        ("randomization={sampler: adr, parameters: {body_mass: {of: 'robot0:*'}}}", ("sampler", "no episodes", "adr")),
    ],
)
def test_wrong_settings_are_one_line(run: Run, setting: str, said: tuple[str, ...]) -> None:
    refused(run("train", "c.yaml", setting, "--run-dir", "r"), *said)
    assert not Path("r").exists()


WIDE = np.zeros((230, 14), dtype=np.float32)
SPOILT: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a missing array": ({"reward": None}, ("no array 'reward'",)),
    "numbers of another kind": ({"action": np.zeros((230, 4))}, ("action", "float32", "float64")),
    "objects": ({"reward": np.array([{}] * 230, dtype=object)}, ("no dataset",)),
    "fewer rows": ({"episode": np.zeros(3, dtype=np.int64)}, ("episode", "230 rows", "[3]")),
    "more values": ({"observation": WIDE, "next_observation": WIDE}, ("observation", "expected 13", "got 14")),
    "unlike observations": ({"next_observation": WIDE}, ("next_observation", "shape of observation")),
    "no goals": ({"achieved_goal": None}, ("achieved_goal", "expected 3", "got 0")),
    "actions in N m": (
        {"action": np.full((230, 4), -40, dtype=np.float32)}, ("action: row 0", "in [-1, 1]", "got one of 40")
    ),
    "episodes in turn": (
        {"episode": np.arange(230) // 3 % 2}, ("episode: row 6 is of episode 0 again", "one after the other")
    ),
    "ends on the way": ({"terminated": np.arange(230) == 7}, ("row 7 ends episode", "goes on in row 8")),
    "another program's": ({"contract": np.array("{}")}, ("no dataset",)),
    "no contract": ({"contract": None}, ("no dataset",)),
    "a later version": (
        {"contract": np.array('{"format": "simreal dataset", "version": 2}')}, ("version 2", "expected 1")
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_datasets_are_one_line(run: Run, tmp_path: Path, recorded: Path, what: str) -> None:
    arrays, said = SPOILT[what]
    changed(recorded, tmp_path / "reach.npz", **arrays)
    refused(run("train", "c.yaml", "--run-dir", "r"), "reach.npz", *said)
    assert not Path("r").exists()


def test_numbers_that_are_not_finite_are_named(run: Run, tmp_path: Path, recorded: Path) -> None:
    for name in ("observation", "reward", "achieved_goal"):
        array = read_dataset(recorded).arrays[name].copy()
        array[17] = np.nan if name != "reward" else np.inf
        changed(recorded, tmp_path / "reach.npz", **{name: array})
        refused(run("train", "c.yaml", "--run-dir", "r"), "reach.npz", f"{name}: row 17 is not finite")
    (tmp_path / "reach.npz").write_bytes(recorded.read_bytes()[:3000])
    refused(run("train", "c.yaml", "--run-dir", "r"), "reach.npz", "no dataset")
