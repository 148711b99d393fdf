"""Policies that look at pictures: trained for a few steps on small ones, stopped and resumed, exported, put to use."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
import yaml

from command import refused, simreal_command
from envs.platform import gl
from randomization.samplers.base import Manual
from resuming import advance
from shortcuts import made_once, with_short_rehearsals
from simreal.cli.main import main
from simreal.common.json_io import read_json
from simreal.deploy import BundleError, Controller, Policy
from simreal.export.pictures.camera import camera_entry
from simreal.training.build import make_environment
from simreal.training.run_config import parse_config
from simreal.training.run_directory import load_policy, start_from
from simreal.training.trainer import Trainer
from simreal.vision.rendering.mounts import Mount, mounted
from simreal.vision.sensors.pixels import ObservationConfig
from tiny import leaves, unequal

pytestmark = pytest.mark.usefixtures("can_render")
SIDE = {"pos": [0.0, -2.0, 0.4], "lookat": [0.0, 0.0, 0.4], "fovy": 45}
PIXELS: dict[str, Any] = {
    "camera": "side", "mounts": {"side": SIDE}, "size": [24, 16], "crop": [4, 0, 16, 16], "stack": 2, "shift": 1,
    "encoder": {"channels": [4, 4], "features": 6},
}  # fmt: skip
SMALL: dict[str, Any] = {
    "task": "InvertedPendulum-v5",
    "num_envs": 2,
    "threads": 1,
    "observation": {"pixels": PIXELS},
    "learner": {
        "algorithm": "sac", "hidden": [8], "batch_size": 8, "warmup_steps": 8, "replay_size": 200,
        "updates_per_step": 0.5, "updates_per_cycle": 2,
    },
    "train": {"env_steps": 48, "log_interval": 16, "judge_episodes": 10, "loggers": []},
    "evaluate": {"episodes": 2, "worlds": ["nominal"]},
}  # fmt: skip
LOOKS = {
    "hue": {"quantity": "material_hue", "range": [0.0, 0.5]},
    "turned": {"quantity": "camera_rotation", "of": "side", "range": [0.0, 0.05]},
}
ADR = {"sampler": "adr", "performance": "return", "adr": {"thresholds": [-1.0, 0.0], "buffer_size": 2}}
HEAVY = {"sampler": "manual", "parameters": {"body_mass": {"of": "robot0:*", "range": [0.5, 2.0]}}}
ON_POLICY = {"algorithm": "ppo", "horizon": 8, "minibatches": 2, "epochs": 2, "actor_hidden": [8], "critic_hidden": [8]}


def document(**changed: Any) -> dict[str, Any]:
    return {**SMALL, **changed}


def write(folder: Path, **changed: Any) -> Path:
    path = folder / "seen.yaml"
    path.write_text(yaml.safe_dump(document(**changed), sort_keys=False))
    return path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained policy with its bundle, made once. Look at it, or copy it."""

    def make(folder: Path) -> None:
        looks = {"sampler": "manual", "parameters": LOOKS}
        main(["train", str(write(folder, randomization=looks)), "--run-dir", str(folder / "run")])

    return made_once(tmp_path_factory, "pixels", make) / "run"


def seen_by(run: Path, steps: int) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """A policy, the pictures of an episode that it plays, and its actions."""
    policy = load_policy(run)
    environment = policy.make_environment(1, Manual([]), seed=3)
    observed, read = environment.reset(), policy.reader(environment)
    pictures, actions = [], []
    for _ in range(steps):
        pictures.append(read(observed).pictures[0].numpy())
        actions.append(policy.act(read(observed))[0].numpy())
        observed = environment.step(torch.from_numpy(actions[-1])[None]).observed
    return policy, pictures, actions


