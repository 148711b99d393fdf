"""Is the Rubik's Cube one? python -m benchmarks.rubiks turns|wrenches|planner|speed [COUNT]

turns: COUNT random quarter turns (10,000), driven by torques on the faces, against `magiccube`.
wrenches: COUNT random wrenches (1,000) on the three slabs of a cube, which stays one piece and legal.
planner: COUNT random scrambles (1,000), whose plans solve the cube of `magiccube`.
speed: control steps in a second of one processor, of a hand with each kind of cube and one of 66 hinges, in turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import mujoco
import numpy as np
import torch

import simreal  # noqa: F401 - chooses the renderer before MuJoCo is imported
from envs.engines.cpu import CpuEngine
from envs.environment import Environment
from envs.manipulation.cube.hands import FRICTION, HANDS, SHADOW, Hand, HandModel, build
from envs.manipulation.rubiks.mechanism import QUARTER, Mechanism
from envs.manipulation.rubiks.model import FACE_FRICTION_NM, FACE_SPRING, PIECES, Turning, add_rubiks, set_resistance
from envs.manipulation.rubiks.notation import FACES, Move, random_scramble, to_text
from envs.manipulation.rubiks.planner import solution
from envs.manipulation.rubiks.state import (
    CUBELETS,
    FACELETS_OF,
    NORMAL_OF,
    SOLVED,
    after,
    check_labels,
    cubelet_poses,
    from_poses,
    to_string,
)
from envs.task import compile_spec, id_of
from simreal.training.build import make_environment


def bare_cubes(count: int, turning: Turning = "all", finger: bool = False) -> Mechanism:
    """Cubes alone in space, without gravity.

    Args:
        count: of cubes.
        turning: faces that turn.
        finger: plates hold all of the cube but its face R, on which a finger presses with 2 N, beside its middle.
    """
    spec, half = mujoco.MjSpec(), 0.5 * SHADOW.cube_edge
    spec.option.timestep, spec.option.gravity = 0.01, [0, 0, 0]
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    x, y, z = SHADOW.cube_start
    if finger:
        body = spec.worldbody.add_body(name="finger", pos=[x + 0.67 * half, y + 0.3 * half, z + half + 0.005])
        body.add_joint(name="finger", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -1], damping=1.0)
        body.add_geom(
            name="finger", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.005, 0, 0], mass=0.01, friction=FRICTION
        )
        spec.add_actuator(name="finger", trntype=mujoco.mjtTrn.mjTRN_JOINT, target="finger", gainprm=[1.0] + 9 * [0.0])
        for side in (-1, 1):
            plate = [0.6 * half, half, 0.5 * half]
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[x - 0.4 * half, y, z + side * 1.5 * half],
                size=plate,
            )
    add_rubiks(turning != "none", spec, SHADOW)
    model = compile_spec(spec)
    if turning != "none":
        set_resistance(model)
    engine, joints = CpuEngine(model, count, 1), ("finger",) * finger
    mechanism = Mechanism(engine, HandModel(model, joints, np.zeros(0), np.zeros(0)), turning)
    engine.data("ctrl")[:] = 2.0
    every = torch.ones(count, dtype=torch.bool)
    start = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64).expand(count, 4)
    zero = torch.zeros(count, 6, dtype=torch.int64)
    mechanism.begin(every, torch.arange(54).expand(count, 54), zero, zero[:, 0], start, zero[:, :2].double())
    engine.forward()
    return mechanism


def drive(mechanism: Mechanism, faces: torch.Tensor, senses: torch.Tensor, steps: int = 400) -> torch.Tensor:
    """Turn faces [N] by quarters in a sense [N] by motors on them; returns [N] where they arrived.

    A face is driven to its angle by a servo, in steps of 10 ms, until it and all others are near to aligned, at rest.
    """
    rows = torch.arange(len(faces))
    goal = QUARTER * (mechanism.quarters[rows, faces] + senses)
    arrived = torch.zeros(len(faces), dtype=torch.bool)
    for _ in range(steps):
        angle = QUARTER * mechanism.quarters + mechanism.off()
        off = goal - angle[rows, faces]
        rate = mechanism.by_face(mechanism.offset_rates)[rows, faces]
        near = (off.abs() < 0.05) & (mechanism.offsets.abs() < 0.06).all(dim=1)
        arrived = near & (mechanism.offset_rates.abs() < 0.5).all(dim=1)
        if bool(arrived.all()):
            break
        servo = 0.006 * off - 0.0004 * rate + 2.0 * FACE_FRICTION_NM * off.sign() * (off.abs() > 0.03)
        torque = torch.zeros(len(faces), 6, dtype=torch.float64)
        torque[rows, faces] = servo + FACE_SPRING * mechanism.by_face(mechanism.offsets)[rows, faces]
        mechanism.exert(torque)
        mechanism.engine.step(1)
        mechanism.advance()
    mechanism.exert(torch.zeros(len(faces), 6, dtype=torch.float64))
    return arrived


def seen_poses(mechanism: Mechanism, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Poses of the cubelets of a cube as `cubelet_poses` has them, from where MuJoCo draws the stickers."""
    engine = mechanism.engine
    model, data = engine.export_to_mujoco(index)
    cube = np.zeros(9)
    mujoco.mju_quat2Mat(cube, mechanism.quat()[index].numpy())
    frame, origin = cube.reshape(3, 3), data.body("cube").xpos
    edge = float(model.geom("cube").size[0]) / 1.5
    shown = mechanism.labels[index][mechanism.facelets()[index]].tolist()
    geoms = [[data.geom(f"look_sticker{p.name}") for p in PIECES if p.facelet == facelet] for facelet in range(54)]
    middles = {label: np.mean([g.xpos for g in pieces], axis=0) for label, pieces in zip(shown, geoms, strict=True)}
    turns = {label: pieces[0].xmat.reshape(3, 3) for label, pieces in zip(shown, geoms, strict=True)}
    slots = dict(zip(shown, range(54), strict=True))
    places, rotations = np.zeros((26, 3)), np.zeros((26, 3, 3))
    for home, facelets in enumerate(FACELETS_OF):
        turned = [frame.T @ turns[label] @ NORMAL_OF[slots[label]] for label in facelets]
        at = [frame.T @ (middles[label] - origin) / edge - 0.5 * n for label, n in zip(facelets, turned, strict=True)]
        assert max(np.abs(a - at[0]).max() for a in at) < 1e-6, "the stickers of a cubelet are apart"
        places[home] = at[0]
        basis = lambda v: np.stack((v[0], v[1], np.cross(v[0], v[1])), axis=1)  # noqa: E731
        if len(facelets) > 1:
            rotations[home] = basis(turned) @ basis(NORMAL_OF[facelets[:2]]).T
        else:
            rotations[home] = np.eye(3)
    return places, rotations


