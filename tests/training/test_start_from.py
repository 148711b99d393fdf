"""`train.from`: a run begins with another run's networks and normalizers, and with nothing else of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from command import refused, simreal_command
from shortcuts import without_bundles
from simreal.common.errors import UserError
from simreal.training.checkpoint import newest_checkpoint
from simreal.training.run_config import parse_config
from simreal.training.run_directory import start_from
from simreal.training.trainer import Trainer

_PPO = {"algorithm": "ppo", "memory": "lstm", "memory_size": 8, "actor_hidden": [8], "critic_hidden": [8],
        "horizon": 16, "segment": 8, "epochs": 1, "minibatches": 2}  # fmt: skip
_SAC = {"algorithm": "sac", "hidden": [8, 8], "batch_size": 16, "warmup_steps": 100, "updates_per_cycle": 10,
        "average_updates": 20}  # fmt: skip
_LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": _PPO,
    "ppo without memory": _PPO | {"memory": "none"},
    "sac": _SAC,
    "td3": {k: v for k, v in _SAC.items() if k != "average_updates"} | {"algorithm": "td3"},
    "ddpg": {k: v for k, v in _SAC.items() if k != "average_updates"} | {"algorithm": "ddpg"},
    "dqn": {k: v for k, v in _SAC.items() if k != "average_updates"} | {"algorithm": "dqn"},
}


def document(learner: dict[str, Any], **train: Any) -> dict[str, Any]:
    """A tiny run."""
    return {
        "task": "InvertedPendulum-v5", "num_envs": 4, "threads": 1, "learner": learner,
        "train": {"env_steps": 256, "log_interval": 64, "keep": "last", **train},
        "evaluate": {"episodes": 2, "worlds": ["nominal"]},
    }  # fmt: skip


def trained(learner: dict[str, Any], run: Path, **train: Any) -> Path:
    """A finished run without its evaluation."""
    from rich.console import Console

    from simreal.cli.commands import train_run

    train_run(parse_config(document(learner, **train), "config"), run, None, Console(quiet=True))
    return run


@pytest.mark.parametrize("name", _LEARNERS)
def test_networks_and_normalizers_are_taken_over_and_optimizers_are_new(name: str, tmp_path: Path) -> None:
    run = trained(_LEARNERS[name], tmp_path / "first")
    state = newest_checkpoint(run)["learner"]
    config = parse_config(document(_LEARNERS[name] | {}, **{"from": str(run)}) | {"seed": 5}, "config")
    learner = Trainer(config, tmp_path / "second").learner
    fresh = copy.deepcopy(learner.state_dict())
    start_from(learner, config)
    now = learner.state_dict()
    for part in learner.networks():
        for key, value in state[part].items():
            assert torch.equal(now[part][key], value), (part, key)
    weights = [key for key in state["policy"] if "normalizer" not in key]
    assert any(not torch.equal(state["policy"][key], fresh["policy"][key]) for key in weights)
    if state.get("actor"):
        assert all(torch.equal(now["actor"][key], value) for key, value in state["actor"].items())
    assert {name: now["counters"][name] for name in fresh["counters"]} == fresh["counters"]
    for key in (key for key in now if "optimizer" in key):
        assert str(now[key]) == str(fresh[key])


def test_the_next_run_learns_on_from_there_and_is_resumed_without_it(tmp_path: Path) -> None:
    first = trained(_PPO, tmp_path / "first")
    second = trained(_PPO, tmp_path / "second", **{"from": str(first)})
    before, after = (newest_checkpoint(run)["learner"]["policy"] for run in (first, second))
    mean = next(key for key in before if key.endswith("normalizer.count"))
    assert float(after[mean]) == 2 * float(before[mean])  # the statistics went on
    assert f"from: {first}" in (second / "config.yaml").read_text()


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_a_critic_that_reads_the_world_comes_from_worlds_of_other_parameters(memory: str, tmp_path: Path) -> None:
    mass = {"quantity": "body_mass", "of": "pole", "range": [0.5, 2.0]}
    delay = {"quantity": "action_delay", "range": [0, 50]}
    gravity = {"quantity": "gravity", "of": "z", "range": [-1.0, 1.0]}

    def worlds(**parameters: Any) -> dict[str, Any]:
        return {"randomization": {"sampler": "manual", "parameters": parameters}}

    learner = _PPO | {"memory": memory}
    run = tmp_path / "first"
    train_first = parse_config(document(learner) | worlds(mass=mass, delay=delay), "config")
    from rich.console import Console

    from simreal.cli.commands import train_run

    train_run(train_first, run, None, Console(quiet=True))
    old = newest_checkpoint(run)["learner"]["critic"]
    for block in (worlds(late=delay, gravity=gravity, mass=mass), worlds(delay=delay, mass=mass), {}):
        config = parse_config(document(learner, **{"from": str(run)}) | block, "config")
        made = Trainer(config, tmp_path / "second").learner
        start_from(made, config)
        critic = made.state_dict()["critic"]
        first = "trunk.head.0.weight" if memory == "none" else "trunk.memory.weight_ih_l0"
        task = old[first].shape[1] - 2
        columns = {"mass": old[first][:, task], "delay": old[first][:, task + 1]}
        columns |= {"late": columns["delay"], "gravity": torch.zeros(len(old[first]))}
        names = list(block.get("randomization", {}).get("parameters", ()))
        assert torch.equal(critic[first][:, :task], old[first][:, :task])
        assert critic[first].shape[1] == task + len(names)
        for i, name in enumerate(names):
            assert torch.equal(critic[first][:, task + i], columns[name])
        assert len(critic["normalizer.mean"]) == len(old["normalizer.mean"]) - 2 + len(names)
    other = worlds(mass=mass | {"range": [0.5, 3.0]})  # the same value says another mass
    config = parse_config(document(learner, **{"from": str(run)}) | other, "config")
    made = Trainer(config, tmp_path / "third").learner
    start_from(made, config)
    assert not bool(made.state_dict()["critic"][first][:, -1].any())


def test_a_run_that_stops_before_its_first_update_remembers_that_its_normalizers_know_something(tmp_path: Path) -> None:
    first = trained(_PPO, tmp_path / "first")
    config = parse_config(document(_PPO, **{"from": str(first)}), "config")
    whole, stopped, resumed = (Trainer(config, tmp_path / name) for name in ("whole", "stopped", "resumed"))
    for trainer in (whole, stopped):
        start_from(trainer.learner, config)
        for _ in range(5):  # of a rollout of 16
            trainer._proceed()
    resumed.load(newest_checkpoint(stopped.save().parents[1]))
    for trainer in (whole, resumed):
        for _ in range(11):
            trainer._proceed()
        assert trainer.due
        trainer.learn()
    policies = [trainer.learner.state_dict()["policy"] for trainer in (whole, resumed)]
    assert all(torch.equal(value, policies[1][key]) for key, value in policies[0].items())
    count = next(value for key, value in policies[0].items() if key.endswith("normalizer.count"))
    assert float(count) == float(newest_checkpoint(first)["learner"]["policy"]["normalizer.count"]) + 64


@pytest.mark.parametrize("name", ["sac", "ddpg"])
def test_off_policy_critics_that_read_the_world_come_from_worlds_of_other_parameters(name: str, tmp_path: Path) -> None:
    mass = {"quantity": "body_mass", "of": "pole", "range": [0.5, 2.0]}
    delay = {"quantity": "action_delay", "range": [0, 50]}
    gravity = {"quantity": "gravity", "of": "z", "range": [-1.0, 1.0]}

    def config_of(parameters: dict[str, Any], **train: Any) -> Any:
        block = {"randomization": {"sampler": "manual", "parameters": parameters}}
        return parse_config(document(_LEARNERS[name] | {"privileged_critic": True}, **train) | block, "config")

    from rich.console import Console

    from simreal.cli.commands import train_run

    run = tmp_path / "first"
    train_run(config_of({"mass": mass, "delay": delay}), run, None, Console(quiet=True))
    old = newest_checkpoint(run)["learner"]
    for parameters, places in (
        ({"late": delay, "gravity": gravity, "mass": mass}, [1, None, 0]), ({"delay": delay, "mass": mass}, [1, 0]),
    ):  # fmt: skip
        config = config_of(parameters, **{"from": str(run)})
        made = Trainer(config, tmp_path / "second").learner
        start_from(made, config)
        now = made.state_dict()
        mean = now["privileged_normalizer"]["mean"]
        assert mean.tolist() == [0.0 if i is None else float(old["privileged_normalizer"]["mean"][i]) for i in places]
        for part in ("critic", "target_critic"):
            key = "net.weights.0" if name == "sac" else "net.0.weight"
            before, after = (each[part][key] if name == "sac" else each[part][key].T[None] for each in (old, now))
            world, end = before.shape[1] - 3, 1  # two parameters and the action come last
            assert torch.equal(after[:, :world], before[:, :world])
            assert torch.equal(after[:, -end:], before[:, -end:])
            for i, place in enumerate(places):
                wanted = torch.zeros_like(before[:, 0]) if place is None else before[:, world + place]
                assert torch.equal(after[:, world + i], wanted)
            assert after.shape[1] == world + len(places) + end
    other = config_of({"mass": mass | {"range": [0.5, 3.0]}}, **{"from": str(run)})
    made = Trainer(other, tmp_path / "third").learner
    start_from(made, other)
    critic = made.state_dict()["critic"]["net.weights.0" if name == "sac" else "net.0.weight"]
    assert not bool(critic[:, -2].any())  # the same value says another mass


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_a_policy_that_was_taught_acts_from_the_first_step_on(name: str, tmp_path: Path) -> None:
    first = trained(_LEARNERS[name], tmp_path / "first")
    settings = _LEARNERS[name] | {"warmup_steps": 200} | ({"exploration_noise": 0.0} if name != "sac" else {})
    settings |= {"exploration_random": 0.0} if name == "ddpg" else {}

    def told(**train: Any) -> tuple[Trainer, torch.Tensor, torch.Tensor]:
        config = parse_config(document(settings, **train), "config")
        trainer = Trainer(config, tmp_path / "second")
        start_from(trainer.learner, config)
        observed = trainer.environment.observed
        return trainer, trainer.learner.act(observed), trainer.learner.policy(observed.policy).detach()

    trainer, action, wanted = told(**{"from": str(first)})
    if name == "sac":  # draws around what is most likely
        action = torch.stack([trainer.learner.act(trainer.environment.observed) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(action, wanted, atol=0.05, rtol=0.0)
    fresh, random, its = told()
    assert not torch.allclose(random, its, atol=1e-3)
    for each in (trainer, fresh):  # nothing is learnt before the warm-up is over
        for _ in range(49):
            each._proceed()
            each.learn()
        assert each.learner.updates == 0
    again = Trainer(trainer.config, tmp_path / "second")
    again.load(newest_checkpoint(trainer.save().parents[1]))
    assert again.learner.inherits


def test_a_wrong_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bundles(monkeypatch)
    run = trained(_PPO, tmp_path / "first")
    import yaml

    (tmp_path / "next.yaml").write_text(yaml.safe_dump(document(_PPO)))

    def said(*more: str) -> Any:
        out = simreal_command(capsys, "train", tmp_path / "next.yaml", *more, "--run-dir", tmp_path / "new")
        assert not (tmp_path / "new" / "config.yaml").exists()
        return out

    refused(said(f"train.from={tmp_path / 'frist'}"), "train.from", "no such run", "did you mean", "first")
    refused(said(f"train.from={run}", "learner.memory_size=16"), "train.from", "others than here", "there", "here")
    refused(said(f"train.from={run}", "task=Hopper-v5"), "train.from", "InvertedPendulum-v5")
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(document(_SAC)))
    refused(said(f"train.from={run}"), "is a run of ppo, expected one of sac")
    (tmp_path / "empty").mkdir()
    refused(said(f"train.from={tmp_path / 'empty'}"), "train.from", "has no config.yaml")


def test_a_learner_of_a_package_that_only_has_a_policy_can_begin_from_one() -> None:
    from simreal.learners.base import Learner

    class Module(torch.nn.Linear):
        pass

    class Simple(Learner):
        def __init__(self) -> None:
            self.policy = Module(2, 2)

        act = record = ready = update = state_dict = load_state_dict = None  # type: ignore[assignment]

    Simple.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    one, other = Simple(), Simple()
    one.start_from({"policy": other.policy.state_dict()})
    assert torch.equal(one.policy.weight, other.policy.weight)
    with pytest.raises(RuntimeError):
        one.start_from({"policy": torch.nn.Linear(3, 2).state_dict()})
    assert issubclass(UserError, Exception)
