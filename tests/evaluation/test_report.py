"""The page about runs: one file, right figures, and what it says when something is missing or damaged."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from shortcuts import without_drawings
from simreal.cli.main import main
from simreal.common.errors import UserError
from simreal.evaluation.evaluate import run_episodes
from simreal.evaluation.intervals import wilson
from simreal.evaluation.worlds import find_world
from simreal.report import clips, figures, sections, write_report
from simreal.report.arms import load_arms
from simreal.report.records import Arm, load_run, read_columns
from simreal.report.summary import cell, entropy, training_score
from simreal.report.words import percent
from simreal.training.checkpoint import checkpoints
from simreal.training.run_directory import load_policy

SVG = figures.svg


@pytest.fixture(scope="module")
def trained(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained run, by the name that is looked for in pages."""
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("trained") / "tiny-0"))


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_WIDTH": 64, "_HEIGHT": 48, "_FRAMES": 5, "_EPISODES": 8}.items():
        monkeypatch.setattr(clips, name, value)
    without_drawings(monkeypatch)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn after all."""
    monkeypatch.setattr(figures, "svg", SVG)


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of the run, to be changed."""

    def new(name: str) -> Path:
        return Path(shutil.copytree(trained, tmp_path / name))

    return new


def world(name: str, successes: int, episodes: int = 100, group: str = "") -> dict[str, Any]:
    rate = successes / episodes
    return {
        "name": name, "episodes": episodes, "success_rate": rate, "success_ci95": list(wilson(successes, episodes)),
        "return_mean": -10.0 - rate, "return_se": 0.5, "return_median": -9.0, "return_cvar10": -30.0, "group": group,
    }  # fmt: skip


def evaluated(run: Path, *worlds: dict[str, Any]) -> Path:
    document = {"task": "FetchReach-v4", "policy": run.name, "adr_entropy_npd": -2.0, "worlds": list(worlds)}
    (run / "evaluation.json").write_text(json.dumps(document))
    return run


def reseeded(run: Path, seed: int, **changes: str) -> Path:
    text = (run / "config.yaml").read_text().replace("\nseed: 0\n", f"\nseed: {seed}\n")
    for before, after in changes.items():
        text = text.replace(f"{before}: adr", f"{before}: {after}")
    (run / "config.yaml").write_text(text)
    return run


