"""What an adapted environment may do: each of these is allowed by Gymnasium, and right here or refused in one line."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

import simreal
from adapted_env import raw
from conftest import snapshot
from envs.common.messages import warn_again
from envs.gymnasium_adapter.python_state import load_attributes, save_attributes, unsaved_attributes
from envs.registry import TaskError, make_task
from legal_envs import Cart, register, with_wrappers
from randomization.config import RandomizationError
from simreal.common.errors import UserError
from simreal.export.bundle import ExportError, export_bundle
from simreal.training.build import make_environment, make_learner
from simreal.training.run_config import RunConfig

register()
CART, WRAPPED = "gymnasium:LegalCart-v0", "gymnasium:LegalWrapped-v0"


def make(task: str = CART, num_envs: int = 2, **options: Any) -> Any:
    env = make_environment(task, num_envs, threads=1, task_options=options)
    env.reset()
    return env


def forward(env: Any, value: float = 1.0) -> torch.Tensor:
    return torch.full((env.num_envs, 1), value)


# Success


@pytest.mark.parametrize("scalars", ["", "0d", "one"])
def test_success_told_from_some_step_on_counts_from_there(scalars: str) -> None:
    env = make(tells=6, scalars=scalars)
    assert env.task.has_success
    told = [env.step(forward(env)).success.tolist() for _ in range(8)]
    # At full thrust the cart has passed 0.1 m by the sixth step: the five before do not say so.
    assert told == [[False, False]] * 5 + [[True, True]] * 3


def test_success_that_a_wrapper_adds_when_the_time_limit_is_reached_is_known() -> None:
    env = make("gymnasium:LegalMonitored-v0")
    assert env.task.has_success
    results = [env.step(forward(env)) for _ in range(8)]
    assert [bool(r.success.all()) for r in results] == [False] * 7 + [True]
    assert [bool(r.truncated.all()) for r in results] == [False] * 7 + [True]
    longer = simreal.make_vec("gymnasium:LegalMonitored-v0", 1, max_episode_steps=12, threads=1)
    longer.reset()
    ends = [longer.step(np.ones((1, 1), np.float32)) for _ in range(12)]
    assert [bool(e[3][0]) for e in ends] == [bool(e[4]["is_success"][0]) for e in ends] == [False] * 11 + [True]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.True_, True), (1, True), (np.array(1.0), True), (np.array([0]), False), (None, False), (np.nan, False)],
)
def test_success_comes_in_many_types(value: Any, expected: bool) -> None:
    env = make(tells=1, value=True)
    raw(env, 0).value = raw(env, 1).value = np.asarray(None) if value is None else value
    assert env.step(forward(env)).success.tolist() == [expected] * 2


def test_success_that_is_no_truth_value_is_refused_in_one_line() -> None:
    env = make(tells=1, value=np.array([True, False]))
    with pytest.raises(TaskError, match=r"info\['is_success'\]: expected True or False, got array"):
        env.step(forward(env))


def test_success_first_told_after_the_probe_is_learnt_when_it_comes() -> None:
    env = make(tells=2000)  # episodes have 8 steps: no probe sees it
    assert not env.task.has_success
    for e in env.engine.envs:
        e.unwrapped.tells = 1
    env.step(forward(env))
    assert env.task.has_success
    again = make(tells=2000)
    again.load_state_dict(snapshot(env))
    for e in again.engine.envs:
        e.unwrapped.tells = 2000
    again.step(forward(again))
    assert again.task.has_success


def test_a_curriculum_may_be_judged_by_success_that_comes_at_the_end() -> None:
    block = {"sampler": "adr", "performance": "success", "parameters": {"body_mass": {"of": "cart"}}}
    make_environment(CART, 1, block, threads=1, task_options={"tells": 8})
    with pytest.raises(RandomizationError, match="knows no success"):
        make_environment(CART, 1, block, threads=1)


# Observations


def test_choices_bits_tuples_and_images_are_numbers_in_the_spaces_order() -> None:
    env = make(odd=True)
    assert [(c.name, c.size) for c in env.task.observation] == [
        ("bits", 2), ("image", 2), ("pair.0", 1), ("pair.1", 1), ("phase", 3),
    ]  # fmt: skip
    x, v = raw(env, 0).data.qpos[0], raw(env, 0).data.qvel[0]
    assert env.observed.policy[0].tolist() == [1, 0, 7, 255, x, v, 1, 0, 0]  # phase 1, the first of three
    assert env.step(forward(env)).final.policy[0, -3:].tolist() == [0, 1, 0]


def test_an_environments_own_buffer_is_copied() -> None:
    env, reference = make(live=True), make()
    first = env.observed.policy
    for _ in range(8):
        a, b = env.step(forward(env)), reference.step(forward(reference))
        assert torch.equal(a.final.policy, b.final.policy)
        assert torch.equal(a.observed.policy, b.observed.policy)
    assert torch.equal(first, make().observed.policy)


def test_integer_actions_are_the_nearest_ones() -> None:
    env = make(integers=True)
    for value in (-1.0, -0.4, 0.2, 0.6, 1.0):  # of 3: -3, -1.2, 0.6, 1.8, 3
        env.step(forward(env, value))
    got = raw(env, 0).got
    assert [int(a[0]) for a in got] == [-3, -1, 1, 2, 3]
    assert all(a.dtype == np.int32 for a in got)


def test_infos_that_come_and_go_are_no_terms() -> None:
    assert make().task._reading.terms == ("energy",)


def test_instances_may_share_a_model_until_worlds_are_to_differ() -> None:
    env, reference = make(shared="model"), make()
    assert torch.equal(env.step(forward(env)).final.policy, reference.step(forward(reference)).final.policy)
    with pytest.raises(TaskError, match="its instances share one mjModel, so they cannot have different worlds"):
        make_environment(
            CART, 2, {"parameters": {"body_mass": {"of": "cart"}}}, task_options={"shared": "model"}
        ).reset()
    with pytest.raises(TaskError, match="its instances share one mjData"):
        make(shared="data")


# Goals


@pytest.mark.parametrize("shape", [(1,), (2,), (2, 1), (5,), ()])
def test_goals_stay_goals_beside_other_keys_and_in_any_shape(shape: tuple[int, ...]) -> None:
    env, size = make(goals=shape, extra=True, ends="one"), int(np.prod(shape))
    assert env.task.goal_size == size
    assert [(c.name, c.size) for c in env.task.observation] == [
        ("camera", 6), ("observation", 4), ("desired_goal", size),
    ]  # fmt: skip
    result = env.step(forward(env))
    own = raw(env, 0)
    assert result.final.policy[0, -size:].tolist() == own.goal.reshape(-1).tolist()
    assert result.final.achieved_goal[0].tolist() == [own.data.qpos[0]] * size
    achieved = torch.tensor([[0.0] * size, [0.5] * size, [0.02] * size]).expand(4, 3, size)
    desired = torch.zeros(4, 3, size)
    assert env.task.goal_reward(achieved, desired).tolist() == [[0.0, -1.0, 0.0]] * 4
    assert env.task.goal_terminated(achieved, desired).tolist() == [[True, False, True]] * 4


@pytest.mark.parametrize(("ends", "vectorized"), [("batch", True), ("one", False)])
def test_what_ends_an_episode_is_asked_in_batches_where_that_gives_the_same(ends: str, vectorized: bool) -> None:
    task = make(goals=(2,), ends=ends).task
    assert task._terminated.vectorized is vectorized
    assert task._reward.vectorized
    achieved = torch.linspace(-0.1, 0.1, 20).view(10, 2)
    assert task.goal_terminated(achieved, torch.zeros(10, 2)).dtype == torch.bool


def test_an_environment_that_does_not_say_what_ends_an_episode_says_so() -> None:
    for ends in (None, "info"):
        task = make(CART, 2, goals=(2,), ends=ends).task
        assert task.goal_terminated(torch.zeros(3, 2), torch.zeros(3, 2)) is None
    fetch = make("gymnasium:FetchReach-v4", 1).task  # says that no goal does
    assert fetch.goal_terminated(torch.zeros(3, 3), torch.zeros(3, 3)).tolist() == [False] * 3


@pytest.mark.parametrize("reads", ["[]", "get"])
def test_a_reward_that_reads_infos_is_refused_for_hindsight_alone(reads: str) -> None:
    options = {"goals": (1,), "reads": reads}
    env = make(**options)
    learner = {"algorithm": "sac", "hidden": [8], "batch_size": 8, "warmup_steps": 10}

    def config(her_k: int) -> RunConfig:
        return RunConfig.model_validate({
            "task": CART, "task_options": options, "num_envs": 2, "learner": learner | {"her_k": her_k},
        })  # fmt: skip

    with pytest.raises(UserError, match=r"her_k: .* reads info\['energy'\], .* expected 0, to train without"):
        make_learner(config(4), env)
    learner_without = make_learner(config(0), env)
    while not learner_without.ready():
        observed, action = env.observed, learner_without.act(env.observed)
        learner_without.record(observed, action, env.step(action))
    assert np.isfinite(learner_without.update()["critic_loss"])


# Wrappers inside


@pytest.mark.parametrize(
    "names",
    [
        ("ClipReward",), ("NormalizeReward",), ("RecordEpisodeStatistics",), ("TimeLimit",), ("DtypeObservation",),
        ("ClipAction",), ("Autoreset",), ("PassiveEnvChecker", "OrderEnforcing"), ("ReshapeObservation",),
        ("FlattenObservation",),
    ],
)  # fmt: skip
def test_wrappers_that_change_nothing_for_a_robot_are_no_obstacle(names: tuple[str, ...]) -> None:
    env, reference = make(WRAPPED, names=names), make()
    assert env.task.export_obstacle is None
    for _ in range(4):
        a, b = env.step(forward(env)), reference.step(forward(reference))
        assert torch.allclose(a.final.policy, b.final.policy, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "NormalizeObservation", "DelayObservation", "FrameStackObservation", "MaxAndSkipObservation", "RepeatAction",
        "RescaleAction", "StickyAction", "TimeAwareObservation", "TransformObservation", "Doubled",
    ],
)  # fmt: skip
def test_wrappers_between_the_policy_and_the_robot_are_named_and_no_bundle_is_written(
    name: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    warn_again()
    with caplog.at_level(logging.WARNING, "simreal"):
        env = make(WRAPPED, names=(name,))
    assert f"its policy observes and acts through {name}, which a robot does not have" in caplog.text
    assert ("learns statistics of its own" in caplog.text) == (name == "NormalizeObservation")
    env.step(forward(env))
    config = RunConfig.model_validate(
        {"task": WRAPPED, "task_options": {"names": (name,)}, "num_envs": 2, "learner": {"algorithm": "ppo"}}
    )
    policy = make_learner(config, env).policy
    with pytest.raises(ExportError, match=f"through {name}, which a robot does not have") as caught:
        export_bundle(policy, env.task, tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_somebodys_wrapper_of_infos_is_no_obstacle() -> None:
    assert make_task("gymnasium:LegalMonitored-v0").export_obstacle is None


@pytest.mark.parametrize(
    "names",
    [
        ("NormalizeObservation",), ("NormalizeReward",), ("FrameStackObservation",), ("DelayObservation",),
        ("TimeAwareObservation",), ("StickyAction",), ("RecordEpisodeStatistics",), ("MaxAndSkipObservation",),
    ],
)  # fmt: skip
def test_what_wrappers_keep_is_resumed_bit_for_bit(names: tuple[str, ...]) -> None:
    first, second = (make(WRAPPED, names=names) for _ in range(2))
    for _ in range(11):
        first.step(forward(first, 0.3))
    second.load_state_dict(snapshot(first))
    for k in range(12):
        a, b = (env.step(forward(env, 0.1 * k)) for env in (first, second))
        assert torch.equal(a.final.policy, b.final.policy)
        assert torch.equal(a.observed.policy, b.observed.policy)
        assert torch.equal(a.reward, b.reward)
    assert unsaved_attributes(with_wrappers(names)) == []


def test_objects_that_refer_to_each_other_are_saved_once() -> None:
    class Part:
        def __init__(self) -> None:
            self.number = 1.0
            self.others: Any = None

    env: Any = Cart()
    parts = [Part() for _ in range(12)]
    for i, part in enumerate(parts):
        setattr(env, f"part{i}", part)
        for k, other in enumerate(parts):
            setattr(part, f"other{k}", other)
    saved = save_attributes(env)
    assert sum(path.endswith(".number") for path in saved) == 12
    parts[7].number = 5.0
    load_attributes(env, saved)
    assert parts[7].number == 1.0


def test_attributes_that_a_step_makes_are_resumed_and_other_wrappers_refused() -> None:
    first, second = Cart(), Cart()
    first.latest = 3.0  # pyright: ignore[reportAttributeAccessIssue]
    load_attributes(second, save_attributes(first))
    assert second.latest == 3.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="saved with other wrappers"):
        load_attributes(with_wrappers(("ClipReward", "RepeatAction")), save_attributes(first))


# Writing model fields (docs/gymnasium.md)


@pytest.mark.parametrize("task", [CART, "FetchPush-v4"])
def test_a_field_written_as_documented_leaves_free_fall_as_it_is(task: str) -> None:
    envs = simreal.make_vec(task, 2, threads=1)
    envs.reset(seed=0)
    envs.engine.field("body_mass")[0, -1] *= 2.0
    envs.engine.set_const()
    root = envs.engine.model.body_jntadr[-1]
    z, v = envs.engine.model.jnt_qposadr[root] + 2, envs.engine.model.jnt_dofadr[root] + 2
    envs.engine.data("qpos")[:, z] += 1.0  # clear of the arm
    envs.engine.data("qvel")[:, v] = 0.0
    envs.step(np.zeros((2, envs.task.action_size), np.float32))
    # g t: MuJoCo's 9.81 for one control period; both the heavy body and the other.
    expected = -9.81 * envs.task.control_period_s
    np.testing.assert_allclose(envs.engine.data("qvel")[:, v].numpy(), [expected] * 2, rtol=0.02)
