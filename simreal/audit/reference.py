"""The same policy in the simulation that it was trained in: what a sound robot's log looks like.

Needs the bundle's task on this machine (MuJoCo, and the robot's model). The policy gets the commands and goals that the
log has; worlds are those of its training, and some with other gains, to learn gains from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simreal.audit.recording import Channel, Recording
from simreal.common.errors import UserError
from simreal.deploy import Policy

Numbers = NDArray[np.float64]
_SECONDS, _TRAINED, _GAINS, _GUARDS = 8.0, 8, 40, 4
_GAIN_RANGE = (0.4, 3.2)


@dataclass(frozen=True)
class Reference:
    """Simulated logs.

    Attributes:
        trained: logs of worlds as in training.
        gains: logs of worlds with actuators' gains [len] times the nominal ones; those of `trained` among them.
        factor: what the gains were in each of `gains`; empty where the task has no position servos.
        trained_gains: the least and the largest factor in training.
    """

    trained: list[Recording]
    gains: list[Recording]
    factor: Numbers
    trained_gains: tuple[float, float]


def reference(bundle: Path, record: Recording, gains: bool, seed: int = 0) -> Reference | str:
    """Play the bundle in simulation; a text that says why it cannot be.

    Args:
        bundle: its directory.
        record: the log, for what the policy was told.
        gains: whether worlds with other gains are wanted, too.
        seed: of the worlds.
    """
    from envs.registry import TaskError
    from simreal.evaluation.worlds import find_world
    from simreal.training.run_directory import load_policy

    try:
        loaded = load_policy(bundle)
        world = find_world("trained" if loaded.parameters else "nominal", loaded)
        servo = gains and any(part["stiffness"] for part in record.contract["action"])
        count = _TRAINED + (_GAINS if servo else 0) if gains else _GUARDS
        environment = world.make_environment(loaded, count, seed)
    except (UserError, TaskError) as error:
        return " ".join(str(error).split())
    cycles = min(int(_SECONDS / record.period_s), 1000)
    environment.autoreset = False
    observed = environment.reset().policy
    factor = _set_gains(environment, seed) if servo else np.zeros(0)
    logs = _play(environment, observed, record, Policy.load(bundle), cycles)
    trained = factor[:_TRAINED] if servo else np.ones(1)
    return Reference(logs[:_TRAINED], logs if servo else [], factor, (float(trained.min()), float(trained.max())))


def _set_gains(environment: Any, seed: int) -> Numbers:
    """Give the worlds after the first ones other gains; returns what all have [N], in parts of the nominal ones."""
    gain, bias = (environment.engine.field(name) for name in ("actuator_gainprm", "actuator_biasprm"))
    nominal = environment.engine.nominal("actuator_gainprm")[:, 0]
    ours = gain[:, :, 0].double().numpy() / np.asarray(nominal, dtype=np.float64)
    present = np.median(ours, axis=1)
    rng = np.random.default_rng(seed)
    low, high = np.log(_GAIN_RANGE)
    wanted = np.exp(low + (high - low) * (np.arange(_GAINS) + rng.random(_GAINS)) / _GAINS)
    for i, factor in enumerate(wanted, start=_TRAINED):
        gain[i] *= float(factor / present[i])
        bias[i] *= float(factor / present[i])
        present[i] = factor
    return present


def _play(environment: Any, observed: Any, record: Recording, policy: Policy, cycles: int) -> list[Recording]:
    """Logs of all environments, whose policy is told what the log's was."""
    import torch

    parts = record.contract["observation"]
    told = {
        p["name"]: record.seen[p["name"]].values
        for p in parts
        if not p["measured"] and p["name"] != "last_action" and p["name"] in record.seen and not p["derived_from"]
    }
    seen: list[Numbers] = []
    actions: list[Numbers] = []
    sent: list[dict[str, Numbers]] = []
    for k in range(cycles):
        values = observed.double().numpy().copy()
        at = min(int(np.searchsorted(record.time, k * record.period_s)), len(record.time) - 1)
        for part in parts:
            if part["name"] in told:
                values[:, part["index"][0] : part["index"][1]] = told[part["name"]][at]
        action = np.clip(policy(values), -1.0, 1.0).astype(np.float64)
        seen.append(values)
        actions.append(action)
        sent.append(policy.targets(action))
        observed = environment.step(torch.from_numpy(action)).observed.policy
    time = record.period_s * np.arange(cycles)
    out: list[Recording] = []
    for i in range(len(seen[0])):
        rows, done = np.array([s[i] for s in seen]), np.array([a[i] for a in actions])
        channels = {
            p["name"]: Channel(
                p, rows[:, p["index"][0] : p["index"][1]], time, time, rows[:, p["index"][0] : p["index"][1]]
            )
            for p in parts
            if p["name"] in record.seen
        }
        targets = {name: np.array([s[name][i] for s in sent]) for name in sent[0] if name in record.sent}
        out.append(Recording(record.contract, time, channels, done, targets, {}, record.missing))
    return out
