"""Students: labels, stacks, resuming, what they learn, the gate, and what is refused. Teachers that read the world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from command import refused, simreal_command
from envs.environment import Observed, StepResult
from randomization.parameters import Parameter
from randomization.samplers.base import Manual
from simreal.learners.base import GivenPolicy, LearnerSpec
from simreal.learners.distill.learner import Distill
from simreal.learners.distill.options import DistillConfig
from simreal.learners.distill.teacher import Teacher
from simreal.learners.history import HistoryLayout, HistoryPolicy
from simreal.learners.on_policy.actor_critic import Policy
from simreal.learners.options import PPOConfig
from simreal.learners.privileged import PrivilegedView
from simreal.training.checkpoint import newest_checkpoint
from simreal.training.run_config import RunConfig, parse_config
from simreal.training.run_directory import load_policy
from tiny import Died, differences, leaves, table, train

WORLDS = {"sampler": "manual", "parameters": {"pole": {"quantity": "body_mass", "of": "pole", "range": [0.5, 2.0]}}}
NETWORK = {"actor_hidden": [8], "horizon": 8}
SMALL = NETWORK | {"algorithm": "distill", "batch_size": 16, "gradient_steps": 2, "rollouts": 3}


def run_of(learner: Mapping[str, Any], steps: int = 96, **more: Any) -> RunConfig:
    document = {
        "task": "InvertedPendulum-v5", "num_envs": 3, "threads": 1, "learner": learner, "randomization": WORLDS,
        "train": {"env_steps": steps, "log_interval": 24, "torch_threads": 1},
        "evaluate": {"episodes": 2, "worlds": ["nominal", "trained"]},
    }  # fmt: skip
    return parse_config(document | more, "test")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose policy reads the privileged group."""
    run = tmp_path_factory.mktemp("teachers") / "teacher"
    learner = NETWORK | {"algorithm": "ppo", "actor_reads": "privileged", "critic_hidden": [8], "minibatches": 2}
    train(run_of(learner), run)
    return run


# --- what a teacher reads ---------------------------------------------------------------------------------------


def test_the_world_is_shown_as_the_teacher_knew_it() -> None:
    mass = Parameter("payload", 1.0, (0.5, 2.5), quantity="body_mass", targets=("trunk",))
    delay = Parameter("late", 0.0, (0.0, 40.0), quantity="action_delay")
    gone = Parameter("gear", 1.0, (0.8, 1.6), quantity="actuator_gain", targets=("a",))
    elsewhere = [replace(delay, name="slow", limits=(0.0, 20.0)), replace(mass, name="m", limits=(1.0, 3.0))]
    view = PrivilegedView([mass, delay, gone], elsewhere)
    # Shown: delay 15 ms = 10 + 10 * 0.5, mass 2.0 = 2 + 1 * 0.
    # Known: mass 1.5 + 1.0 x, delay 20 + 20 x, gear 1.2 + 0.4 x.
    shown = Observed(torch.tensor([[7.0]]), torch.tensor([[3.0, 0.5, 0.0]]), None, None)
    torch.testing.assert_close(view(shown), torch.tensor([[7.0, 3.0, 0.5, -0.25, -0.5]]))
    same = PrivilegedView([mass, delay], [mass, delay])
    assert same(shown).tolist() == [[7.0, 3.0, 0.5, 0.0]]
    other = replace(mass, targets=("calf",))  # another body's mass: the trunk is as it was built
    torch.testing.assert_close(PrivilegedView([mass], [other])(shown), torch.tensor([[7.0, 3.0, 0.5, -0.5]]))