def check_whole(mechanism: Mechanism, index: int) -> None:
    """Raise AssertionError unless MuJoCo's cubelets are where the bookkeeping says, a legal cube."""
    labels = mechanism.labels[index].numpy()
    check_labels(labels)
    angles = mechanism.by_face(mechanism.offsets)[index].numpy()
    places, rotations = seen_poses(mechanism, index)
    expected, turned = cubelet_poses(labels, angles)
    corner = [i for i, c in enumerate(CUBELETS) if np.abs(c).sum() > 1]  # of centres it does not show how they spin
    np.testing.assert_allclose(places, expected, atol=1e-6)
    np.testing.assert_allclose(rotations[corner], turned[corner], atol=1e-6)
    if np.abs(angles).max() < 0.1:
        assert (from_poses(places, rotations) == labels).all()


def turns(count: int, cubes: int = 50, seed: int = 0) -> str:
    """Random quarter turns of many cubes beside those of `magiccube`."""
    import magiccube

    random, mechanism = np.random.default_rng(seed), bare_cubes(cubes)
    theirs = [magiccube.Cube(3) for _ in range(cubes)]
    for number in range(count // cubes):
        faces, senses = random.integers(6, size=cubes), random.choice((-1, 1), size=cubes)
        arrived = drive(mechanism, torch.as_tensor(faces), torch.as_tensor(senses))
        assert bool(arrived.all()), f"turn {number}: {int((~arrived).sum())} cubes got stuck"
        for cube, face, sense in zip(theirs, faces, senses, strict=True):
            cube.rotate(str(Move(FACES[face], 1 if sense < 0 else 3)))
        for i, cube in enumerate(theirs):
            assert to_string(mechanism.labels[i].numpy()) == cube.get_kociemba_facelet_positions(), (number, i)
        check_whole(mechanism, number % cubes)
    return f"{cubes} cubes, {count // cubes * cubes} quarter turns: as magiccube's after every turn"


def wrenches(count: int, cubes: int = 50, seed: int = 0) -> str:
    """Random forces (to 20 N) and torques (to 0.1 N m) on all slabs, each for 50 ms from rest."""
    random, mechanism = torch.Generator().manual_seed(seed), bare_cubes(cubes)
    engine = mechanism.engine
    push, first = engine.data("xfrc_applied"), id_of(engine.model, mujoco.mjtObj.mjOBJ_BODY, "cube")
    scale, quarters = torch.tensor([20.0, 20.0, 20.0, 0.1, 0.1, 0.1], dtype=torch.float64), 0
    for number in range(count // cubes):
        push[:, first : first + 3] = (
            2.0 * torch.rand(cubes, 3, 6, generator=random, dtype=torch.float64) - 1.0
        ) * scale
        mechanism.exert(0.1 * torch.randn(cubes, 6, generator=random, dtype=torch.float64))
        before = mechanism.quarters.clone()
        for _ in range(5):
            engine.step(1)
            mechanism.advance()
        quarters += int((mechanism.quarters - before).abs().sum())
        assert bool(torch.isfinite(engine.data("qpos")).all())
        for i in range(number % 5, cubes, 5):
            check_whole(mechanism, i)
        engine.data("qvel").zero_()
    return f"{cubes} cubes, {count // cubes * cubes} wrenches, {quarters} quarter turns made by them: all in one piece"


def planner(count: int) -> str:
    """Random scrambles and their plans in the cube of `magiccube`."""
    import magiccube

    took, lengths = [], []
    for seed in range(count):
        scramble = random_scramble(seed)
        cube = magiccube.Cube(3)
        cube.rotate(to_text(scramble))
        labels = after(SOLVED, scramble)
        assert to_string(labels) == cube.get_kociemba_facelet_positions(), seed
        began = time.process_time()
        moves = solution(labels)
        took.append(time.process_time() - began)
        lengths.append(len(moves))
        cube.rotate(to_text(moves))
        assert cube.is_done(), seed
    ms = 1000.0 * np.array(took[1:])
    return (
        f"{count} scrambles solved; plans of {min(lengths)} to {max(lengths)} moves, median {np.median(lengths):g}; "
        f"{np.median(ms):.1f} ms of a processor median, {ms.max():.0f} at most, the first one {1000 * took[0]:.0f}"
    )


def many_hinges(hand_name: str) -> mujoco.MjModel:
    """A hand with a cube as of openai/robogym: six faces on hinges, 20 cubelets on three hinges each, and contacts
    between them that hold them together: 72 degrees of freedom."""

    def add(spec: mujoco.MjSpec, hand: Hand) -> None:
        edge = hand.cube_edge / 3.0
        core = spec.worldbody.add_body(name="cube", pos=hand.cube_start)
        core.add_freejoint(name="cube")
        core.add_geom(name="cube", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.5 * edge, 0, 0], mass=0.005)
        for i, at in enumerate(CUBELETS):
            body = core.add_body(name=f"cubelet{i}")
            axes = [at] if np.abs(at).sum() == 1 else np.eye(3)
            for k, axis in enumerate(axes):
                body.add_joint(name=f"c{i}_{k}", axis=axis, damping=2e-4, armature=1e-5)
            body.add_geom(
                name=f"cubelet{i}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=edge * at, size=[0.49 * edge] * 3, mass=0.003,
                friction=FRICTION if np.abs(at).sum() > 1 else (0.1, 0.005, 0.0001),
            )  # fmt: skip
        spec.option.jacobian = mujoco.mjtJacobian.mjJAC_DENSE

    return build(hand_name, (), add).model


def speed(seconds: int, num_envs: int = 256) -> str:
    """Control steps in a second of one processor, under actions of a hand that fumbles; kinds of cubes take turns.

    Last column: the share of `Batch.step` in these very worlds, which bare steps of nominal ones are not.
    """
    block = {"sampler": "manual", "parameters": {
        "cube_size": {"quantity": "body_size", "of": "cube*", "range": [0.95, 1.05]},
        "cube_mass": {"quantity": "body_mass", "of": "cube*", "range": [0.5, 1.5]},
        "friction": {"quantity": "geom_friction", "range": [0.7, 1.3]},
    }}  # fmt: skip
    rows = []
    for hand in HANDS:
        locked = make_environment(
            f"{hand.capitalize()}Cube-v0", num_envs, block, threads=1, task_options={"goals": "spin"}
        )
        physics: dict[str, list[float]] = {}
        runs: dict[str, Callable[[], int]] = {f"{hand} locked cube": _stepper(locked)}
        physics[f"{hand} locked cube"] = _clocked(locked)
        for turning in ("none", "top_and_bottom", "all"):
            options = {"hand": hand, "goals": "flip", "turning": turning}
            environment = make_environment("RubiksCube-v0", num_envs, block, threads=1, task_options=options)
            runs[f"{hand} {turning}"], physics[f"{hand} {turning}"] = _stepper(environment), _clocked(environment)
        runs[f"{hand} bare steps, locked"] = _bare(locked.task.model, num_envs)
        runs[f"{hand} bare steps, all"] = _bare(
            make_environment("RubiksCube-v0", 1, task_options={"hand": hand}).task.model, num_envs
        )
        runs[f"{hand} bare steps, 66 hinges"] = _bare(many_hinges(hand), num_envs)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        shares: dict[str, list[float]] = {name: [] for name in physics}
        for _ in range(max(seconds // len(runs), 1)):
            for name, run in runs.items():
                began, made, before = time.process_time(), 0, sum(physics.get(name, ()))
                while time.process_time() - began < 1.0:
                    made += run()
                took = time.process_time() - began
                rates[name].append(made / took)
                if name in physics:
                    shares[name].append((sum(physics[name]) - before) / took)
        first = np.median(next(iter(rates.values())))
        for name, rate in rates.items():
            share = f"  {np.median(shares[name]):5.2f}" if name in shares else ""
            rows.append(f"{name:32s} {np.median(rate):8.0f} /s  {np.median(rate) / first:5.2f}{share}")
    return "\n".join(rows)


def _clocked(environment: Environment) -> list[float]:
    """Seconds of processor time of each call of the engine's physics from now on."""
    spent: list[float] = []
    step = environment.engine.step

    def clocked(nstep: int, commands: torch.Tensor | None = None) -> None:
        began = time.process_time()
        step(nstep, commands)
        spent.append(time.process_time() - began)

    environment.engine.step = clocked
    return spent


def _stepper(environment: Environment) -> Callable[[], int]:
    environment.reset()
    environment.stagger()

    def run() -> int:
        u = environment.rng.uniform("fumble", environment.task.action_size)
        environment.step((0.6 * (2.0 * u - 1.0)).float())
        return environment.num_envs

    return run


def _bare(model: mujoco.MjModel, num_envs: int) -> Callable[[], int]:
    """Five physics steps of all, with commands that change; cubes that fall are put back after 40 control steps."""
    engine = CpuEngine(model, num_envs, 1)
    random, made = torch.Generator().manual_seed(0), [0]
    low, high = (torch.as_tensor(end) for end in model.actuator_ctrlrange.T.copy())

    def run() -> int:
        if made[0] % 40 == 0:
            engine.reset()
        made[0] += 1
        u = torch.rand(num_envs, model.nu, generator=random, dtype=torch.float64)
        engine.data("ctrl").copy_(low + (0.2 + 0.6 * u) * (high - low))
        engine.step(5)
        return num_envs

    return run


def main(what: str, count: str = "") -> None:
    """Run one of the measurements."""
    made = {"turns": (turns, 10_000), "wrenches": (wrenches, 1_000), "planner": (planner, 1_000), "speed": (speed, 60)}
    function, usual = made[what]
    torch.set_num_threads(1)
    print(function(int(count or usual)))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in ("turns", "wrenches", "planner", "speed"):
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv else 2)
    main(*sys.argv[1:])