class Page(HTMLParser):
    """What a page loads, and whether its tags and ids fit together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = {key: value or "" for key, value in attrs}
        self.loads += [v for k, v in values.items() if k in ("src", "poster", "srcset", "data", "action")]
        if tag == "link":
            self.loads.append(values.get("href", ""))
        self.links += [values[k] for k in ("href", "xlink:href") if k in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in ("meta", "img", "br", "wbr", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("path", "use", "rect"):
            return
        assert self.open.pop() == tag


def report(*runs: Path, pictures: bool = False) -> str:
    output = runs[0].parent / "r.html"
    write_report(runs, output, pictures)
    return output.read_text()


@pytest.mark.usefixtures("drawn")
def test_the_page_loads_nothing_and_its_parts_fit_together(copy: Callable[[str], Path]) -> None:
    a, b = copy("a-0"), reseeded(copy("b-0"), 0, sampler="none")
    for run in (a, b):
        evaluated(run, world("nominal", 90), world("heavy", 50, group="held_out"))
        (run / "envelope.json").write_text(json.dumps(envelope()))
    text = report(a, b, pictures=True)
    page = Page(text)
    assert page.open == []
    assert page.tags["script"] == 0
    assert page.tags["svg"] >= 10
    assert all(source.startswith("data:") for source in page.loads)
    assert all(link.startswith("#") for link in page.links)
    assert max(Counter(page.ids).values()) == 1
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(text) < 5_000_000


@pytest.mark.usefixtures("drawn")
def test_names_are_text_and_never_markup(copy: Callable[[str], Path]) -> None:
    run = evaluated(copy("a<b>&$x$"), world("<i>world</i> $y$", 10))
    text = report(run)
    assert "a&lt;b&gt;&amp;$x$" in text
    assert "<i>" not in text
    assert Page(text).open == []


def test_the_verdict_gives_the_figures_of_every_group_and_the_worst_world(copy: Callable[[str], Path]) -> None:
    run = evaluated(
        copy("a"), world("nominal", 98), world("trained", 90), world("heavy", 70, group="held_out"),
        world("light", 50, group="held_out"), world("stiction", 33, group="unmodelled"),
    )  # fmt: skip
    text = report(run).replace("\u202f", " ")
    verdict = text[: text.index("<nav")]
    for part in ("98.0 %", "90.0 %", "60.0 %", "33.0 %", "stiction", "DDPG on FetchReach-v4", "600 steps", "−2.00"):
        assert part in verdict
    low, high = wilson(120, 200)
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in verdict  # of both held-out worlds
    assert "No control" in verdict
    assert "Not measured" not in verdict


def test_seeds_of_one_arm_are_put_together_and_other_settings_are_not(copy: Callable[[str], Path]) -> None:
    paths = [copy("x-0"), reseeded(copy("x-1"), 1), reseeded(copy("y-0"), 0, sampler="none")]
    arms = load_arms(paths)
    assert [(arm.name, len(arm.runs), arm.randomized) for arm in arms] == [("x", 2, True), ("y-0", 1, False)]
    text = report(*paths)
    assert "bands reach from the lowest to the highest seed" in text
    assert "No control" not in text


def test_figures_over_seeds_and_worlds_are_those_worked_out_by_hand(copy: Callable[[str], Path]) -> None:
    one = evaluated(copy("x-0"), world("a", 90), world("b", 70))
    two = evaluated(reseeded(copy("x-1"), 1), world("a", 60), world("b", 40))
    (arm,) = load_arms([one, two])
    both = cell(arm, ["a", "b"])
    assert both is not None
    # seeds: 0.8 and 0.5; mean 0.65, standard error sqrt(((0.15)^2 + (0.15)^2) / 1 / 2) = 0.15; rates .4 .6 .7 .9
    assert (both.mean, both.error, both.median) == pytest.approx((0.65, 0.15, 0.65))
    assert both.pooled == pytest.approx(wilson(260, 400))
    assert both.worst == ("b", pytest.approx(0.55))
    assert (both.seeds, both.episodes) == (2, 400)
    alone = cell(Arm("x", arm.runs[:1]), ["a"])
    assert alone is not None
    assert alone.error is None
    assert cell(arm, ["c"]) is None


def test_the_entropy_of_fixed_ranges_is_the_starred_bound_where_it_was_measured(copy: Callable[[str], Path]) -> None:
    manual = reseeded(copy("manual"), 0, sampler="manual")
    (arm,) = load_arms([manual])
    before = entropy(arm)
    assert before is not None
    assert not before[1]
    (manual / "widened.json").write_text(json.dumps({"entropy_npd": -0.5, "episodes": 100, "stopped": "quiet"}))
    (arm,) = load_arms([manual])
    assert entropy(arm) == (-0.5, True)
    adr = copy("adr")
    shutil.copy(manual / "widened.json", adr)
    (arm,) = load_arms([adr])
    *_, last = csv.DictReader((adr / "adr.csv").read_text().splitlines())
    assert entropy(arm) == (pytest.approx(float(last["entropy_npd"])), False)
    assert float(last["entropy_npd"]) not in (-0.5, pytest.approx(-0.5))


def test_training_success_is_the_last_row_of_the_logs(copy: Callable[[str], Path]) -> None:
    runs = [copy("x-0"), reseeded(copy("x-1"), 1)]
    for run, last in zip(runs, ("0.5", "0.9"), strict=True):
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        rows[-1]["success_rate"] = last
        with (run / "metrics.csv").open("w") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    (arm,) = load_arms(runs)
    assert training_score(arm) == pytest.approx((0.7, 0.2))


def envelope() -> dict[str, Any]:
    return {
        "schema": 1, "task": "FetchReach-v4", "threshold": 0.8,
        "parameters": [{
            "name": "body_mass", "unit": "1", "trained": [0.8, 1.2], "values": [0.5, 1.0, 2.0],
            "success": [0.4, 1.0, 0.7], "ci95": [[0.2, 0.6], [0.9, 1.0], [0.5, 0.8]], "episodes": 50,
        }],
        "pairs": [{
            "x": "body_mass", "y": "observation_noise", "xs": [0.5, 1.0, 2.0], "ys": [0.0, 0.01],
            "success": [[0.5, 1.0, 0.75], [0.1, 0.2, 0.3]], "episodes": 20,
        }],
        "box": {
            "success": 0.8, "confidence": 0.95, "ranges": {"body_mass": [0.7, 1.6]}, "episodes": 200,
            "successes": 180, "lower_bound": 0.858,
        },
    }  # fmt: skip


@pytest.mark.usefixtures("drawn")
def test_the_envelope_is_drawn_and_its_box_is_stated(copy: Callable[[str], Path]) -> None:
    run = copy("a")
    (run / "envelope.json").write_text(json.dumps(envelope()))
    text = report(run).replace("\u202f", " ")
    for part in ("a: success against body_mass, 50 episodes each", "trusted box", "85.8 %", "0.7 to 1.6", "0.8 to 1.2"):
        assert part in text
    section = text[text.index('id="envelope"') :]
    svgs = re.findall(r"<svg.*?</svg>", section, re.DOTALL)
    assert "0.75" in svgs[1]  # the number in a cell of the map
    assert "body_mass (x nominal)" in svgs[0]


@pytest.mark.parametrize("what", ["evaluation", "envelope"])
def test_figures_of_an_earlier_checkpoint_are_left_out(copy: Callable[[str], Path], what: str) -> None:
    run = evaluated(copy("a"), world("heavy", 83))
    document = envelope() if what == "envelope" else json.loads((run / "evaluation.json").read_text())
    for name, present in ((checkpoints(run / "checkpoints")[-1].name, True), ("step_000000000001.safetensors", False)):
        (run / f"{what}.json").write_text(json.dumps(document | {"checkpoint": name}))
        text = report(run)
        assert (("trusted box" if what == "envelope" else percent(0.83)) in text) == present
        assert (f"a: its {what} is of an earlier checkpoint" in text) != present


def test_a_run_that_was_played_in_fewer_worlds_is_named(copy: Callable[[str], Path]) -> None:
    easy, hard = world("latency", 90, group="held_out"), world("fetch_box", 10, group="held_out")
    runs = [evaluated(copy("all"), easy, hard), evaluated(reseeded(copy("few"), 1), easy)]
    assert "few was not played in fetch_box: means over groups are not of the same worlds." in report(*runs)
    evaluated(runs[1], easy, hard)
    assert "was not played in" not in report(*runs)


def test_differences_of_a_comparison_are_listed(copy: Callable[[str], Path], tmp_path: Path) -> None:
    run = copy("a")
    evaluation = json.loads((run / "evaluation.json").read_text())
    difference = {
        "world": "heavy", "a": "a", "b": "none", "success": 0.25, "success_ci95": [0.1, 0.4], "return": 3.0,
        "return_ci95": [-1.0, 7.0],
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps({"policies": [evaluation] * 2, "differences": [difference]}))
    text = report(run, tmp_path / "c.json")
    assert "+25.0" in text
    assert "+10.0 to +40.0" in text


@pytest.mark.parametrize("gone", ["evaluation.json", "metrics.csv", "adr.csv", "bundle", "checkpoints"])
def test_a_run_without_a_file_is_still_reported(copy: Callable[[str], Path], gone: str) -> None:
    run = copy("a")
    for path in [run / gone] + ([run / "best"] if gone == "checkpoints" else []):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = report(run, pictures=gone == "checkpoints")
    assert Page(text).open == []
    if gone == "checkpoints":
        assert "no pictures, because it has no checkpoint" in text
    if gone == "evaluation.json":
        assert "has not been evaluated" in text


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("evaluation.json", "{", "damaged"),
        ("evaluation.json", "[]", "evaluation.json"),
        ("evaluation.json", '{"task": "t", "policy": "p", "worlds": [{"name": "w"}]}', "worlds.0.episodes"),
        ("evaluation.json", '{"task": "t", "policy": "p"}', "worlds"),
        ("envelope.json", '{"parameters": [{"name": "m", "values": [1, 2], "success": [1]}]}', "differ in length"),
        ("envelope.json", '{"pairs": [{"x": "a", "y": "b", "xs": [1], "ys": [1], "success": [[2]]}]}', "less than"),
        ("widened.json", '{"entropy_npd": "wide"}', "entropy_npd"),
        ("metrics.csv", "env_steps,return\n1,fast\n", "damaged"),
        ("metrics.csv", "\x00\x01\x02", "damaged"),
        ("adr.csv", "env_steps,entropy_npd\n1\n2,3,4\n", ""),
        ("config.yaml", "task: [", "YAML"),
        ("config.yaml", "", "config.yaml"),
    ],
)
def test_a_damaged_file_is_named_in_one_line_and_nothing_is_written(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str], name: str, content: str, expected: str
) -> None:
    run = copy("a")
    (run / name).write_text(content)
    output = run.parent / "out.html"
    arguments = ["report", str(run), "--no-pictures", "--output", str(output)]
    if not expected:  # a short row is a row without values
        main(arguments)
        return
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.count("\n") == 1
    assert name in error
    assert expected in error
    assert not output.exists()


def test_wrong_arguments_are_refused(copy: Callable[[str], Path], tmp_path: Path) -> None:
    run = copy("a")
    cases: list[tuple[list[Path], Path, str]] = [
        ([tmp_path / "nowhere"], tmp_path / "r.html", "nowhere"),
        ([tmp_path], tmp_path / "r.html", "config.yaml"),
        ([run, run], tmp_path / "r.html", "different names"),
        ([run], tmp_path / "no" / "r.html", "r.html"),
        ([run], tmp_path, "cannot be written"),
        ([run], Path("/dev/full"), "cannot be written"),
        ([run / "evaluation.json"], tmp_path / "r.html", "at least one run"),
        ([run, run / "evaluation.json"], tmp_path / "r.html", "evaluation.json: is of policy 'run', expected .* a"),
        ([run, run / "config.yaml"], tmp_path / "r.html", "config.yaml: damaged"),
    ]
    for paths, output, expected in cases:
        with pytest.raises(UserError, match=expected):
            write_report(paths, output, pictures=False)
    assert not (tmp_path / "r.html").exists()


def test_a_replayed_episode_is_the_evaluated_one(trained: Path) -> None:
    policy = load_policy(trained)
    for name in ("nominal", "trained"):
        found = find_world(name, policy)
        played = run_episodes(policy, found.make_environment(policy, 3, 5), 7)
        for episode in (0, 4, 6):
            *_, (environment, _) = clips._replay(policy, found, episode, seed=5)
            assert float(environment.episode_return[0]) == pytest.approx(float(played.returns[episode]), abs=1e-9)
            assert int(environment.steps[0]) == environment.max_episode_steps


def test_pictures_are_drawn_once_and_again_for_another_checkpoint(copy: Callable[[str], Path]) -> None:
    path = copy("a")
    found, sentence = clips.find_clips(load_run(path), draw=True)
    if not found and "cannot render" in sentence:
        pytest.skip(sentence)
    assert [clip.title.split()[0] for clip in found] == ["Best", "Worst"]
    assert all(clip.video is not None and clip.video.stat().st_size < clips.LARGEST_VIDEO for clip in found)
    times = [clip.stills.stat().st_mtime_ns for clip in found]
    again, _ = clips.find_clips(load_run(path), draw=True)
    assert again == found
    assert [clip.stills.stat().st_mtime_ns for clip in again] == times
    newest = max((path / "best").glob("*.safetensors"))
    shutil.copy(newest, newest.with_name("step_000000009999.safetensors"))
    assert clips.find_clips(load_run(path), draw=False)[0] == []
    (path / "footage" / "best.jpg").unlink()
    newest.with_name("step_000000009999.safetensors").unlink()
    assert clips.find_clips(load_run(path), draw=False)[0] == []


def test_without_opengl_the_page_says_so(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("cannot render here (no GL)")

    monkeypatch.setattr(clips, "Scene", refuse)
    text = report(copy("a"), pictures=True)
    assert "no pictures (cannot render here (no GL))" in text
    assert "<video" not in text


def test_remarks_name_what_looks_ill(copy: Callable[[str], Path]) -> None:
    run = copy("a")
    columns = read_columns(run / "metrics.csv")
    columns |= {"saturation": [0.9] * 6, "divergences": [0.0] * 5 + [3.0]}
    with (run / "metrics.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    text = report(run).replace("\u202f", " ")
    assert "90.0 % of the actions are saturated" in text
    assert "3 simulations became unstable" in text
    assert "Nothing stands out" not in text


def test_averages_over_no_episode_are_not_drawn() -> None:
    columns = {"env_steps": [10.0, 20.0, 30.0], "episodes": [0.0, 2.0, 4.0], "return": [0.0, -50.0, -40.0]}
    assert sections._since_first_episode(columns)["return"] == [-50.0, -40.0]
    assert sections._since_first_episode({"env_steps": [1.0]}) == {"env_steps": [1.0]}


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_with_one_row_of_logs_is_drawn_as_a_point(seeds: int) -> None:
    for rows, marker in ((1, "o"), (2, "None")):
        steps = [float(k) for k in range(rows)]
        runs = [{"env_steps": steps, "return": [1.0] * rows, "m.lower": [1.0] * rows, "m.upper": [2.0] * rows}] * seeds
        curves = figures.learning_curves({"a": runs}, "return", "return", "env_steps")
        ranges = figures.range_curve(runs, "m", "m")
        assert {str(line.get_marker()) for figure in (curves, ranges) for line in figure.axes[0].lines} == {marker}


def test_curves_that_never_open_leave_no_empty_plot(copy: Callable[[str], Path]) -> None:
    run = copy("a")
    columns = read_columns(run / "adr.csv")
    columns["entropy_npd"] = [math.log(1e-6)] * len(columns["entropy_npd"])
    (run / "adr.csv").write_text(
        "\n".join(",".join(map(str, row)) for row in [list(columns), *zip(*columns.values(), strict=True)])
    )
    assert "Some range has not opened in any run" in report(run)


def test_returns_are_reported_where_a_task_knows_no_success(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "task: InvertedPendulum-v5\nnum_envs: 4\nlearner: {algorithm: ppo, horizon: 16, minibatches: 2, epochs: 1}\n"
        "train: {env_steps: 400, log_interval: 64}\nevaluate: {episodes: 4, worlds: [nominal]}\n"
    )
    main(["train", str(tmp_path / "p.yaml"), "--run-dir", str(tmp_path / "p")])
    text = report(tmp_path / "p")
    assert "Return of fresh episodes" in text
    assert "Success in training" not in text
