"""Where the arms of a study differ: their policies in worlds with one difference, and in wider and wider worlds.

    python -m benchmarks.one_difference OUT STUDY ARM [ARM ...] [--sweeps FILE] [--like ARM] [--episodes 50]

STUDY is the folder of a study. FILE gives each parameter the values that it is set to, everything else as calibrated;
beside these, all parameters of the arm `--like` are drawn uniformly from a share of its limits at once (`everything`).
All policies play the same episodes. OUT.json has the figures as they come, OUT.png a panel for each parameter: means
over seeds, and each seed. What is in OUT.json already, of the same episodes, is not played again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from randomization.parameters import Parameter, build_parameters
from randomization.samplers.base import Manual
from simreal.common.atomic_files import write_text
from simreal.evaluation.evaluate import evaluate
from simreal.evaluation.metrics import metric_of
from simreal.evaluation.worlds import World
from simreal.training.run_directory import LoadedPolicy, load_policy, run_config

_SEED = 6_000_003
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_EVERYTHING = "everything"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("study", type=Path)
    parser.add_argument("arms", nargs="+")
    parser.add_argument("--sweeps", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--like", default="adr_large")
    parser.add_argument("--episodes", type=int, default=50)
    options = parser.parse_args()
    runs = {arm: sorted((options.study / "runs").glob(f"{arm}-[0-9]*")) for arm in options.arms}
    like = next((options.study / "runs").glob(f"{options.like}-[0-9]*"), options.study)
    for arm in [arm for arm in options.arms if not runs[arm]] + [options.like] * (like == options.study):
        parser.error(f"{options.study / 'runs'}: no run of an arm {arm!r}")
    sweeps = yaml.safe_load(options.sweeps.read_text()) | {_EVERYTHING: {"values": list(_SHARES)}}
    path = options.out.with_suffix(".json")
    found = json.loads(path.read_text()) if path.is_file() else {"episodes": options.episodes, "policies": {}}
    if found["episodes"] != options.episodes:
        parser.error(f"{path}: is of {found['episodes']} episodes")
    for run in (run for arm in options.arms for run in runs[arm]):
        curves = found["policies"].setdefault(run.name, {})
        policy = load_policy(run)
        for name, sweep in sweeps.items():
            if curves.get(name, {}).get("values") == sweep["values"]:
                continue
            worlds = [_world(policy, like, name, sweep, value) for value in sweep["values"]]
            curves[name] = {"values": sweep["values"], **_means(policy, worlds, options.episodes)}
            print(f"{run.name:16} {name:16}", *(f"{mean:7.2f}" for mean in curves[name]["mean"]), flush=True)
            write_text(path, json.dumps(found, indent=1))
    named = {arm: [found["policies"][run.name] for run in runs[arm]] for arm in options.arms}
    measure = metric_of(load_policy(like).make_task()).name
    draw(named, list(sweeps), measure).savefig(options.out.with_suffix(".png"), dpi=100)


def _world(policy: LoadedPolicy, like: Path, name: str, sweep: Mapping[str, Any], value: float) -> World:
    """One value of a sweep as a world."""
    task = policy.make_task()
    if name == _EVERYTHING:
        parameters = run_config(like).randomization.sampler_for(task).parameters
        return World(f"{name} {value:g}", Manual([_narrowed(p, value) for p in parameters]))
    entry = {key: of for key, of in sweep.items() if key != "values"} | {"range": [value, value]}
    return World(f"{name} {value:g}", Manual(build_parameters(task, {name: entry})))


def _narrowed(parameter: Parameter, share: float) -> Parameter:
    """The parameter with its limits at a share of their distance from the calibrated value."""
    limits = tuple(parameter.nominal + share * (limit - parameter.nominal) for limit in parameter.limits)
    return Parameter(**{**vars(parameter), "limits": limits})


def _means(policy: LoadedPolicy, worlds: Sequence[World], episodes: int) -> dict[str, list[float]]:
    """Mean of what the task is judged by, and its standard error over episodes, in each world."""
    measure = metric_of(policy.make_task()).name
    samples = [
        np.asarray(evaluate(policy, [world], episodes, episodes, _SEED)["worlds"][0]["samples"][measure], dtype=float)
        for world in worlds
    ]
    return {
        "mean": [float(values.mean()) for values in samples],
        "se": [float(values.std(ddof=1) / len(values) ** 0.5) for values in samples],
    }


def draw(arms: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str], measure: str) -> Figure:
    """A panel for each parameter; thick: means over seeds, thin: each seed."""
    columns = 3
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(9.0, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for name, panel in zip(names, axes.flat, strict=False):
        for arm, seeds in arms.items():
            values = seeds[0][name]["values"]
            means = [curves[name]["mean"] for curves in seeds]
            (line,) = panel.plot(values, np.mean(means, axis=0), label=arm, linewidth=2.0)
            for mean in means:
                panel.plot(values, mean, color=line.get_color(), linewidth=0.6, alpha=0.6)
        panel.set_title(name.replace("_", " "), fontsize=9)
        panel.set_ylim(bottom=0.0)
        panel.grid(alpha=0.3)
    for panel in list(axes.flat)[len(names) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel(measure, fontsize=9)
    axes[0, 0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()
