"""Estimators: trained on pictures of a few pixels, stopped and resumed, judged at boundaries, put into the loop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from envs.registry import make_task
from randomization.samplers.adr import ADR
from randomization.targets.appearance import camera_names
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.common.json_io import read_json
from simreal.training.build import make_environment
from simreal.training.checkpoint import newest_checkpoint
from simreal.vision.estimator import command
from simreal.vision.estimator.config import load_estimator_config, parse_estimator
from simreal.vision.estimator.loading import load_estimator
from simreal.vision.estimator.looks import occluded, smeared
from simreal.vision.estimator.rounds import Round
from simreal.vision.estimator.trainer import EstimatorTrainer, annealed
from simreal.vision.rendering.mounts import Mount, mounted
from simreal.vision.sensors.config import SensorConfig
from simreal.vision.sensors.eyes import Eye
from small_eyes import SMALL, write
from small_eyes import run as run
from small_eyes import small_chunks as small_chunks

pytestmark = pytest.mark.usefixtures("can_render", "small_chunks")


def test_a_run_is_assessed_in_all_looks_and_at_its_boundaries(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = read_json(run / "evaluation.json")
    assert document is not None
    assert [row["name"] for row in document["looks"]] == SMALL["evaluate"]["looks"]
    for row in document["looks"]:
        target = row["targets"]["grip_pos"]
        low, high = target["median_ci95"]
        assert 0.0 < low <= target["median"] <= high < 1.0
        assert target["median"] <= target["p90"]
        assert (row["frames"], row["episodes"]) == (16, 8)
    # Thresholds of 0 widen whatever is read: three pictures a decision
    assert document["entropy_npd"] > -13.0
    assert {(b["parameter"], b["side"]) for b in document["boundaries"]} <= {
        ("material_hue", "upper"), ("image_brightness", "lower"), ("image_brightness", "upper"),
    }  # fmt: skip
    assert sum(b["frames"] for b in document["boundaries"]) == 24  # 8 at each of the three sides that can move
    main(["estimate", str(run), "--look", "nominal", "--frames", "16"])
    assert "in interval" in capsys.readouterr().out
    assert read_json(run / "evaluation.json") == document  # one look alone does not replace it
    assert (run / "adr.csv").read_text().splitlines()[0].startswith("frames,entropy_npd,material_hue.lower")
    main(["estimate", str(run), "--noise-block", "--look", "held_out"])
    block = yaml.safe_load(capsys.readouterr().out.partition("# errors")[2].partition("\n")[2])
    held = document["looks"][2]["targets"]["grip_pos"]
    sigma = float(np.sqrt(np.mean(np.square(held["usual_noise"]))))
    entry = block["randomization"]["parameters"]["grip_pos_noise"]
    assert entry == {
        "quantity": "observation_noise",
        "of": "grip_pos",
        "range": [0.0, pytest.approx(2 * sigma, rel=0.01)],
    }
    make_environment("FetchReach-v4", 1, block["randomization"], engine="cpu")


def test_a_page_shows_looks_ranges_and_boundaries_and_policies_pages_refuse_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = read_json(run / "evaluation.json")
    assert document is not None
    main(["report", str(run), "--output", str(tmp_path / "eyes.html")])
    page = (tmp_path / "eyes.html").read_text()
    median = document["looks"][0]["targets"]["grip_pos"]["median"]
    assert f"{median:.3g} m" in page
    assert page.count("held_<wbr>out") == 1
    for boundary in document["boundaries"]:
        assert f"{boundary['right']:.2f}" in page
    assert "Range of image_brightness against pictures" in page
    capsys.readouterr()
    for asked in (["report", str(run), str(run)], ["evaluate", str(run)], ["export", str(run), "--c", "x"]):
        with pytest.raises(SystemExit) as ended:
            main([*asked, *(["--output", str(tmp_path / "no.html")] if asked[0] == "report" else [])])
        assert ended.value.code == 2
    assert "is an estimator's, which reads pictures" in capsys.readouterr().err
    assert not (tmp_path / "no.html").exists()


def test_what_was_stopped_goes_on_with_the_same_bits(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proceed = EstimatorTrainer._proceed

    def stops(self: EstimatorTrainer, rounds: Any) -> None:
        if self.frames == 48:
            raise KeyboardInterrupt
        proceed(self, rounds)

    changed = ["train.checkpoint_interval_s=1.0e-9", "evaluate.looks=[nominal]", "evaluate.boundary_frames=0"]
    command_line = ["estimate", str(run.parent / "eyes.yaml"), *changed, "--run-dir", str(tmp_path / "stopped")]
    monkeypatch.setattr("simreal.vision.estimator.trainer.seconds_between_saves", lambda interval, took: 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(EstimatorTrainer, "_proceed", stops)
        with pytest.raises(SystemExit):
            main(command_line)
    main([*command_line, "--resume"])
    whole, stopped = newest_checkpoint(run), newest_checkpoint(tmp_path / "stopped")
    for name in ("network", "looks", "asked"):
        for key, value in whole[name].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(stopped[name][key], value), f"{name} {key}"
    rows = [(folder / "adr.csv").read_text() for folder in (run, tmp_path / "stopped")]
    assert rows[0] == rows[1]


def test_an_estimator_learns_where_things_are(tmp_path: Path) -> None:
    # Pictures made here: a bright spot whose place is the answer
    config = parse_estimator(SMALL | {"randomization": {}, "train": {"frames": 10_000, "learning_rate": 3e-3}}, "test")
    trainer = EstimatorTrainer(config, tmp_path)
    generator = torch.Generator().manual_seed(0)

    def spots(n: int) -> Round:
        at = torch.randint(2, 13, (n, 2), generator=generator)
        pictures = torch.zeros(n, 1, 16, 16, 3, dtype=torch.uint8)
        for i, (x, y) in enumerate(at.tolist()):
            pictures[i, 0, y : y + 2, x : x + 2] = 255
        truth = torch.cat((0.1 * at.float(), torch.zeros(n, 1)), dim=1)
        return Round(pictures, {"grip_pos": truth}, torch.zeros(n, 0), torch.full((n,), -1))

    first = spots(512)
    trainer.network.fit_scales(first.truths)
    for _ in range(12):
        trainer._learn(first)
    fresh, target = spots(200), trainer.targets[0]
    with torch.no_grad():
        value, std = target.estimate(trainer.network(fresh.pictures)["grip_pos"])
    error = target.error(value, fresh.truths["grip_pos"])
    guess = target.error(first.truths["grip_pos"].mean(0).expand(200, 3), fresh.truths["grip_pos"])
    assert float(error.median()) < 0.2 * float(guess.median())
    assert float(target.covered(value, std, fresh.truths["grip_pos"]).double().mean()) > 0.5


def test_pictures_at_boundaries_are_judged_and_not_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_estimator(SMALL | {"targets": {"grip_pos": {"within": 1e9}}}, "test")
    trainer = EstimatorTrainer(config, tmp_path)
    assert isinstance(trainer.looks, ADR)
    learnt: list[Round] = []
    monkeypatch.setattr(trainer, "_learn", learnt.append)

    class One:
        def ask(self, number: int, looks: dict[str, Any]) -> None: ...
        def take(self) -> Round:
            boundary = torch.tensor([-1, 1, 1, 1, -1, 3, 3])  # three at the upper end of the hue, two of another
            worlds = torch.zeros(7, 2, dtype=torch.float64)
            return Round(
                torch.zeros(7, 1, 16, 16, 3, dtype=torch.uint8), {"grip_pos": torch.zeros(7, 3)}, worlds, boundary
            )

        def close(self) -> None: ...

    trainer._proceed(One())
    assert len(learnt[0]) == 2
    torch.testing.assert_close(trainer.looks.upper, torch.tensor([0.04, 0.0], dtype=torch.float64))
    assert trainer.looks.judged[1] == 1.0


def test_learning_rates_fall_along_a_cosine() -> None:
    assert [annealed(2.0, share) for share in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([2.0, 1.0, 0.0, 0.0])


def test_a_folder_of_pictures_is_learnt_from(tmp_path: Path) -> None:
    main(
        [
            "render",
            "FetchReach-v4",
            "--frames",
            "40",
            "--output",
            str(tmp_path / "pictures"),
            "--size",
            "16",
            "--workers",
            "0",
            "--mount",
            "front=1.9,0.75,1.2:1.32,0.75,0.45:42",
        ]
    )
    config = write(tmp_path, pictures={"folder": str(tmp_path / "pictures")}, randomization={},
                   evaluate={"frames": 16, "looks": ["nominal"]})  # fmt: skip
    main(["estimate", str(config), "train.frames=48", "--run-dir", str(tmp_path / "run")])
    assert load_estimator(tmp_path / "run").frames >= 48
    with pytest.raises(UserError, match="holds pictures of 16 x 16 pixels, expected 24 x 24"):
        command.estimate_command(str(config), ["size=24"], tmp_path / "other", False, None)  # pyright: ignore
    with pytest.raises(UserError, match=r"have been rendered; leave it out"):
        command.estimate_command(
            str(config),
            ["randomization.parameters={material_hue: {}}"],
            tmp_path / "other",
            False,
            None,  # pyright: ignore
        )
    assert not (tmp_path / "other").exists()


def test_spoilt_pictures_are_spoilt_by_their_numbers() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (3, 1, 20, 20, 3), dtype=np.uint8)
    numbers = np.array([5, 6, 5])
    for spoil in (smeared, occluded):
        found = spoil(pictures, numbers)
        assert (found != pictures).any(axis=(1, 2, 3, 4)).all()
        np.testing.assert_array_equal(spoil(pictures[:1], numbers[:1])[0], found[0])
    board = (occluded(pictures, numbers) != pictures).any(axis=-1)
    assert 0.03 < board.mean() < 0.17
    flat = np.full((1, 2, 20, 20, 3), 99, np.uint8)
    np.testing.assert_array_equal(smeared(flat, numbers[:1]), flat)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cameras": ["frnot"]}, "no camera 'frnot' (did you mean 'front'"),
        ({"targets": {"grip_posn": {"within": 1}}}, "targets.grip_posn: FetchReach-v4 has no such component"),
        ({"targets": {"grip_pos": {}}}, "targets.grip_pos.within: field required"),
        ({"size": 4}, "8 to 1024"),
        (
            {"network": {"grid": 3}},
            "network.grid: expected a number that divides 4, the edges of pictures halved 2 times",
        ),
        ({"networks": {}}, "networks: unknown key (did you mean 'network'"),
        ({"randomization": {"sampler": "doraemon"}}, "estimators take none, manual, adr or frozen"),
        ({"learner": {}}, "is of a policy, for `simreal train`"),
    ],
)
def test_wrong_configurations_are_told_in_a_line(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as told:
        load_estimator_config(str(write(tmp_path, **changed)))
    assert said in str(told.value)


def test_looks_that_there_are_not_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    physics = {"sampler": "manual", "parameters": {"action_delay": {"range": [0, 20]}}}
    with pytest.raises(SystemExit) as refused:
        main(["estimate", str(write(tmp_path, randomization=physics)), "--run-dir", str(tmp_path / "eyes")])
    assert refused.value.code == 2
    assert "held_out: the configuration has no visual parameters" in capsys.readouterr().err
    assert not (tmp_path / "eyes").exists()


def test_pictures_of_another_kind_are_refused(run: Path) -> None:
    estimator = load_estimator(run)
    value, std = estimator.estimate(np.zeros((2, 1, 16, 16, 3), np.uint8))["grip_pos"]
    assert value.shape == std.shape == (2, 3)
    with pytest.raises(UserError, match=r"bytes \(uint8\), got float64"):
        estimator.estimate(np.zeros((2, 1, 16, 16, 3)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"expected pictures \[n, 1, 16, 16, 3\] .* got \[2, 1, 32, 32, 3\]"):
        estimator.estimate(np.zeros((2, 1, 32, 32, 3), np.uint8))


def test_a_policy_sees_what_the_estimator_reads(run: Path) -> None:
    estimator = load_estimator(run)
    environment = make_environment(
        "FetchReach-v4", 3, {"parameters": {"material_hue": {}}}, engine="cpu", seed=1, threads=1,
        sensors={"grip_pos": SensorConfig(estimator=str(run), rate_hz=None, latency_s=0.0, drop=0.0, unseen=False)},
    )  # fmt: skip
    observed = environment.reset()
    part = environment.task.slices()["grip_pos"]
    for _ in range(2):
        camera = environment.layer._eyes[0]._camera()  # pyright: ignore
        seen = camera.take(torch.arange(3), environment.layer.lam)  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(observed.policy[:, part].float(), estimator.estimate(seen)["grip_pos"][0])
        assert observed.achieved_goal is not None
        assert (observed.achieved_goal - observed.policy[:, part]).abs().min() > 0  # the goal is judged by the truth
        observed = environment.step(torch.ones(3, 4)).observed


def test_a_camera_has_a_rate_a_latency_and_losses_of_its_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 25 Hz control; pictures at 10 Hz are due at steps 3, 5, 8, 10, ...; known 0.05 s later: two steps
    sensor = SensorConfig(estimator=str(run), rate_hz=10.0, latency_s=0.05, drop=0.0, unseen=False)

    def numbers(self: Eye, values: torch.Tensor, mask: torch.Tensor) -> None:
        values[mask] = self._environment.steps[mask, None].double()

    monkeypatch.setattr(Eye, "_read_into", numbers)
    make = lambda s: make_environment("FetchReach-v4", 2, engine="cpu", threads=1, sensors={"grip_pos": s})  # noqa: E731
    environment = make(sensor)
    shown = [float(environment.reset().policy[0, 0])]
    for k in range(12):
        if k == 6:  # a checkpoint in between, into another environment
            other = make(sensor)
            other.reset()
            other.load_state_dict(environment.state_dict())
            environment = other
        shown.append(float(environment.step(torch.zeros(2, 4)).observed.policy[0, 0]))
    assert shown == [0, 0, 0, 0, 0, 3, 3, 5, 5, 5, 8, 8, 10]
    lossy = make(sensor.model_copy(update={"rate_hz": None, "latency_s": 0.0, "drop": 0.5}))
    lossy.reset()
    fresh = [bool((lossy.step(torch.zeros(2, 4)).observed.policy[:, 0] == k)[0]) for k in range(1, 41)]
    assert 8 < sum(fresh) < 32


def test_a_camera_that_is_there_is_not_put_up_twice() -> None:
    mount = Mount(body="world", pos=(1.9, 0.75, 1.2), lookat=(1.32, 0.75, 0.45), fovy=42)
    with mounted({"front": mount}), mounted({"front": mount, "side": mount}):
        assert camera_names(make_task("FetchReach-v4").model).count("front") == 1
        with pytest.raises(UserError, match=r"mounts\.front: another camera of that name hangs elsewhere"):  # noqa: SIM117
            with mounted({"front": mount.model_copy(update={"fovy": 30})}):
                pass


def test_sensors_that_cannot_be_are_refused(run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "eyes"))
    sensor = SensorConfig(estimator=str(run), rate_hz=None, latency_s=0.0, drop=0.0, unseen=False)
    with pytest.raises(
        UserError, match=r"sensors.grip_pos: .* is an estimator of FetchReach-v4, expected one of FetchPush-v4"
    ):
        make_environment("FetchPush-v4", 1, engine="cpu", sensors={"grip_pos": sensor})
    with pytest.raises(UserError, match=r"reads grip_pos, and not gripper_state"):
        make_environment("FetchReach-v4", 1, engine="cpu", sensors={"gripper_state": sensor})
    with pytest.raises(UserError, match=r"expected a component that FetchReach-v4 measures: grip_pos"):
        make_environment("FetchReach-v4", 1, engine="cpu", sensors={"desired_goal": sensor})
    with pytest.raises(UserError, match="no such estimator"):
        make_environment(
            "FetchReach-v4", 1, engine="cpu", sensors={"grip_pos": sensor.model_copy(update={"estimator": "x"})}
        )
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint"):
        make_environment("FetchReach-v4", 1, engine="cpu", sensors={"grip_pos": sensor})


def test_a_policy_is_played_on_estimates_beside_true_states(
    run: Path, trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["estimate", str(run), "--policy", str(trained_run), "--episodes", "1", "--json", str(tmp_path / "loop.json")])
    document = read_json(tmp_path / "loop.json")
    assert document is not None
    rows = [(row["observes"], row["look"]) for row in document["rows"]]
    assert rows == [
        ("true states", "-"), ("equal noise", "nominal"), ("usual noise", "nominal"), ("estimates", "nominal"),
        ("equal noise", "held_out"), ("usual noise", "held_out"), ("estimates", "held_out"),
    ]  # fmt: skip
    assert document["components"] == ["grip_pos"]
    assert "grip_pos" in capsys.readouterr().out


def test_a_configuration_and_a_world_may_name_sensors(run: Path, trained_run: Path, tmp_path: Path) -> None:
    world = tmp_path / "seen.yaml"
    world.write_text(yaml.safe_dump({"sensors": {"grip_pos": f"estimator:{run}"}}))
    main(["evaluate", str(trained_run), "--world", str(world), "--episodes", "1", "--json", str(tmp_path / "f.json")])
    document = read_json(tmp_path / "f.json")
    assert document is not None
    assert document["worlds"][0]["name"] == "seen"
    config = tmp_path / "policy.yaml"
    config.write_text(
        f"task: FetchReach-v4\nnum_envs: 2\nlearner: {{algorithm: ddpg, hidden: [8], warmup_steps: 4}}\n"
        f"sensors: {{grip_pos: 'estimator:{run}'}}\ntrain: {{env_steps: 8, keep: last}}\n"
        f"evaluate: {{episodes: 1, worlds: [nominal]}}\n"
    )
    main(["train", str(config), "--run-dir", str(tmp_path / "policy")])
    assert str(run) in (tmp_path / "policy" / "config.yaml").read_text()
    with pytest.raises(SystemExit):
        main(["train", str(config), "sensors.grip_pos=camera", "--run-dir", str(tmp_path / "none")])
