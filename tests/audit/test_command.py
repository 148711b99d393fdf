"""`simreal audit`: exit statuses, what it prints, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from command import refused, simreal_command
from simreal.deploy import Policy


def csv_of(path: Path, bundle: Path, every_s: float) -> Path:
    """A table of values as in training, with the actions that the policy gives for them."""
    policy, rng = Policy.load(bundle), np.random.default_rng(0)
    parts = policy.contract["observation"]
    titles = ["time", *(f"{p['name']}/{e}" for p in parts for e in p["elements"])]
    mean, spread = (np.concatenate([p[key] for p in parts]) for key in ("offset", "scale"))
    rows = []
    for k in range(120):
        seen = mean + spread * rng.uniform(-1.0, 1.0, len(mean))
        rows.append([k * every_s, *seen, *np.clip(policy(seen), -1.0, 1.0)])
    header = ",".join([*titles, *(f"action/{i}" for i in range(policy.action_size))])
    np.savetxt(path, np.array(rows), "%.17g", ",", header=header, comments="")
    return path


def test_half_the_rate_is_printed_with_its_fix_and_written(
    tmp_path: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = trained_run / "bundle"
    period = Policy.load(bundle).control_period_s
    slow = csv_of(tmp_path / "slow.csv", bundle, 2.0 * period)
    target = tmp_path / "found.json"
    said = simreal_command(capsys, "audit", bundle, slow, "--no-simulate", "--json", target)
    assert said[0] == 1
    assert f"trained at {1 / period:.1f} Hz (half the rate)" in said[1]
    assert f"fix: call the policy every {1e3 * period:g} ms" in said[1]
    document = json.loads(target.read_text())
    assert not document["sound"]
    assert [f["kind"] for f in document["findings"]] == ["rate"]
    assert document["rate_hz"] == pytest.approx(0.5 / period)
    assert [row["name"] for row in document["components"]] == [
        "grip_pos",
        "gripper_state",
        "grip_velp",
        "gripper_vel",
        "desired_goal",
    ]


def test_nothing_is_said_of_values_as_in_training(
    tmp_path: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = trained_run / "bundle"
    sound = csv_of(tmp_path / "sound.csv", bundle, Policy.load(bundle).control_period_s)
    status, said, _ = simreal_command(capsys, "audit", bundle, sound, "--no-simulate")
    assert (status, "nothing is wrong" in said) == (0, True), said


def test_another_policy_than_the_one_that_is_logged_is_told(
    tmp_path: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = trained_run / "bundle"
    log = csv_of(tmp_path / "log.csv", bundle, Policy.load(bundle).control_period_s)
    lines = [line.split(",") for line in log.read_text().splitlines()]
    at = lines[0].index("grip_pos/x")
    for line in lines[1:]:  # the policy was fed x and y; the log has them exchanged
        line[at], line[at + 1] = line[at + 1], line[at]
    log.write_text("\n".join(",".join(line) for line in lines))
    status, said, _ = simreal_command(capsys, "audit", bundle, log, "--no-simulate")
    assert status == 1
    assert "the policy was fed another grip_pos[0] and [1] than the log shows" in said


def test_wrong_input_is_one_line(tmp_path: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = trained_run / "bundle"
    refused(simreal_command(capsys, "audit", bundle, tmp_path / "none.mcap"), "no such log")
    other = tmp_path / "other.csv"
    np.savetxt(
        other, np.column_stack([np.arange(60) * 0.1, np.arange(60)]), delimiter=",", header="time,q/a", comments=""
    )
    refused(simreal_command(capsys, "audit", bundle, other), "is in it", "--map")
    refused(simreal_command(capsys, "audit", bundle, other, "--map", "nonsense"), "--map", "COMPONENT=TOPIC")
    refused(simreal_command(capsys, "audit", tmp_path, other), "policy.json")