def test_a_privileged_policy_reads_the_same_in_training_and_in_evaluation(teacher: Path) -> None:
    policy = load_policy(teacher)
    trained = policy.make_environment(4, policy.trained_sampler(), seed=3)
    observed = trained.reset()
    seen = policy.reader(trained)(observed)
    layer: Any = trained.layer
    lam = layer.lam[:, 0]
    torch.testing.assert_close(seen[:, -1], (lam - 1.25) / 0.75)
    nominal = policy.make_environment(2, Manual([]), seed=3)
    seen = policy.reader(nominal)(nominal.reset())
    assert seen.shape == (2, 5)
    torch.testing.assert_close(seen[:, -1], torch.full((2,), (1.0 - 1.25) / 0.75).double())
    assert policy.act(seen).shape == (2, 1)


def test_a_privileged_policy_is_evaluated_and_not_exported(
    teacher: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, _ = simreal_command(capsys, "evaluate", teacher, "--episodes", "2", "--world", "nominal")
    assert status == 0
    assert "nominal" in out
    said = simreal_command(capsys, "export", teacher, "--output", tmp_path / "bundle")
    refused(said, "actor_reads: privileged", "algorithm distill")
    assert not (tmp_path / "bundle").exists()


# --- the student's data -----------------------------------------------------------------------------------------

N, NOBS, A = 3, 4, 2
MASS = Parameter("mass", 1.0, (0.5, 1.5), quantity="body_mass", targets=("b",))


class Linear(nn.Module):
    """A teacher: action = clip(matrix @ observation)."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, observation: Tensor) -> Tensor:
        return observation @ self.matrix.T


def spec(teachers: list[nn.Module], **more: Any) -> LearnerSpec:
    alone = LearnerSpec(N, NOBS, A, 0, 1, None, torch.device("cpu"), parameters=(MASS,))
    given = tuple(
        GivenPolicy(f"t{i}", module, PPOConfig.model_validate({}), alone) for i, module in enumerate(teachers)
    )
    return replace(alone, policies={"teachers": given}, **more)


def student(teachers: list[nn.Module], seed: int = 0, more: LearnerSpec | None = None, **settings: Any) -> Distill:
    options = SMALL | {"teachers": ("a", "b")} | settings
    return Distill(more or spec(teachers), DistillConfig.model_validate(options), seed)


def matrix(seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(A, NOBS, generator=torch.Generator().manual_seed(seed))


def stream(seed: int = 0) -> Iterator[StepResult]:
    """Steps of N environments that no action changes; episodes are 1 to a dozen steps long."""
    draw = torch.Generator().manual_seed(seed)

    def observed() -> Observed:
        return Observed(torch.randn(N, NOBS, generator=draw), torch.randn(N, 1, generator=draw), None, None)

    while True:
        final, begun = observed(), observed()
        done, zero = torch.rand(N, generator=draw) < 0.15, torch.zeros(N, dtype=torch.int64)
        no = torch.zeros_like(done)
        yield StepResult(
            observed=replace(begun, policy=torch.where(done[:, None], begun.policy, final.policy)), final=final,
            reward=torch.randn(N, generator=draw), terminated=done, truncated=no, success=done, diverged=no,
            done=done, episode_return=zero.float(), episode_steps=zero, episode_successes=zero, terms={},
        )  # fmt: skip


def test_the_student_sees_the_stacks_of_the_stream_also_where_the_ring_begins_anew() -> None:
    learner = student([Linear(matrix())], observation_history=3, rollouts=2, beta=0.5)
    policy, results, observed = learner.policy, stream(1), next(stream(2)).final
    assert isinstance(policy, HistoryPolicy)
    layout = policy.layout
    state = torch.zeros(N, layout.size)
    rows: list[Tensor] = []
    for _ in range(7 * 8):
        action = learner.act(observed)
        result = next(results)
        rows.append(torch.cat((observed.policy, *layout.before(state, observed.policy)), dim=1))
        state = layout.after(state, observed.policy, action).masked_fill(result.done[:, None], 0.0)
        learner.record(observed, action, result)
        observed = result.observed
        if learner.ready():
            normalizer = type(learner.network.normalizer)(NOBS, active=False)
            latest = learner.dataset.latest(normalizer)
            assert torch.equal(latest.seen[0].unflatten(0, (8, N)), torch.stack(rows[-8:]))
            torch.testing.assert_close(latest.label[0], (latest.seen[0, :, :NOBS] @ matrix().T).clamp(-1.0, 1.0))
            drawn = learner.dataset.sample(normalizer, 64, learner.generator).seen[0]
            known = torch.stack(rows[-16:]).flatten(0, 1)  # two rollouts
            assert (drawn[:, None] == known).all(2).any(1).all()
            learner.update()


def test_the_teacher_steers_the_first_rollout_and_then_a_share_of_environments_that_falls() -> None:
    learner = student([Linear(matrix())], beta=0.0)
    results, observed = stream(1), next(stream(2)).final
    for _ in range(16):
        teachers = (observed.policy @ matrix().T).clamp(-1.0, 1.0)
        action, result = learner.act(observed), next(results)
        assert torch.allclose(action, teachers) is (learner.updates == 0)
        learner.record(observed, action, result)
        observed = result.observed
        if learner.ready():
            learner.update()


def test_a_teacher_with_a_history_remembers_what_was_done_not_what_it_would_have_done() -> None:
    config = PPOConfig.model_validate({"actor_hidden": (8,), "action_history": 2})
    layout = HistoryLayout(0, 2, NOBS, A)
    policy = HistoryPolicy(Policy(NOBS, A, config, layout.inputs), layout)
    alone = spec([])
    teacher = Teacher(GivenPolicy("t", policy, config, alone), alone)
    observed, done = next(stream(3)).final, torch.tensor([False, True, False])
    teacher.action(observed)
    teacher.advance(torch.full((N, A), 0.25), torch.zeros(N, dtype=torch.bool))
    teacher.action(observed)
    teacher.advance(torch.full((N, A), 0.5), done)
    assert teacher.state.tolist() == [[0.25, 0.25, 0.5, 0.5], [0.0] * 4, [0.25, 0.25, 0.5, 0.5]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"actor": "categorical", "bins": 21},
        pytest.param({"memory": "gru", "segment": 4}, marks=pytest.mark.slow),
    ],
)
def test_a_student_learns_what_its_teacher_does(settings: dict[str, Any]) -> None:
    """From a few hundred states of a linear teacher; a student that always says 0 errs by 0.5."""
    learner = student([Linear(matrix(4))], gradient_steps=60, batch_size=64, lr=1e-2, rollouts=8, **settings)
    results, observed, errors = stream(5), next(stream(6)).final, []
    for _ in range(12 * 8):
        action, result = learner.act(observed), next(results)
        learner.record(observed, action, result)
        observed = result.observed
        if learner.ready():
            errors.append(learner.update()["imitation_error"])
    print(errors)
    assert errors[-1] < 0.4 * errors[0]


def test_what_a_student_knows_of_the_world_is_logged_by_name() -> None:
    """One component of the observation is the parameter with noise of a third of its deviation: 1 - MSE/var is 0.9."""
    learner = student(
        [Linear(matrix())], latent="regression", latent_coef=1.0, gradient_steps=60, batch_size=128, lr=1e-2
    )
    results, observed, log = stream(7), next(stream(8)).final, {}
    for _ in range(16 * 8):
        world = torch.rand(N, 1) * 2.0 - 1.0
        shown = observed.policy.clone()
        shown[:, 0] = world[:, 0] + 0.19 * torch.randn(N)
        observed = replace(observed, policy=shown, privileged=world)
        action, result = learner.act(observed), next(results)
        learner.record(observed, action, result)
        observed = result.observed
        if learner.ready():
            log = learner.update()
    assert 0.5 < log["latent.mass"] < 1.0


def test_the_gate_finds_out_which_teacher_is_good_where() -> None:
    """Teacher 0 always says 0.5, teacher 1 always -0.5; the reward is the action's sign times the state's."""
    always = [Linear(torch.zeros(A, NOBS)) for _ in range(2)]
    for module, value in zip(always, (0.5, -0.5), strict=True):
        module.forward = lambda observation, value=value: torch.full((len(observation), A), value)  # type: ignore[method-assign]
    learner = student([], more=replace(spec(list(always)), num_envs=32), gate_share=0.5, gamma=0.0)
    draw = torch.Generator().manual_seed(0)
    zero, no = torch.zeros(32, dtype=torch.int64), torch.zeros(32, dtype=torch.bool)
    for step in range(24 * 8):
        side = torch.randn(32, NOBS, generator=draw)
        observed = Observed(side, torch.zeros(32, 1), None, None)
        action = learner.act(observed)
        reward, done = (action[:, 0] * side[:, 0]).sign(), torch.full((32,), step % 5 == 4)
        learner.record(observed, action, StepResult(
            observed, observed, reward, done, no, no, no, done, reward, zero, zero, {},
        ))  # fmt: skip
        if learner.ready():
            learner.update()
    assert learner.gate is not None
    side = torch.randn(200, NOBS, generator=draw)
    values = learner.gate.values(torch.cat((side, torch.zeros(200, 1)), dim=1).double())
    right = (values[0] > values[1]) == (side[:, 0] > 0.0)
    assert right.float().mean() > 0.9
    played = learner.policy(side)[:, 0]
    assert ((played > 0.0) == (side[:, 0] > 0.0)).float().mean() > 0.85


# --- runs -------------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "history": {"observation_history": 3, "latent": "regression", "lr_schedule": "linear"},
    "lstm": {"memory": "lstm", "memory_size": 4, "segment": 4, "beta": 0.5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_student_equals_an_uninterrupted_one_bit_for_bit(kind: str, teacher: Path, tmp_path: Path) -> None:
    config = run_of(SMALL | KINDS[kind] | {"teacher": str(teacher)}, 216)
    train(config, tmp_path / "whole")
    with pytest.raises(Died):
        train(config, tmp_path / "parts", saves={105}, dies=150)
    train(config, tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    rows = table(tmp_path / "whole" / "metrics.csv")
    assert ("latent.pole" in rows[-1]) is (kind == "history")


def test_a_student_goes_on_only_with_the_teacher_that_it_began_with() -> None:
    state = student([Linear(matrix())]).state_dict()
    student([Linear(matrix())]).load_state_dict(state)
    with pytest.raises(ValueError, match="its policy has changed since this run began"):
        student([Linear(matrix(1))]).load_state_dict(state)


def test_several_teachers_resume_bit_for_bit_too(teacher: Path, tmp_path: Path) -> None:
    config = run_of(SMALL | {"teachers": [str(teacher), str(teacher)]}, 168)
    train(config, tmp_path / "whole")
    with pytest.raises(Died):
        train(config, tmp_path / "parts", saves={90}, dies=120)
    train(config, tmp_path / "parts")
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_student_at_any_number_of_threads(kind: str, teacher: Path, tmp_path: Path) -> None:
    large = {"teachers": [str(teacher), str(teacher)], "actor_hidden": [32, 16], "batch_size": 4096}
    found = []
    for threads in (1, 2, 3):
        config = run_of(SMALL | KINDS[kind] | large, 256 * 24, num_envs=256, threads=threads)
        train_config = config.train.model_copy(update={"torch_threads": threads})
        trainer = train(config.model_copy(update={"train": train_config}), tmp_path / str(threads))
        found.append(leaves(trainer.learner.state_dict()))
    torch.set_num_threads(1)
    for other in found[1:]:
        for path, value in found[0].items():
            assert torch.equal(value, other[path]) if isinstance(value, Tensor) else value == other[path], path


def test_ppo_goes_on_from_a_student(teacher: Path, tmp_path: Path) -> None:
    network = NETWORK | {"observation_history": 2}
    train(run_of(SMALL | network | {"teacher": str(teacher)}), tmp_path / "student")
    ppo = network | {"algorithm": "ppo", "initial_policy": str(tmp_path / "student"), "critic_hidden": [8]}
    first = train(run_of(ppo | {"minibatches": 2, "critic_warmup": 1}, 24), tmp_path / "first").learner
    weights = newest_checkpoint(tmp_path / "student")["learner"]["policy"]
    found = first.policy.state_dict()
    assert found.keys() == weights.keys()
    assert first.updates == 1  # of the critic alone
    for name, value in weights.items():
        if "normalizer" not in name:
            assert torch.equal(found[name], value), name
    count = "network.normalizer.count"
    assert found[count] == weights[count] + 24


def test_wrong_teachers_are_refused_in_one_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(learner: dict[str, Any], **more: Any) -> tuple[int, str, str]:
        document = run_of(SMALL | {"teacher": str(teacher)}).model_dump(mode="json", by_alias=True)
        document |= {"learner": SMALL | learner} | more
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(document))
        return simreal_command(capsys, "train", path, "--run-dir", tmp_path / "new")

    unfinished = tmp_path / "unfinished"
    with pytest.raises(Died):
        train(run_of(NETWORK | {"algorithm": "ppo", "minibatches": 2}), unfinished, saves={48}, dies=48)
    refused(said({"teacher": "runs/none"}), "learner: teacher: runs/none: no such run")
    refused(said({"teacher": str(unfinished)}), "has trained 48 of its 96 steps")
    refused(
        said({"teacher": str(teacher)}, task="Hopper-v5", randomization={}), "is of InvertedPendulum-v5, expected a run"
    )
    refused(said({"teacher": str(teacher), "teachers": ["a", "b"]}), "expected one of them, got both")
    refused(said({}), "teacher: missing")
    refused(said({"teacher": str(teacher), "latent": "regression"}, randomization={}), "latent: nothing is randomized")
    refused(
        said({"teacher": str(teacher), "memory": "lstm", "segment": 4, "observation_history": 2}), "remembers by itself"
    )
    ppo = {"algorithm": "ppo", "initial_policy": str(teacher), "actor_hidden": [8], "horizon": 8, "minibatches": 2}
    document = {"learner": ppo}
    refused(
        _train(capsys, tmp_path, document), "initial_policy", "its actor_reads is 'privileged', here it is 'policy'"
    )
    document = {"learner": ppo | {"actor_reads": "privileged", "actor_hidden": [9]}}
    refused(_train(capsys, tmp_path, document), "its actor_hidden is (8,), here it is (9,)")
    document = {"learner": ppo | {"actor_reads": "privileged"}, "randomization": {}}
    refused(_train(capsys, tmp_path, document), "actor_reads: this task has no privileged group")
    assert not (tmp_path / "new").exists()


def _train(capsys: pytest.CaptureFixture[str], folder: Path, document: dict[str, Any]) -> tuple[int, str, str]:
    base = {"task": "InvertedPendulum-v5", "num_envs": 3, "randomization": WORLDS, "train": {"env_steps": 24}}
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(base | document))
    return simreal_command(capsys, "train", path, "--run-dir", folder / "new")


def test_settings_that_do_not_fit_together_are_refused() -> None:
    for settings, message in (
        ({"teachers": ("a",)}, "expected at least two"),
        ({"teacher": "a", "memory": "gru", "segment": 3}, "divisor of horizon"),
        ({"teacher": "a", "observation_history": 9}, "expected at most horizon"),
        ({"teacher": "a", "memory": "gru", "segment": 8, "batch_size": 4}, "batch_size: expected at least segment"),
    ):
        with pytest.raises(ValidationError, match=message):
            DistillConfig.model_validate(SMALL | settings)
