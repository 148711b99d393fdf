"""Tasks that count successes are judged by how many an episode has, wherever figures are shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.table import Table
from torch import Tensor

from conftest import TinyTask
from envs import registry
from envs.registry import make_task
from envs.task import Outcome
from randomization.samplers.base import Manual
from shortcuts import without_bundles, without_drawings
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.evaluation.compare import baseline, differences, differences_table, figures_table, policies_table
from simreal.evaluation.envelope import judge_of
from simreal.evaluation.evaluate import Episodes, evaluate, run_episodes, summarize
from simreal.evaluation.intervals import bootstrap_ci
from simreal.evaluation.metrics import RETURN, SUCCESS, SUCCESSES, metric_of
from simreal.evaluation.worlds import World, find_world
from simreal.report import clips, write_report
from simreal.report.records import Arm, load_run
from simreal.report.summary import cell, training_score
from simreal.study.results import summarize as summarize_study
from simreal.study.results import table as study_table
from simreal.study.spec import load_study
from simreal.training.run_directory import LoadedPolicy

STEPS = 10


class Counting(TinyTask):
    """A success in every step but the last one of ten, if the action is above 0."""

    counts_successes = True

    def outcome(self, action: Tensor) -> Outcome:
        time = self.engine.data("time")[:, 0] if self.engine.data("time").dim() > 1 else self.engine.data("time")
        early = time < (STEPS - 0.5) * self.control_period_s
        angle = self.engine.data("qpos")[:, 0]
        return Outcome(-angle.square(), torch.zeros_like(early), (action[:, 0] > 0) & early)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._TASKS, "Counting-v0", (Counting, {}))


def constant(action: float, name: str = "constant") -> LoadedPolicy:
    return LoadedPolicy(
        name, "Counting-v0", lambda o: torch.full((len(o), 1), action), lambda mask: None, [], None, None
    )


def made_up(name: str, counts: list[int]) -> dict[str, Any]:
    """The document of made-up episodes in one world."""
    n = len(counts)
    held, zeros = torch.tensor(counts), torch.zeros(n)
    episodes = Episodes(zeros.bool(), zeros.double(), held, 10 + 0 * held, {}, zeros.bool(), zeros.double())
    world = summarize(World("w", Manual([]), "held_out"), episodes)
    return {"task": "Counting-v0", "policy": name, "adr_entropy_npd": None, "worlds": [world]}


def rows(table: Table) -> list[dict[str, str]]:
    """What a table shows, row by row; of columns with the same head the first counts."""
    columns = [(str(c.header), [str(x) for x in c.cells]) for c in reversed(table.columns)]
    return [{head: cells[i] for head, cells in columns} for i in range(table.row_count)]


def test_a_task_says_what_it_is_judged_by() -> None:
    assert metric_of(make_task("Counting-v0")) is SUCCESSES
    assert metric_of(make_task("FetchReach-v4")) is SUCCESS
    assert metric_of(make_task("Hopper-v5")) is RETURN


def test_a_policy_that_always_succeeds_but_at_the_end_is_shown_with_its_count() -> None:
    policy = constant(1.0)
    document = evaluate(policy, [find_world("nominal", policy)], 4, None, seed=0)
    (world,) = document["worlds"]
    assert (world["success_rate"], world["successes_mean"], world["successes_median"]) == (0.0, STEPS - 1, STEPS - 1)
    (shown,) = rows(figures_table(document, metric_of(policy.make_task())))
    assert "success" not in shown
    assert (shown["successes"], shown["95 % interval"], shown["median"]) == ("9.00", "9.00 to 9.00", "9.00")


def test_policies_and_their_differences_are_compared_by_counts_with_worked_numbers() -> None:
    a, b = made_up("a", [1, 1, 1, 1]), made_up("b", [0, 2, 4, 10])
    worlds = [[World("w", Manual([]))]] * 2
    (first, second) = rows(policies_table([a, b], SUCCESSES))
    low, high = bootstrap_ci([0, 2, 4, 10])
    assert (first["successes"], first["median"]) == ("1.00", "1.00")
    assert (second["successes"], second["median"]) == ("4.00", "3.00")  # the mean of 2 and 4
    assert second["95 % interval"] == f"{low:.2f} to {high:.2f}"
    (found,) = differences([a, b], worlds, 0, SUCCESSES)
    assert found["successes"] == 3.0
    assert found["successes_ci95"] == pytest.approx(bootstrap_ci([-1, 1, 3, 9]).tolist())  # pair by pair
    assert {"success", "success_ci95", "return", "return_ci95"} <= set(found)
    (shown,) = rows(differences_table([found], a, SUCCESSES))
    assert (shown["policy"], shown["successes"]) == ("b", "+3.00")
    assert "success" not in shown
    low, high = found["successes_ci95"]
    assert shown["95 % interval"] == f"{low:+.2f} to {high:+.2f}"


def test_the_envelope_asks_how_many_successes_an_episode_must_have() -> None:
    policy = constant(1.0)
    with pytest.raises(UserError, match=r"successes per episode.*--criterion, as 'successes>=3'"):
        judge_of(policy, None)
    episodes = run_episodes(policy, find_world("nominal", policy).make_environment(policy, 2, seed=0), 3)
    assert judge_of(policy, f"successes>={STEPS - 1}")(episodes).all()
    assert not judge_of(policy, f"successes>={STEPS}")(episodes).any()


def test_random_actions_belong_to_the_episode_and_stillness_is_action_0() -> None:
    run = constant(1.0)
    noise, still = baseline("random", run), baseline("zero", run)
    nominal = find_world("nominal", noise)
    seen = [run_episodes(noise, nominal.make_environment(noise, n, seed=3), 12).successes for n in (1, 5, 12)]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert len(seen[0].unique()) > 3  # binomial, 9 trials at 1/2
    other = run_episodes(noise, nominal.make_environment(noise, 4, seed=4), 12).successes
    assert not torch.equal(seen[0], other)
    environment = noise.make_environment(2000, Manual([]), seed=0)
    actions = noise.act(environment.reset().policy)
    assert actions.shape == (2000, 1)
    assert float(actions.min()) < -0.99
    assert float(actions.max()) > 0.99
    assert float(actions.mean()) == pytest.approx(0.0, abs=0.06)  # 4.6 standard errors of 1 / sqrt(3 * 2000)
    assert not torch.equal(actions, noise.act(environment.step(actions).observed.policy))
    assert not still.act(torch.ones(3, 2)).any()
    assert (noise.renamed("x").name, still.task_id, still.entropy) == ("x", "Counting-v0", None)


CONFIG = """
task: Counting-v0
num_envs: 4
learner: {algorithm: ppo, actor_hidden: [8], critic_hidden: [8], horizon: 16, minibatches: 2, epochs: 1}
randomization: {sampler: none}
train: {env_steps: 640, log_interval: 64}
evaluate: {episodes: 4, worlds: [nominal]}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counting")
    (folder / "c.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._TASKS, "Counting-v0", (Counting, {}))
        without_bundles(patch)
        main(["train", str(folder / "c.yaml"), "--run-dir", str(folder / "none-0")])
    return folder / "none-0"


def evaluated(trained: Path, run: Path, seed: int, **worlds: list[int]) -> Path:
    """A copy of the run with another seed and made-up episodes in held-out worlds."""
    shutil.copytree(trained, run)
    text = (run / "config.yaml").read_text().replace("\nseed: 0\n", f"\nseed: {seed}\n")
    (run / "config.yaml").write_text(text)
    entries = [made_up("", counts)["worlds"][0] | {"name": name} for name, counts in worlds.items()]
    document = made_up(run.name, [0]) | {"worlds": entries}
    (run / "evaluation.json").write_text(json.dumps(document))
    return run


def test_figures_over_seeds_and_worlds_are_those_worked_out_by_hand(trained: Path, tmp_path: Path) -> None:
    one = evaluated(trained, tmp_path / "x-0", 0, a=[9, 9, 9, 9], b=[1, 1, 1, 1])
    two = evaluated(trained, tmp_path / "x-1", 1, a=[4, 4, 4, 0], b=[1, 1, 1, 0])
    arm = Arm("x", [load_run(one), load_run(two)])
    both = cell(arm, ["a", "b"])
    assert both is not None
    # means: seeds 5 and (3 + 0.75) / 2 = 1.875; 3.4375 over seeds, standard error 1.5625; b has 1 and 0.75
    assert (both.mean, both.error) == pytest.approx((3.4375, 1.5625))
    assert both.worst == ("b", pytest.approx(0.875))
    assert both.median == 1.0  # of all 16 episodes: 0 0 1 1 1 1 1 1 1 4 4 4 9 9 9 9
    counts = [9] * 4 + [1] * 4 + [4, 4, 4, 0] + [1, 1, 1, 0]
    assert both.pooled is not None
    assert both.pooled == pytest.approx(tuple(bootstrap_ci(counts)))
    assert both.pooled[0] < np.mean(counts) < both.pooled[1]
    score = training_score(arm)
    assert score is not None
    assert score[0] == arm.first.metrics["successes"][-1] > 1.0


def test_the_report_shows_successes_per_episode(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawings(monkeypatch)
    run = evaluated(trained, tmp_path / "run", 0, a=[0, 2, 4, 10], b=[1, 1, 1, 1])
    other = evaluated(trained, tmp_path / "other", 1, a=[1, 1, 1, 1], b=[1, 1, 1, 1])
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("gamma: 0.99", "gamma: 0.9"))
    document = {
        "policies": [made_up("run", [0, 2, 4, 10]), made_up("other", [1, 1, 1, 1])],
        "differences": differences(
            [made_up("other", [1, 1, 1, 1]), made_up("run", [0, 2, 4, 10])],
            [[World("w", Manual([]))]] * 2, 0, SUCCESSES,
        ),
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(document))
    alone = write_report([run], tmp_path / "one.html", pictures=False).read_text()
    both = write_report([run, other, tmp_path / "c.json"], tmp_path / "two.html", pictures=False).read_text()
    low, high = bootstrap_ci([0, 2, 4, 10])
    assert "Successes per episode of fresh episodes" in alone
    assert "Successes in training against steps" in alone
    assert f"<td>4.00</td><td>{low:.2f} to {high:.2f}</td><td>3.00</td>" in alone
    assert "<b>2.50</b>" in alone  # held out: the mean of 4 and 1
    assert "95 % bootstrap interval" in both
    assert f"<b>4.00</b><small>{low:.2f} to {high:.2f}<br>median 3.00</small>" in both
    assert "<td>+3.00</td>" in both
    for text in (alone, both):
        assert "success at the last step" not in text.lower()
        assert "Wilson" not in text


def test_a_study_shows_successes_per_episode(trained: Path, tmp_path: Path) -> None:
    arms = {"none": {}, "noisy": {"set": {"learner.gamma": 0.9}}}
    spec = {"name": "tiny", "config": str(trained.parent / "c.yaml"), "seeds": [0], "arms": arms}
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    none = Arm("none", [load_run(evaluated(trained, tmp_path / "none-0", 0, a=[1, 1, 1, 1]))])
    noisy = Arm("noisy", [load_run(evaluated(trained, tmp_path / "noisy-0", 0, a=[0, 2, 4, 10]))])
    document = summarize_study(load_study(str(tmp_path / "s.yaml")), [none, noisy])
    assert document["measure"] == "successes"
    assert document["arms"][1]["worlds"]["a"]["above_control"]["mean"] == 3.0
    text = study_table(document)
    low, high = bootstrap_ci([0, 2, 4, 10])
    assert "Successes per episode of" in text
    assert f"| held out | noisy | 4.00 | 3.00 | {low:.2f} to {high:.2f} | a (4.00) | +3.00 |" in text
    assert "(bootstrap)" in text


def test_an_evaluation_without_counts_of_its_episodes_is_named(trained: Path, tmp_path: Path) -> None:
    run = evaluated(trained, tmp_path / "run", 0, a=[1, 2])
    document = json.loads((run / "evaluation.json").read_text())
    del document["worlds"][0]["samples"]
    (run / "evaluation.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"evaluation.json: worlds.0: expected .*samples.successes of 2 episodes"):
        load_run(run)


def test_the_best_episode_to_film_has_the_most_successes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "_EPISODES", 8)
    policy = baseline("random", constant(1.0))
    world = find_world("nominal", policy)
    episodes = run_episodes(policy, world.make_environment(policy, 8, 5), 8)
    counts = episodes.successes
    said, number = clips._extreme(policy, episodes, True)
    assert int(counts[number]) == int(counts.max())
    assert said.startswith(f"{int(counts.max())} successes, return ")
    assert clips._extreme(policy, episodes, False)[0].startswith(f"{int(counts.min())} successes, ")