def test_the_bundle_answers_as_the_run_and_says_what_it_looks_through(run: Path) -> None:
    _, pictures, actions = seen_by(run, 4)
    robot = Policy.load(run / "bundle")
    assert len({p.tobytes() for p in pictures}) == 4
    for picture, action in zip(pictures, actions, strict=True):
        np.testing.assert_allclose(robot({"pixels": picture}), action, atol=1e-4)
    robot.reset()
    again = [robot({"pixels": np.stack((p, pictures[0]))}) for p in pictures]  # a batch
    np.testing.assert_allclose(np.stack(again)[:, 0], actions, atol=1e-4)
    contract = robot.contract
    assert contract["schema_version"] == 3
    assert contract["observation"] == []
    entry = contract["pictures"]
    assert (entry["camera"], entry["shape"], entry["colours"], entry["stack"]) == ("side", [16, 24, 3], "rgb", 2)
    assert entry["crop"] == {"left": 4, "top": 0, "width": 16, "height": 16}
    assert (entry["rate_hz"], entry["latency_s"]) == (25.0, 0.0)
    # 16 pixels high at 45 degrees: 8 / tan(22.5 deg) = 19.31 pixels
    assert entry["intrinsics"]["fx"] == pytest.approx(19.3137, abs=1e-3)
    assert entry["pose"]["body"] == "world"
    assert entry["pose"]["pos"] == [0.0, -2.0, 0.4]
    with np.load(run / "bundle" / "golden.npz") as golden:
        assert golden["pixels"].shape[1:] == (2, 16, 24, 3)
        assert golden["pixels"].dtype == np.uint8
    assert (
        "'pixels': np.zeros((16, 24, 3), dtype=np.uint8),  # camera side"
        in (run / "bundle" / "example_loop.py").read_text()
    )


