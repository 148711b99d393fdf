"""`simreal excite` and `simreal identify` as they are called: files written, wrong input in one line with status 2."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from envs.registry import make_task
from plugin_files import installed_from
from randomization.parameters import build_parameters
from simreal.cli.main import main

DOCS = Path(__file__).resolve().parents[2] / "docs" / "identify.md"
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", DOCS.read_text(), re.M | re.S))
PARAMETERS = "kp: {quantity: actuator_kp, of: m1, range: [0.5, 2]}\naction_delay: {range: [0, 40]}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lift.py").write_text(FILES["lift.py"])
    (tmp_path / "few.yaml").write_text(PARAMETERS)
    with installed_from(tmp_path):
        yield tmp_path


def motion(seconds: float = 4.0) -> None:
    main(["excite", "lift:Lift", "--parameters", "few.yaml", "--seconds", str(seconds), "--draws", "1", "--speed", "4",
          "--travel", "0.3", "--output", "motion.csv"])  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["identify", "lift:Lift", *arguments, "--output", "found"])
    assert stopped.value.code == 2
    assert not Path("found").exists()
    return capsys.readouterr().err


def test_a_motion_is_written_played_and_the_world_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    motion()
    table = np.loadtxt("motion.csv", delimiter=",", skiprows=1)
    assert (here / "motion.csv").read_text().startswith("time,command/m1,command/m2\n0,0,0\n")
    assert table[-1, 0] == pytest.approx(3.98)
    assert np.abs(table[:, 1]).max() <= 0.3 * 3.0  # of the range of commands
    assert "kp            within" in capsys.readouterr().out
    exec(compile(FILES["robot.py"], "robot.py", "exec"), {})
    main(["identify", "lift:Lift", "log.csv", "--parameters", "few.yaml", "--piece", "0.4", "--output", "found"])
    document = json.loads((here / "found" / "identified.json").read_text())
    assert [p["name"] for p in document["parameters"]] == ["kp", "action_delay"]
    block = yaml.safe_load((here / "found" / "identified.yaml").read_text())["randomization"]["parameters"]
    assert block["kp"]["range"][0] <= block["kp"]["nominal"] <= block["kp"]["range"][1]
    assert yaml.safe_load((here / "found" / "world.yaml").read_text())["name"] == "identified"
    assert "warning: the model does not explain the position of elbow (off by" in capsys.readouterr().out
    page = (here / "found" / "identified.html").read_text()
    assert page.count("<svg") == 5  # intervals, two joints, two autocorrelations
    assert "2 of 2 unknowns are told" in page
    assert "The model does not explain the position of elbow" in page
    # What was found is a world and a block that other commands take.
    for file in ("identified", "world"):
        entries = yaml.safe_load((here / "found" / f"{file}.yaml").read_text())["randomization"]["parameters"]
        assert [p.targets for p in build_parameters(make_task("lift:Lift"), entries)] == [("m1",), ()]


def test_wrong_input_is_one_line_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = np.arange(0.0, 4.0, 0.02)
    both = np.stack((time, np.sin(time), np.cos(time), np.sin(time), np.cos(time)), axis=1)
    titles = "time,command/m1,command/m2,position/shoulder,position/elbow"

    def log(name: str, values: Any = both, head: str = titles) -> str:
        np.savetxt(name, values, delimiter=",", header=head, comments="")
        return name

    assert "no commands of this robot's joints by name" in refused(
        capsys, log("a.csv", both[:, [0, 3, 4]], titles[:5] + titles[27:])
    )
    assert "time goes backwards" in refused(capsys, log("b.csv", both[::-1]))
    assert "no positions of this robot's joints" in refused(
        capsys, log("c.csv", head=titles.replace("shoulder", "hip"))
    )
    assert "samples, expected at least 20" in refused(capsys, log("d.csv", both[:10]))
    assert "commands are constant" in refused(capsys, log("e.csv", both * [1, 0, 0, 1, 1]))
    good = log("f.csv")
    (here / "x.yaml").write_text("kp: {quantity: actuator_kq, of: m1}\n")
    assert "x.yaml: kp: unknown quantity 'actuator_kq' (did you mean 'actuator_kp'" in refused(
        capsys, good, "--parameters", "x.yaml"
    )
    (here / "x.yaml").write_text("noise: {quantity: observation_noise, range: [0, 1]}\n")
    assert "is nothing that a log of joints and commands can tell" in refused(capsys, good, "--parameters", "x.yaml")
    assert "no signal 'ctrl'; there are: command, position" in refused(capsys, good, "--command", "ctrl")
    assert "no such log" in refused(capsys, "g.csv")


@pytest.mark.parametrize("command", [["identify", "Swimmer", "log.csv"], ["excite", "Swimmer"]])
def test_a_floating_robot_is_refused(here: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    text = FILES["lift.py"].replace("class Lift", "class Swimmer")
    text = text.replace(
        '<body name="upper" pos="0 0 1">', '<body name="hull"><freejoint/><geom size="0.1"/><body name="upper">'
    )
    (here / "swimmer.py").write_text(text.replace("      </body>\n    </body>", "      </body>\n    </body></body>"))
    rows = [f"{k / 50},{k % 7},0,{k % 5},0" for k in range(100)]
    (here / "log.csv").write_text("time,command/m1,command/m2,position/shoulder,position/elbow\n" + "\n".join(rows))
    with pytest.raises(SystemExit) as stopped:
        main([command[0], "swimmer:Swimmer", *command[2:], "--output", "found.csv"])
    assert stopped.value.code == 2
    assert "its base (hull) floats, and a log of joints does not show it: hang the robot" in capsys.readouterr().err


def test_a_motion_that_no_limit_allows_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "excite",
                "lift:Lift",
                "--parameters",
                "few.yaml",
                "--seconds",
                "2",
                "--speed",
                "1e-5",
                "--output",
                "m.csv",
            ]
        )
    assert stopped.value.code == 2
    assert "no motion stays within 1e-05 rad/s" in capsys.readouterr().err
    assert not (here / "m.csv").exists()
