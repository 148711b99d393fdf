"""Evaluation: the same episodes for every policy and at every number of environments, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from envs.environment import Environment
from randomization.parameters import build_parameters
from randomization.samplers.base import Manual
from scripted import reaching, standing
from simreal.common.json_io import to_json, without_samples
from simreal.evaluation.compare import differences, differences_table, other_options, policies_table
from simreal.evaluation.evaluate import Episodes, _Tally, batch_of, evaluate, remarks, run_episodes, summarize
from simreal.evaluation.intervals import wilson
from simreal.evaluation.metrics import SUCCESS
from simreal.evaluation.worlds import World, find_world, find_worlds
from simreal.training.run_directory import LoadedPolicy

BOX = {
    "body_mass": {"of": "object0", "range": [0.5, 2.0], "distribution": "loguniform"},
    "action_delay": {"range": [0, 80]},
    "observation_bias": {"of": "*_pos", "range": [0, 0.01]},
    "joint_range": {"of": "robot0:*", "range": [0, 0.05]},
}


def starts(environment: Environment, gain: float, episodes: int) -> dict[int, tuple[list[float], list[float]]]:
    """World and first observation of each episode, seen by a policy that acts at random."""
    observed, found, layer = environment.reset(), {}, environment.layer
    generator = torch.Generator().manual_seed(int(gain))
    first = torch.ones(environment.num_envs, dtype=torch.bool)
    while len(found) < episodes:
        lam: Any = getattr(layer, "lam")  # noqa: B009
        for i in first.nonzero()[:, 0].tolist():
            found[int(environment.rng.episode[i])] = (lam[i].tolist(), observed.policy[i].tolist())
        action = gain * torch.randn(environment.num_envs, environment.task.action_size, generator=generator)
        result = environment.step(action)
        observed, first = result.observed, result.done
    return {number: start for number, start in found.items() if number < episodes}


def test_a_seed_gives_every_policy_the_same_episodes_at_every_number_of_environments() -> None:
    policy = standing("FetchPush-v4")
    seen = []
    for gain, n in ((0.0, 1), (3.0, 4), (1.0, 7), (0.3, 12)):
        sampler = Manual(build_parameters(policy.make_task(), BOX))
        environment = policy.make_environment(n, sampler, seed=11)
        environment.max_episode_steps = 3
        seen.append(starts(environment, gain, 12))
    assert sorted(seen[0]) == list(range(12))
    for other in seen[1:]:
        for number, (lam, first) in seen[0].items():
            assert other[number][0] == lam
            assert other[number][1] == pytest.approx(first, abs=1e-12)  # sums of matrices may round differently
    other_seed = policy.make_environment(4, Manual(build_parameters(policy.make_task(), BOX)), seed=12)
    other_seed.max_episode_steps = 3
    assert starts(other_seed, 0.0, 12)[0] != seen[0][0]


def test_figures_do_not_depend_on_the_number_of_environments() -> None:
    policy = reaching({"grip_bias": {"quantity": "observation_bias", "of": "grip_pos", "range": [0.03, 0.06]}})
    world = find_world("trained", policy)
    seen = [run_episodes(policy, world.make_environment(policy, n, seed=5), 10) for n in (1, 4, 10)]
    assert 0 < int(seen[0].success.sum()) < 10
    for episodes in seen[1:]:
        assert torch.equal(episodes.success, seen[0].success)
        assert torch.equal(episodes.successes, seen[0].successes)
        assert torch.allclose(episodes.returns, seen[0].returns)


def test_measures_are_means_over_the_steps_of_each_episode() -> None:
    policy = standing("Hopper-v5")  # falls at once: episodes of different lengths
    episodes = run_episodes(policy, find_world("nominal", policy).make_environment(policy, 3, seed=2), 5)
    for number in range(5):
        alone = policy.make_environment(5, Manual([]), seed=2)
        alone.reset()
        terms, returns, steps = [], 0.0, 0
        while True:
            result = alone.step(torch.zeros(5, 3))
            terms.append(float(result.terms["reward_forward"][number]))
            steps += 1
            if bool(result.done[number]):
                returns = float(result.episode_return[number])
                break
        assert int(episodes.steps[number]) == steps < 1000
        assert float(episodes.returns[number]) == pytest.approx(returns)
        assert float(episodes.measures["reward_forward"][number]) == pytest.approx(sum(terms) / steps)
    row = summarize(World("w", Manual([])), episodes)
    assert row["measures"]["episode_length"]["mean"] == pytest.approx(float(episodes.steps.double().mean()))
    values = episodes.measures["reward_forward"]
    se = float(values.std()) / 5**0.5
    assert row["measures"]["reward_forward"] == pytest.approx({"mean": float(values.mean()), "se": se})


def test_episodes_that_ended_in_an_unstable_simulation_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = standing("FetchReach-v4")
    environment = policy.make_environment(2, Manual([]), seed=0)
    environment.max_episode_steps = 3
    real, rng = environment.engine.diverged, environment.rng
    monkeypatch.setattr(
        environment.engine, "diverged", lambda: real() | torch.isin(rng.episode, torch.tensor([1, 4, 9]))
    )
    episodes = run_episodes(policy, environment, 5)
    assert episodes.diverged.tolist() == [False, True, False, False, True]  # of episode 9 nobody asked
    document = {"policy": "still", "worlds": [summarize(World("w", Manual([]), "user"), episodes)]}
    said = "w: 2 of 5 episodes ended early, as the simulation became unstable"
    assert (remarks(document), remarks(document, compared=True)) == ([said], [f"still: {said}"])
    assert "unstable" not in made_up([1, 0], [1.0, 2.0])["worlds"][0]


def made_up(success: list[int], returns: list[float]) -> dict[str, Any]:
    """The document of made-up episodes in one world."""
    held = torch.tensor(success)
    episodes = Episodes(
        held.bool(), torch.tensor(returns).double(), 3 * held, 2 + 0 * held, {}, held < 0, held.double()
    )
    return {"task": "FetchPush-v4", "worlds": [summarize(World("w", Manual([]), "held_out"), episodes)]}


def test_a_world_is_summed_up_with_worked_numbers() -> None:
    row = made_up([1, 1, 0, 1], [1.0, 2.0, 3.0, 10.0])["worlds"][0]
    assert (row["group"], row["episodes"], row["success_rate"]) == ("held_out", 4, 0.75)
    assert row["success_ci95"] == list(wilson(3, 4))
    assert (row["return_mean"], row["return_median"], row["return_cvar10"]) == (4.0, 2.5, 1.0)
    assert (row["successes_mean"], row["successes_median"]) == (2.25, 3.0)
    low, high = row["successes_ci95"]
    assert 0.0 <= low < 2.25 < high <= 3.0
    assert row["samples"] == {
        "success": [1, 1, 0, 1], "return": [1.0, 2.0, 3.0, 10.0], "successes": [3, 3, 0, 3],
        "actions": [1.0, 1.0, 0.0, 1.0],
    }  # fmt: skip


def test_differences_are_paired_and_taken_from_the_baseline() -> None:
    n = 200
    common = torch.randn(n, generator=torch.Generator().manual_seed(0)).tolist()  # episodes differ by far more
    success = [int(i % 4 != 0) for i in range(n)]
    a = made_up(success, [10 * x for x in common]) | {"policy": "a"}
    b = made_up([s if i % 10 else 1 - s for i, s in enumerate(success)], [10 * x + 0.5 for x in common])
    b["policy"] = "b"
    world = [World("w", Manual([]))]
    (found,) = differences([a, b], [world, world], baseline=0, measure=SUCCESS)
    assert (found["world"], found["a"], found["b"]) == ("w", "b", "a")
    assert found["return"] == pytest.approx(0.5)
    assert found["return_ci95"] == pytest.approx([0.5, 0.5], abs=1e-6)  # not 0.5 +- 2: the episodes cancel out
    # of the 20 episodes that end otherwise 10 (0, 20, 40, ...: all multiples of 4) were failures
    assert found["success"] == pytest.approx(0.0)
    low, high = found["success_ci95"]
    assert -0.07 < low < -0.02 < 0.02 < high < 0.07  # 1.96 * sqrt(20) / 200 = 0.044
    (reverse,) = differences([a, b], [world, world], baseline=1, measure=SUCCESS)
    assert (reverse["a"], reverse["b"], reverse["return"]) == ("a", "b", pytest.approx(-0.5))


def test_equal_successes_in_every_episode_do_not_claim_certainty() -> None:
    a, b = (made_up([1] * 100, [0.0] * 100) | {"policy": name} for name in "ab")
    world = [World("w", Manual([]))]
    (found,) = differences([a, b], [world, world], baseline=0, measure=SUCCESS)
    assert found["success"] == 0.0
    assert found["success_ci95"] == pytest.approx([-0.0362, 0.0362], abs=1e-4)
    never = made_up([0] * 100, [0.0] * 100) | {"policy": "never"}
    (found,) = differences([never, a], [world, world], baseline=0, measure=SUCCESS)
    assert found["success"] == 1.0
    assert found["success_ci95"] == pytest.approx([0.9276, 1.0], abs=1e-4)


def test_policies_of_other_task_options_are_named() -> None:
    a = reaching(name="a")
    assert other_options([a, reaching(name="b")]) == []
    (warning,) = other_options([a, replace(a, name="b", task_options={"reward_type": "dense"})])
    assert warning.startswith("b has other task_options than a")


def test_worlds_that_differ_between_policies_are_shown_and_not_compared() -> None:
    policies = [reaching({"action_delay": {"range": [0, high]}}, name=name) for name, high in (("a", 40), ("b", 80))]
    found = [find_worlds(["nominal", "trained"], policy)[0] for policy in policies]
    documents = [evaluate(p, w, 4, 2, seed=0) for p, w in zip(policies, found, strict=True)]
    apart = differences(documents, found, baseline=0, measure=SUCCESS)
    assert [d["world"] for d in apart] == ["nominal"]
    assert policies_table(documents, SUCCESS).row_count == 4
    assert differences_table(apart, documents[0], SUCCESS).row_count == 1


@pytest.mark.parametrize(
    ("episodes", "most", "expected"), [(1000, 256, 250), (1, 256, 1), (257, 256, 129), (256, 256, 256)]
)
def test_no_environment_is_idle_at_the_end(episodes: int, most: int, expected: int) -> None:
    assert batch_of(episodes, most) == expected


def test_documents_are_json_without_nan_and_with_lists_on_one_line() -> None:
    policy: LoadedPolicy = reaching()
    document = evaluate(policy, [find_world("nominal", policy)], 3, None, seed=0)
    text = to_json(document)
    assert json.loads(text) == document
    assert '"success": [1, 1, 1]' in text
    assert "samples" not in without_samples(document)["worlds"][0]
    assert "samples" in document["worlds"][0]
    with pytest.raises(ValueError, match="JSON"):
        to_json({"x": float("nan")})


def test_deviations_and_peaks_of_terms_are_those_of_each_episode() -> None:
    # pitch 1, 3 and 2, 2: means 2 and 2, deviations 1 and 0; speed -4 and 3: the largest magnitude is 4
    tally = _Tally(("pitch", "pitch_sd", "speed_peak"))
    for pitch, speed in (((1.0, 2.0), (-4.0, 0.5)), ((3.0, 2.0), (3.0, 0.25))):
        tally.add({"pitch": torch.tensor(pitch), "speed": torch.tensor(speed)})
    found = tally.measures(torch.tensor([2, 2]))
    assert {name: value.tolist() for name, value in found.items()} == {
        "pitch": [2.0, 2.0], "pitch_sd": [1.0, 0.0], "speed": [-0.5, 0.375], "speed_peak": [4.0, 0.5],
    }  # fmt: skip
    tally.clear(torch.tensor([True, False]))
    tally.add({"pitch": torch.tensor([5.0, 2.0]), "speed": torch.tensor([1.0, 0.0])})
    found = tally.measures(torch.tensor([1, 3]))
    assert found["speed_peak"].tolist() == [1.0, 0.5]
    assert found["pitch_sd"].tolist() == [0.0, 0.0]
