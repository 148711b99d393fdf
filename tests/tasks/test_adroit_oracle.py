"""The Adroit tasks against gymnasium-robotics, whose ids they carry: same state and action, same everything."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium_robotics.utils import rotations

from conftest import build, fixed_worlds, manual_layer, only, snapshot
from envs.manipulation.adroit.common import AdroitTask
from envs.registry import make_task, task_ids
from hands import Episode, compare, differ

FAMILIES = ("Door", "Hammer", "Pen", "Relocate")
IDS = [f"AdroitHand{name}{sparse}-v1" for name in FAMILIES for sparse in ("", "Sparse")]
DRAWN = {"Door": ["body_pos"], "Hammer": ["body_pos"], "Pen": ["body_quat"], "Relocate": ["body_pos", "site_pos"]}
EPISODES = 6


def stage(raw: Any, episode: int, random: np.random.Generator) -> None:
    """Starts from which every term of the reward is met: half and nearly done, done, lifted, dropped, in disorder."""
    model, data, task = raw.model, raw.data, type(raw).__name__

    def put(joint: str, value: float) -> None:
        data.qpos[model.joint(joint).qposadr[0]] = value

    if episode == 5:  # the hand in any pose
        ranges = model.jnt_range[:20]
        data.qpos[:20] = random.uniform(ranges[:, 0], ranges[:, 1])
        data.qvel[:20] = random.normal(size=20)
    if "Door" in task and episode in (1, 2, 3):
        put("door_hinge", {1: 0.5, 2: 1.2, 3: 1.5}[episode])
        put("latch", 1.6)
    if "Hammer" in task and episode in (1, 2, 3):
        put("nail_dir", {1: 0.075, 2: 0.09, 3: 0.0}[episode])
        put("OBJTy", 0.15 if episode == 3 else 0.0)  # upwards
        if episode == 3:  # tumbling: all three Euler angles matter
            data.qvel[-3:] = 3.0 * random.normal(size=3)
    if "Pen" in task and episode in (1, 2):
        off = rotations.euler2quat(np.array([0.0 if episode == 1 else 0.38, 0.0, 0.0]))
        model.body("target").quat = rotations.quat_mul(model.body("Object").quat.copy(), off)
    if "Pen" in task and episode == 4:
        data.qpos[-6:-3] = (0.25, 0.2, 0.0)  # beside the hand: it falls
    if "Relocate" in task and episode in (1, 2, 3):
        ball = model.body("Object").pos.copy()
        put("OBJTz", 0.0 if episode == 1 else 0.25)
        model.site("target").pos = ball + {1: (0.0, 0.03, 0.0), 2: (0.1, 0.1, 0.0), 3: (0.0, 0.06, 0.25)}[episode]


def covers(task_id: str, episodes: list[Episode]) -> None:
    """The comparison is worth nothing where nothing is touched, nothing succeeds and no bonus is paid."""
    rewards = np.array([e.rewards for e in episodes])
    assert any(any(e.successes) for e in episodes)
    assert not all(all(e.successes) for e in episodes)
    assert sum(e.contacts for e in episodes) > 300
    if "Sparse" in task_id:
        assert set(np.unique(rewards)) == {-0.1, 10.0}
    else:
        span = {"Door": 19.0, "Hammer": 100.0, "Pen": 60.0, "Relocate": 30.0}
        assert np.ptp(rewards) > span[next(name for name in span if name in task_id)]


# Of the sparse rewards, which are the same line of code, one in the default run.
@pytest.mark.parametrize(
    "task_id",
    [pytest.param(i, marks=pytest.mark.slow) if "Sparse" in i and "Door" not in i else i for i in IDS],
)
def test_adroit_equals_gymnasium_robotics_step_by_step(task_id: str) -> None:
    drawn = next(fields for name, fields in DRAWN.items() if name in task_id)
    covers(task_id, compare(task_id, EPISODES, drawn, stage))


def test_every_id_of_adroit_is_registered_with_its_time_limit() -> None:
    theirs = {name: spec for name, spec in gymnasium.registry.items() if name.startswith("AdroitHand")}
    assert theirs.keys() == {name for name in task_ids() if name.startswith("Adroit")} == set(IDS)
    for name, spec in theirs.items():
        task = make_task(name)
        assert task.id == name
        assert task.max_episode_steps == spec.max_episode_steps
        assert task.control_period_s == pytest.approx(0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_components_add_up_to_the_observation_and_name_their_parts(family: str) -> None:
    oracle: Any = gymnasium.make(f"AdroitHand{family}-v1").unwrapped
    task = make_task(f"AdroitHand{family}-v1")
    assert oracle.observation_space.shape == (sum(c.size for c in task.observation),)
    for component in task.observation:
        assert component.unit
        assert component.description
        assert len(component.elements) in (0, component.size)
        assert component.elements or component.size == 1
    targets = [name for c in task.action for name in c.actuators]
    assert targets == [task.model.actuator(i).name for i in range(task.model.nu)]
    for c in task.action:
        joints = [task.model.joint(name) for name in c.joints]
        assert {("m" if joint.type[0] == 2 else "rad") for joint in joints} == {c.unit}  # 2: slides
    np.testing.assert_allclose([x for c in task.action for x in c.scale], oracle.act_rng, atol=1e-12)
    np.testing.assert_allclose([x for c in task.action for x in c.offset], oracle.act_mean, atol=1e-12)


def test_named_parts_lie_where_their_names_say() -> None:
    env = build(make_task("AdroitHandRelocate-v1"), 2)
    part = {name: env.observed.policy[:, where] for name, where in env.task.slices().items()}
    qpos = env.engine.data("qpos")
    assert torch.equal(part["joint_pos_slide"], qpos[:, :3])
    assert torch.equal(part["joint_pos"], qpos[:, 3:30])
    door = build(make_task("AdroitHandDoor-v1"), 2)
    part = {name: door.observed.policy[:, where] for name, where in door.task.slices().items()}
    handle = door.task.model.site("S_handle").id
    assert torch.equal(part["handle_pos"], door.engine.data("site_xpos")[:, handle])
    assert part["door_open"].tolist() == [[-1.0], [-1.0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_computed_from_measurements_follows_them(family: str) -> None:
    task = make_task(f"AdroitHand{family}-v1")
    env = build(task, 3)
    clean = env.observed.policy.clone()
    torch.testing.assert_close(task.derive(clean.clone()), clean, rtol=0, atol=1e-12)
    parts = task.slices()
    derived = [c for c in task.observation if c.derived_from]
    assert bool(derived) == (family != "Hammer")
    for c in derived:
        noisy = clean.clone()
        noisy[:, parts[c.derived_from[0]]] += 2.0
        assert not torch.equal(task.derive(noisy)[:, parts[c.name]], clean[:, parts[c.name]]), c.name


@pytest.mark.parametrize("family", FAMILIES)
def test_scenes_are_drawn_as_the_oracles(family: str) -> None:
    oracle: Any = gymnasium.make(f"AdroitHand{family}-v1").unwrapped
    theirs: list[np.ndarray] = []
    for seed in range(250):
        oracle.reset(seed=seed)
        theirs.append(np.concatenate([getattr(oracle.model, name).ravel() for name in DRAWN[family]]))
    env = build(make_task(f"AdroitHand{family}-v1"), 600)
    env.reset()  # a second time: what an earlier episode drew is gone
    ours = torch.cat([env.engine.field(name).flatten(1) for name in DRAWN[family]], dim=1).numpy()
    expected = np.stack(theirs)
    random = expected.std(axis=0) > 1e-9
    assert random.sum() == {"Door": 3, "Hammer": 1, "Pen": 4, "Relocate": 5}[family]
    np.testing.assert_allclose(ours[:, ~random], np.tile(expected[0, ~random], (600, 1)), atol=1e-12)
    for column in np.flatnonzero(random):
        assert differ(ours[:, column], expected[:, column]) < 2.0
        assert len(np.unique(ours[:, column])) == 600
    np.testing.assert_allclose(env.engine.data("qpos").numpy(), np.tile(oracle.data.qpos, (600, 1)), atol=1e-12)
    assert not env.engine.data("qvel").any()


def test_places_drawn_by_the_task_add_to_those_of_randomization_and_do_not_drift() -> None:
    task = make_task("AdroitHandDoor-v1")
    shift = {"frame": {"quantity": "body_pos_x", "of": "frame", "range": [-0.1, 0.1]}}
    env = build(task, 2, fixed_worlds(task, shift, [[0.04], [-0.1]]), seed=5)
    plain = build(make_task("AdroitHandDoor-v1"), 2, seed=5)
    frame = task.model.body("frame").id
    seen = []
    for round_ in range(30):
        ours, theirs = env.engine.field("body_pos"), plain.engine.field("body_pos")
        moved = (ours - theirs).clone()
        torch.testing.assert_close(
            moved[:, frame, 0], torch.tensor([0.04, -0.1], dtype=torch.float64), rtol=0, atol=1e-12
        )
        moved[:, frame, 0] = 0.0
        assert float(moved.abs().max()) < 1e-12
        seen.append(theirs[:, frame].clone())
        mask = only(2, round_ % 2)
        before = ours[1 - round_ % 2].clone()
        env.reset(mask)
        plain.reset(mask)
        assert torch.equal(ours[1 - round_ % 2], before)
    places = torch.stack(seen)
    assert float(places[..., 0].min()) >= -0.3
    assert float(places[..., 0].max()) <= -0.2
    assert len(places[:, 0].unique(dim=0)) == 16  # a new place in each of its episodes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_restored_scene_goes_on_bit_for_bit(family: str) -> None:
    worlds = {"body_mass": {"of": "*", "range": [0.8, 1.25]}, "joint_damping": {"of": "WRJ*", "range": [0.5, 2.0]},
              "body_pos": {"of": "forearm", "range": [0, 0.002]}}  # fmt: skip

    def begin(seed: int, randomized: bool) -> Any:
        task = make_task(f"AdroitHand{family}-v1")
        task.max_episode_steps = 9
        return build(task, 4, manual_layer(task, worlds) if randomized else None, seed)

    for randomized in (False, True):
        first, random = begin(4, randomized), np.random.default_rng(3)
        size = first.task.action_size
        for _ in range(14):
            first.step(torch.as_tensor(random.uniform(-1.0, 1.0, (4, size))))
        saved = snapshot(first)
        second = begin(77, randomized)
        second.load_state_dict(saved)
        assert isinstance(second.task, AdroitTask)
        for _ in range(25):
            action = torch.as_tensor(random.uniform(-1.0, 1.0, (4, size)))
            a, b = first.step(action), second.step(action)
            assert torch.equal(a.reward, b.reward)
            assert torch.equal(a.final.policy, b.final.policy)
            assert torch.equal(a.observed.policy, b.observed.policy)
