"""What is read from a policy's memory: a regression checked by hand, and worlds that show, or do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from simreal.cli.main import main
from simreal.study.memory_probe import _best_ridge, determination, read_out


def test_what_is_there_is_read_and_what_is_not_is_not() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(300, 40))
    noise = generator.normal(size=(300, 2))
    wanted = np.stack((features[:, :3].sum(axis=1) + 0.5 * noise[:, 0], noise[:, 1]), axis=1)
    r2, interval = determination(wanted, read_out(features, wanted, 0), 0)
    assert r2[0] == pytest.approx(1.0 - 0.25 / 3.25, abs=0.03)  # of a variance of 3.25 all but 0.25
    assert -0.05 < r2[1] <= 0.02
    assert interval[0, 0] < r2[0] < interval[1, 0]
    assert interval[1, 0] - interval[0, 0] < 0.1


def test_more_features_than_episodes_do_not_fool_it() -> None:
    generator = np.random.default_rng(1)
    r2, _ = determination(
        wanted := generator.normal(size=(60, 1)), read_out(generator.normal(size=(60, 400)), wanted, 0), 0
    )
    assert r2[0] < 0.1


def test_a_unit_that_fires_in_one_episode_alone_spoils_nothing() -> None:
    generator = np.random.default_rng(3)
    wanted = generator.normal(size=(200, 1))
    silent = 1e-6 * generator.normal(size=(200, 20))
    silent[np.arange(10) * 7, np.arange(10)] = 1.0  # of 20 units ten fire once, each in another episode
    features = np.hstack([wanted + 0.3 * generator.normal(size=(200, 1)), silent])
    r2, _ = determination(wanted, read_out(features, wanted, 0), 0)
    assert 0.85 < r2[0] < 1.0  # 1 / 1.09 = 0.92 is known


def test_a_feature_that_never_changes_does_not_matter() -> None:
    generator = np.random.default_rng(2)
    features = generator.normal(size=(100, 3))
    wanted = features[:, :1] * 2.0
    constant = np.concatenate((features, np.full((100, 1), 7.0)), axis=1)
    assert np.allclose(read_out(features, wanted, 0), read_out(constant, wanted, 0))


def test_the_penalty_is_that_of_leaving_one_out() -> None:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(30, 5))
    x = x - x.mean(axis=0)
    wanted = x @ generator.normal(size=(5, 1)) + generator.normal(size=(30, 1))
    wanted = wanted - wanted.mean(axis=0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    found = vt.T @ _best_ridge(u, s, wanted)
    errors = {}
    for penalty in 10.0 ** np.arange(-3.0, 5.0) * 30:

        def fit(rows: np.ndarray, penalty: float = penalty) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            mx, mw = x[rows].mean(axis=0), wanted[rows].mean(axis=0)
            a = x[rows] - mx
            return np.linalg.solve(a.T @ a + penalty * np.eye(5), a.T @ (wanted[rows] - mw)), mx, mw

        left = []
        for i in range(30):
            weights, mx, mw = fit(np.delete(np.arange(30), i))
            left.append(float((wanted[i] - mw - (x[i] - mx) @ weights).item() ** 2))
        errors[penalty] = sum(left), fit(np.arange(30))[0]
    best = min(errors.values(), key=lambda pair: pair[0])[1]
    assert np.allclose(found, best, rtol=1e-8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    main([
        "train", "inverted_pendulum", "train.env_steps=512", "train.keep=last", "evaluate.episodes=1",
        "evaluate.worlds=[nominal]", "learner.actor_hidden=[16]", "--run-dir", str(folder / "run"),
    ])  # fmt: skip
    return folder / "run"


def test_gravity_that_a_fall_shows_is_known_and_friction_at_rest_is_not(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = tmp_path / "world.yaml"
    world.write_text("""
randomization:
  parameters:
    slope: {quantity: gravity, of: x, range: [-3, 3]}
    hinge: {quantity: joint_damping, of: hinge, range: [0.5, 2]}
    fixed: {quantity: body_mass, of: pole, range: [1, 1]}
""")
    main(
        [
            "probe",
            str(run),
            "--world",
            str(world),
            "--at",
            "0.16",
            "--episodes",
            "120",
            "--json",
            str(tmp_path / "p.json"),
        ]
    )
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "p.json").read_text())
    assert [p["name"] for p in document["parameters"]] == ["slope", "hinge"]  # what is one value is not asked for
    (row,) = document["times"]
    assert (row["time_s"], row["episodes"]) == (0.16, 120)
    for source in ("memory", "observation"):
        slope, hinge = row[source]
        assert slope["r2"] > 0.9
        assert hinge["r2"] < 0.1
        assert slope["ci95"][0] <= slope["r2"] <= slope["ci95"][1]
    assert row["shuffled"][0]["r2"] < 0.1
    assert f"slope                 {row['memory'][0]['r2']:8.2f}" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--world", "nominal"], "nominal: no parameter varies there; expected a --world with ranges"),
        (["--at", "1000"], "--at 1000: episodes of InvertedPendulum-v5 last 40 s"),
        (["--at", "39"], "of 60 episodes last 39 s, expected at least 50: more --episodes, or an earlier --at"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    world = tmp_path / "world.yaml"
    world.write_text("randomization: {parameters: {joint_damping: {of: hinge, range: [0.5, 2]}}}\n")
    with pytest.raises(SystemExit) as stopped:
        main(["probe", str(run), "--world", str(world), "--episodes", "60", *more])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_bundle_shows_no_memory(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["probe", str(run / "bundle"), "--world", "late_and_noisy"])
    assert stopped.value.code == 2
    assert "is a bundle, which shows no memory; expected the directory of a run" in capsys.readouterr().err