def test_run_and_bundle_are_evaluated_alike(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looks = tmp_path / "looks.yaml"
    looks.write_text(yaml.safe_dump({"randomization": {"parameters": {"hue": LOOKS["hue"]}}}))
    json_file = tmp_path / "both.json"
    command = ["evaluate", run, run / "bundle", "--world", "nominal", "--world", looks, "--episodes", "2"]
    status, _, err = simreal_command(capsys, *command, "--json", json_file)
    assert status == 0, err
    found = read_json(json_file)
    assert found is not None
    ours, theirs = ([row["samples"]["actions"] for row in policy["worlds"]] for policy in found["policies"])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert ours[0] != ours[1]  # what it sees makes a difference


def test_pictures_that_are_not_those_of_the_contract_are_refused(run: Path) -> None:
    robot = Policy.load(run / "bundle")
    for given, said in (
        ({"pixels": np.zeros((16, 24, 3))}, r"pixels: expected bytes \(uint8\) in the order rgb.*got float64"),
        ({"pixels": np.zeros((16, 16, 3), np.uint8)}, r"expected pictures \[16, 24, 3\] .* got \[16, 16, 3\]"),
        ({"pixels": np.zeros((24, 16, 3), np.uint8)}, r"got \[24, 16, 3\]"),
        ({"pixel": np.zeros((16, 24, 3), np.uint8)}, "expected a mapping with 'pixels', a picture of camera 'side'"),
        (np.zeros(4), "expected a mapping with 'pixels'"),
        ({"pixels": np.zeros((16, 24, 3), np.uint8), "velocity": [1.0]}, "unknown observation component 'velocity'"),
    ):
        with pytest.raises(ValueError, match=said):
            robot(given)
    robot({"pixels": np.zeros((2, 16, 24, 3), np.uint8)})
    with pytest.raises(ValueError, match=r"3 rows after 2 in one episode; call reset\(\) first"):
        robot({"pixels": np.zeros((3, 16, 24, 3), np.uint8)})


def test_a_controller_says_that_it_carries_no_pictures(run: Path) -> None:
    robot: Any = None
    with pytest.raises(ValueError, match="policy: looks at pictures, which a Controller does not carry"):
        Controller(run / "bundle", robot)


def test_a_bundle_whose_pictures_were_changed_is_refused(run: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(run / "bundle", tmp_path / "bundle"))
    contract = json.loads((bundle / "policy.json").read_text())
    contract["pictures"]["shape"] = [16, 24, 1]
    (bundle / "policy.json").write_text(json.dumps(contract))
    with pytest.raises(BundleError, match="altered after the export"):
        Policy.load(bundle)


@pytest.mark.parametrize(
    ("learner", "observation", "randomization"),
    [
        ("sac", {"critic": "state"}, {"sampler": "manual", "parameters": LOOKS}),
        ("sac", {"critic": "pixels", "components": ["pole_vel"]}, {"sampler": "none"}),
        ("ppo", {"critic": "state"}, {**ADR, "parameters": LOOKS}),
        ("ppo", {"critic": "pixels", "components": ["pole_vel"]}, {"sampler": "none"}),
    ],
)  # fmt: skip
def test_a_stopped_training_goes_on_with_the_same_bits(
    learner: str, observation: dict[str, Any], randomization: dict[str, Any], tmp_path: Path
) -> None:
    timing = {"rate_hz": 12.5, "latency_s": 0.04, "drop": 0.2}
    config = parse_config(
        document(
            learner=SMALL["learner"] if learner == "sac" else ON_POLICY, randomization=randomization,
            observation={"pixels": {**PIXELS, **timing}, **observation},
        ), "test",
    )  # fmt: skip
    whole, first = (Trainer(config, tmp_path) for _ in range(2))
    advance(whole, 30)
    advance(first, 13)
    first.save()
    second = Trainer(config, tmp_path)
    from simreal.training.checkpoint import newest_checkpoint

    second.load(newest_checkpoint(tmp_path, config.task))
    advance(second, 17)
    parts = [
        leaves({"learner": t.learner.state_dict(), "environment": t.environment.state_dict()}) for t in (whole, second)
    ]
    assert not unequal(*parts)
    assert whole.learner.updates > 2


def test_a_goal_task_reads_its_goal_beside_the_pictures_and_learns_with_hindsight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_short_rehearsals(monkeypatch)
    config = parse_config(
        document(
            task="FetchReach-v4", randomization=HEAVY, observation={"pixels": {"size": 16, "stack": 1}}
        ), "test",
    )  # fmt: skip
    trainer = Trainer(config, tmp_path)
    advance(trainer, 20)
    learner: Any = trainer.learner
    assert learner.layout.components == ("desired_goal",)
    assert learner.policy.normalizer.mean.shape == (3,)
    # The world's parameter stands between what is measured and the goal, and is let through as it is
    at = learner._whole.own + learner._whole.privileged
    assert float(learner.states.scale()[at - 1]) == 1.0
    batch = learner._sample(16)
    assert torch.equal(batch.observation[:, learner._columns], batch.observation[:, -3:])


@pytest.mark.parametrize(("learner", "first"), [("sac", "net.weights.0"), ("ppo", "trunk.head.0.weight")])
def test_a_critic_of_states_comes_from_worlds_of_other_parameters(
    learner: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_short_rehearsals(monkeypatch)
    mass = {"quantity": "body_mass", "of": "robot0:*", "range": [0.5, 2.0]}
    delay = {"quantity": "action_delay", "range": [0, 80]}

    def trainer_of(folder: str, parameters: dict[str, Any], **train: Any) -> Trainer:
        config = document(
            task="FetchReach-v4", observation={"pixels": {"size": 16, "stack": 1}},
            learner=SMALL["learner"] if learner == "sac" else ON_POLICY,
            randomization={"sampler": "manual", "parameters": parameters}, train={**SMALL["train"], **train},
        )  # fmt: skip
        return Trainer(parse_config(config, "test"), tmp_path / folder)

    taught = trainer_of("first", {"mass": mass, "delay": delay})
    advance(taught, 10)
    run = taught.save().parents[1]
    (run / "config.yaml").write_text(taught.config.to_yaml())
    old = taught.learner.state_dict()
    for parameters in ({"late": delay, "heavy": mass}, {"late": delay}):
        made = trainer_of("second", parameters, **{"from": str(run)})
        start_from(made.learner, made.config)
        now = made.learner.state_dict()
        before, after = (s["critic"][first] if learner == "sac" else s["critic"][first].T[None] for s in (old, now))
        behind = taught.learner.spec.goal_size + taught.learner.spec.action_size if learner == "sac" else 0
        world = before.shape[1] - behind - 2
        assert torch.equal(after[:, world], before[:, world + 1])
        assert len(parameters) == 1 or torch.equal(after[:, world + 1], before[:, world])
        assert torch.equal(after[:, :world], before[:, :world])
        assert torch.equal(after[:, world + len(parameters) :], before[:, world + 2 :])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"observation": {"pixels": {**PIXELS, "camera": "sidee"}}}, "no camera 'sidee' (did you mean 'side'"),
        ({"observation": "pixel"}, "observation: expected state, pixels or a mapping with pixels, got 'pixel'"),
        ({"observation": {"pixels": {"size": 4}}}, "observation.pixels.size: expected 8 to 1024 pixels"),
        ({"observation": {"pixels": {"crop": [50, 0, 32, 32]}}}, "crop: expected a part of the 64 x 64 pixels"),
        ({"observation": {"pixels": {"shrink": 5}}}, "observation.pixels.shrink: expected a divisor of 64 and 64"),
        ({"observation": {"pixels": {}, "components": ["qvell"]}}, "observation.components: no component 'qvell'"),
        (
            {"task": "FetchReach-v4", "observation": {"components": []}},
            "observation.components: the pictures do not show the goal of FetchReach-v4; expected desired_goal",
        ),
        (
            {"observation": {"pixels": {"size": 16, "encoder": {"channels": [4, 4, 4, 4]}}}},
            "pixels.encoder.channels: expected at most 3 convolutions of 16 pixels, got 4",
        ),
        ({"learner": {"algorithm": "td3"}}, "observation: td3 reads no pictures; expected learner ppo or sac"),
        ({"learner": {"algorithm": "dqn"}}, "observation: dqn reads no pictures; expected learner ppo or sac"),
        ({"train": {"overlap": True}}, "train.overlap: updates of policies that look at pictures"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_a_line(
    changed: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(simreal_command(capsys, "train", write(tmp_path, **changed), "--run-dir", tmp_path / "run"), said)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_c_is_refused_and_what_does_work_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = simreal_command(capsys, "export", run, "--c", tmp_path / "c", "--output", tmp_path / "bundle")
    refused(
        said, "C is not written of policies that look at pictures; without --c the bundle runs wherever ONNX Runtime"
    )
    assert not (tmp_path / "c").exists()


def test_a_machine_that_cannot_render_is_told_what_to_install(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: int) -> Any:
        raise ImportError("Unable to load EGL library")

    monkeypatch.setattr(mujoco, "GLContext", refuses)
    said = simreal_command(capsys, "train", write(tmp_path), "--run-dir", tmp_path / "run")
    refused(said, "cannot render here (Unable to load EGL library)", "apt-get install libegl1 libgl1-mesa-dri")
    # It exports all the same, with patterns in place of pictures
    status, _, err = simreal_command(capsys, "export", run, "--output", tmp_path / "bundle")
    assert status == 0, err
    assert Policy.load(tmp_path / "bundle").contract["pictures"]["camera"] == "side"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("osmesa", "MUJOCO_GL is 'osmesa', and libOSMesa.so.8 is not installed"),
        ("egl", "MUJOCO_GL is 'egl', and libEGL.so.1 is not installed"),
        ("elg", "MUJOCO_GL is 'elg', and there is no such backend"),
    ],
)
def test_a_backend_without_its_library_leaves_mujoco_importable_and_is_named(
    wanted: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    with monkeypatch.context() as patch:  # as where neither is installed and MuJoCo is not imported yet
        patch.delitem(sys.modules, "mujoco")
        patch.setattr("ctypes.CDLL", missing)
        patch.setenv("MUJOCO_GL", wanted)
        gl.choose_gl_backend()
        assert os.environ["MUJOCO_GL"] == "disable"  # with any other value `import mujoco` raises there
    monkeypatch.delattr(mujoco, "GLContext")  # and this is what it has then
    try:
        refused(
            simreal_command(capsys, "train", write(tmp_path), "--run-dir", tmp_path / "run"), said, "apt-get install"
        )
    finally:
        gl.problem = ""


@pytest.mark.parametrize("camera", ["side", "view"])
def test_intrinsics_and_pose_say_where_things_are_in_the_picture(camera: str) -> None:
    # The pole's upper end, as MuJoCo's renderer sees it, lies where a pinhole with these numbers sees its place
    observation = ObservationConfig.model_validate(
        {"pixels": {"camera": camera, "mounts": {"side": SIDE}, "size": [160, 120]}}
    )
    environment = make_environment("InvertedPendulum-v5", 1, engine="cpu", threads=1, observation=observation)
    environment.reset()
    model, data = environment.engine.export_to_mujoco(0)
    with mounted({"side": Mount.model_validate(SIDE)}):
        entry = camera_entry(environment.task, camera, 160, 120)
    from simreal.vision.rendering.scene import view_of

    with mujoco.Renderer(model, 120, 160) as renderer:
        renderer.enable_segmentation_rendering()
        renderer.update_scene(data, view_of(environment, camera))
        shown = renderer.render()[..., 0] == mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "cpole")
    rows, columns = np.nonzero(shown)
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.array(entry["pose"]["quat"]))
    pole = data.geom("cpole")
    axis = pole.xmat.reshape(3, 3)[:, 2]
    end = pole.xpos + np.sign(axis[2]) * model.geom("cpole").size[:2].sum() * axis  # of a capsule
    place = rotation.reshape(3, 3).T @ (end - entry["pose"]["pos"])
    i = entry["intrinsics"]
    expected = (i["cx"] + i["fx"] * place[0] / -place[2], i["cy"] - i["fy"] * place[1] / -place[2])
    found = (columns[rows == rows.min()].mean() + 0.5, rows.min())
    np.testing.assert_allclose(found, expected, atol=1.1)


def test_the_order_of_colours_is_the_cameras() -> None:
    def shown(colours: str) -> torch.Tensor:
        observation = ObservationConfig.model_validate({"pixels": {"size": 16, "colours": colours}})
        environment = make_environment("InvertedPendulum-v5", 1, engine="cpu", threads=1, observation=observation)
        pictures = environment.reset().pictures
        assert pictures is not None
        return pictures

    rgb, bgr = shown("rgb"), shown("bgr")
    assert torch.equal(rgb, bgr.flip(-1))
    assert not torch.equal(rgb, bgr)


def test_an_episode_ends_with_its_own_picture_and_the_next_begins_with_another() -> None:
    observation = ObservationConfig.model_validate({"pixels": {**PIXELS, "crop": None}})
    environment = make_environment(
        "InvertedPendulum-v5", 3, engine="cpu", threads=1, seed=2, observation=observation, max_episode_steps=4
    )
    alone = make_environment(
        "InvertedPendulum-v5", 3, engine="cpu", threads=1, seed=2, observation=observation, max_episode_steps=9
    )
    environment.reset()
    alone.reset()
    action = torch.tensor([[0.1], [0.0], [-0.1]])
    for _ in range(3):
        environment.step(action)
        alone.step(action)
    ended, goes_on = environment.step(action), alone.step(action)
    assert bool(ended.truncated.all())
    assert ended.final.pictures is not None
    assert goes_on.observed.pictures is not None
    assert torch.equal(ended.final.pictures, goes_on.observed.pictures)
    assert ended.observed.pictures is not None
    assert not torch.equal(ended.observed.pictures, ended.final.pictures)


def test_a_picture_is_taken_once_each_step_and_late_by_its_latency() -> None:
    make = lambda **t: make_environment(  # noqa: E731
        "InvertedPendulum-v5", 1, engine="cpu", threads=1, seed=4,
        observation=ObservationConfig.model_validate({"pixels": {**PIXELS, **t}}),
    )  # fmt: skip
    prompt, behind = make(), make(latency_s=0.08)  # two control steps of 0.04 s
    shown: list[list[Any]] = [[env.reset().pictures] for env in (prompt, behind)]
    for _ in range(5):
        for env, seen in zip((prompt, behind), shown, strict=True):
            seen.append(env.step(torch.tensor([[0.1]])).observed.pictures)
    on_time, delayed = shown
    assert all(torch.equal(a, b) for a, b in zip(delayed[2:], on_time, strict=False))
    assert not torch.equal(on_time[0], on_time[3])
