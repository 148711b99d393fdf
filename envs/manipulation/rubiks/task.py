"""A hand turns a Rubik's Cube and its faces to one goal after another, batched (RubiksCube-v0).

After "Solving Rubik's Cube with a Robot Hand" (arXiv 1910.07113): the cube of `envs.manipulation.rubiks.mechanism` in
a Shadow hand or an Allegro hand. A goal is an orientation of the cube and an angle of every face; where the first is
within 0.4 rad and all of the second within 0.2 rad, that is a success and there is a new goal
(`envs.manipulation.rubiks.goals`). An episode ends when the cube is dropped, after 8 s without a success (the paper:
128 s, 1600 steps of 80 ms; a hand that has not turned a face after 8 s has let go of it), and where a plan has been
carried out. What counts is the number of successes.

Control steps of 50 ms are five physics steps of 10 ms, as in `envs.manipulation.cube.reorientation`, whose hands,
actions and starts these are. Observation, policy group (k joints, u actuators, t fingertips):

| component           | size | meaning                                                                     | unit |
|---------------------|------|-----------------------------------------------------------------------------|------|
| joint_pos           | k    | joint angles                                                                | rad  |
| joint_pos_history   | 2 k  | the same one and two control steps earlier, as measured then                | rad  |
| joint_target        | u    | the command that the policy's last action led to, smoothed                  | rad  |
| cube_pos            | 3    | the cube's centre, from where it rests in the palm                          | m    |
| cube_quat           | 4    | its orientation (w, x, y, z), w >= 0                                        | 1    |
| goal_quat           | 4    | the orientation wanted, w >= 0                                              | 1    |
| goal_rel_quat       | 4    | the rotation in the world's frame that brings the cube there, w >= 0        | 1    |
| fingertip_pos       | 3 t  | fingertips, from where the cube rests                                       | m    |
| face_angle          | 6    | angles of U R F D L B, counter-clockwise as seen from outside               | rad  |
| goal_face_angle     | 6    | angles wanted                                                               | rad  |
| goal_rel_face_angle | 6    | by how much each face is still to turn, from -pi to pi                      | rad  |
| side_turn           | 6    | the same by side of the palm: the faces towards x+, x-, y+, y-, z+ and z-   | rad  |

Privileged group, for a critic: joint velocities, the true pose of the cube and its velocity, the true angles that are
left and the faces' velocities, and how hard each fingertip presses on something.

Reward: see `envs.manipulation.cube.reorientation.Weights`. Progress is that of the distance to the goal, the angle of
the cube from its orientation plus those of all faces, rad; it is paid once: what counts is the nearest so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, get_args

import mujoco
import numpy as np
import torch
from torch import Tensor

from envs.common.errors import UnknownOptionError
from envs.common.messages import nearest
from envs.common.spatial import constant, quat_angle, quat_canonical, quat_multiply
from envs.engines.base import write_rows
from envs.manipulation.cube.goals import START_DRAWS, first_orientation
from envs.manipulation.cube.hands import HANDS, HandModel
from envs.manipulation.cube.reorientation import (
    DROP_M,
    EPISODE_S,
    PATIENCE_S,
    START_M,
    START_RAD,
    START_SHARE,
    SUCCESS_RAD,
    CubeReorientation,
    Weights,
    costs,
    hand_action,
    hand_components,
)
from envs.manipulation.rubiks.goals import (
    GOAL_DRAWS,
    PLANNED,
    Heading,
    RubiksGoals,
    as_plan,
    faces_along,
    next_goal,
    planned_goal,
    upright,
    with_face_up,
    without_heading,
)
from envs.manipulation.rubiks.marks import SIDES, angles_of, by_side, marks_of, rule
from envs.manipulation.rubiks.mechanism import QUARTER, Mechanism, velocity_of_cube, wrapped
from envs.manipulation.rubiks.model import COLOURS, PIECES, PLASTIC, Turning, build_rubiks
from envs.manipulation.rubiks.notation import FACES, FAIR_SCRAMBLE, Move, in_quarters, parse_moves, random_scramble
from envs.manipulation.rubiks.planner import UPRIGHT, flip_to, solution, subgoals
from envs.manipulation.rubiks.scrambles import scrambled_states
from envs.manipulation.rubiks.state import SOLVED, after
from envs.task import Component, Outcome, id_of

SUCCESS_FACE_RAD = 0.2
_START_FACE_RAD = 0.3  # how far top and bottom may be turned when an episode without a plan starts
_LONGEST_PLAN = 64  # quarter turns; the planner's longest have 23 moves
_MIXING = 30  # turns that cubes have been mixed with
_PALM = "palm (x fingers, z up)"
_CHATTER = {
    "sign flips": "contacts of the Shadow hand's fingers pass from slab to slab of a cube at rest, 0.1 rad/s to and fro"
}
_BODY, _SITE, _GEOM = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_GEOM
_UP = (0.0, 0.0, 1.0)
_CUBE = ("cube", "cube_top", "cube_bottom")


class RubiksCube(CubeReorientation):
    """A hand that turns a Rubik's Cube, for N environments.

    Args:
        hand: a key of `HANDS`.
        goals: kind of goals, see `envs.manipulation.rubiks.goals`.
        turning: which faces turn: "all"; "top_and_bottom": U and D alone, for an early curriculum; "none": a cube in
            one piece.
        scramble: moves, as "R U2 F'": of `solve`, those that the cube has been scrambled with (None: others in every
            episode); of `scramble`, those that the hand is to make (None: the fixed fair scramble).
        smoothing: share of the way to a new target that the servos' command goes in one control step; 1 goes all of it.
        mixing: how many random turns the cubes have been mixed with that episodes without a plan start from: a number,
            or two between which it is drawn; 0 is the solved cube.
        heading: "free": only which face is up counts, see `envs.manipulation.rubiks.goals`.
    """

    state_tensors = (*CubeReorientation.state_tensors, "goal_quarters", "plan", "planned", "taken")
    within_steps = True
    read_through: ClassVar = {"face_angle": ("cube_quat", "mark_angle")}
    evaluation_options: ClassVar = {"goals": "scramble", "turning": "all"}

    def __init__(
        self,
        hand: str = "allegro",
        goals: RubiksGoals = "mixed",
        turning: Turning = "all",
        scramble: str | None = None,
        smoothing: float = 0.3,
        mixing: int | Sequence[int] = _MIXING,
        heading: Heading = "fixed",
    ) -> None:
        self.mixing = _turns(mixing)
        _check("hand", hand, tuple(HANDS))
        _check("goals", goals, get_args(RubiksGoals))
        _check("turning", turning, get_args(Turning))
        _check("heading", heading, get_args(Heading))
        if heading == "free" and goals == "spin":
            raise UnknownOptionError("heading: 'free' leaves nothing to reach of goals: spin; expected 'fixed'")
        if not 0.0 < smoothing <= 1.0:
            raise UnknownOptionError(f"smoothing: expected a number above 0 and up to 1, got {smoothing!r}")
        if goals in ("face", "mixed", *PLANNED) and turning == "none":
            raise UnknownOptionError(f"goals: {goals!r} turns faces; expected 'spin' or 'flip' with turning: none")
        if goals in PLANNED and turning != "all":
            raise UnknownOptionError(f"turning: expected 'all' with goals: {goals}, got {turning!r}")
        if scramble is not None and goals not in PLANNED:
            raise UnknownOptionError(f"scramble: goals: {goals} has no plan; expected goals: solve or scramble")
        self.hand_name, self.hand = hand, HANDS[hand]
        self.turning: Turning = turning
        self.smoothing, self.weights, self.heading = smoothing, Weights(), heading
        self.kind: RubiksGoals = goals
        self.moves = None if scramble is None else _moves(scramble)
        if goals == "scramble" and self.moves is None:
            self.moves = parse_moves(FAIR_SCRAMBLE)
        self.id = "RubiksCube-v0"
        if hand == "shadow":
            self.accepted = _CHATTER
        self._take(build_rubiks(hand, turning))
        self.patience_steps = round(PATIENCE_S / self.control_period_s)
        self.start_rotation = UPRIGHT
        self.sequence_length = 0  # subgoals of the same plan in every episode
        if goals == "scramble" and self.moves:
            self.start_rotation = flip_to(
                UPRIGHT, self.moves[0].face
            )  # the paper's 43 have no flip before the first turn
        if goals in PLANNED and self.moves is not None:
            moves = self.moves if goals == "scramble" else solution(after(SOLVED, self.moves))
            self.sequence_length = len(subgoals(moves, self.start_rotation))
        self.max_episode_steps = round(EPISODE_S / self.control_period_s)
        if goals in PLANNED:
            self.max_episode_steps = self.patience_steps * (self.sequence_length or 2 * _LONGEST_PLAN)
        self.observation = _components(self.parts, hand)
        self.action = (hand_action(self.parts, smoothing),)
        self.pictured = (Component(
            "mark_angle", 6, "rad", _PALM, SIDES, bodies=_CUBE, limits=(-math.pi, math.pi),
            description="angles of the black pieces of the faces that point most to each side, see `marks`",
        ),)  # fmt: skip

    def compile_full(self, bodies: Sequence[int]) -> None:
        self._take(build_rubiks(self.hand_name, self.turning, tuple(bodies)))

    def on_attach(self) -> None:
        super().on_attach()
        engine, n = self.engine, self.engine.num_envs
        self.mechanism = Mechanism(engine, self.parts, self.turning)
        integers = lambda *shape: torch.zeros(n, *shape, dtype=torch.int64, device=engine.device)  # noqa: E731
        self.goal_quarters, self.taken, self.planned = integers(6), integers(), integers()
        self.plan = integers(_LONGEST_PLAN, 2)  # [N, plan, 2] quarter turns, see `planned_goal`; `taken` of `planned`
        self._turning = (0, 3) if self.turning == "top_and_bottom" else tuple(range(6))  # in `FACES`
        self._bank = torch.as_tensor(scrambled_states(*self.mixing), device=engine.device)  # [states, 54]
        names = self.slices()
        seen = ("cube_quat", "face_angle", "goal_face_angle", "goal_rel_face_angle", "side_turn")
        self._shown = {name: names[name] for name in seen}

    def reset(self, mask: Tensor) -> None:
        rows = mask[:, None]
        u = self.rng.episode_uniform("start", START_DRAWS + 3 + 2 + 6 + 1)
        if self.kind in PLANNED:
            aligned = torch.as_tensor(_quat(self.start_rotation), dtype=u.dtype, device=u.device).expand(len(u), 4)
        elif self.turning == "top_and_bottom":
            aligned = upright(u)
        else:
            aligned = first_orientation("spin" if self.kind == "spin" else "face", u)
        shift = 2.0 * u[:, START_DRAWS : START_DRAWS + 5] - 1.0
        half = 0.5 * START_RAD * shift[:, 2]
        zero = torch.zeros_like(half)
        turned = quat_multiply(torch.stack((half.cos(), zero, zero, half.sin()), dim=1), aligned)
        larger = self._sizes[:, self._cube, 0] - 0.5 * self.hand.cube_edge
        x, y = (START_M * shift[:, :2]).unbind(dim=1)
        place = self._start + torch.stack((x - larger, y, larger), dim=1)
        write_rows(self._qpos[:, : self._k], (START_SHARE * self._grasp).expand(len(u), -1), mask)
        write_rows(self._qpos[:, self._pos], place.to(self._qpos.dtype), mask)
        self._qvel.masked_fill_(rows, 0.0)
        self._begin_cubes(mask, turned, aligned, shift[:, 3:], u[:, -7:])
        self.target = torch.where(rows, self._offset, self.target)
        self.intended = torch.where(rows, self._offset, self.intended)
        self._last_action = self._last_action.masked_fill(rows, 0.0)
        self.goal = torch.where(rows, quat_canonical(aligned).to(self.goal.dtype), self.goal)
        self.goal_quarters = torch.where(rows, self.mechanism.quarters, self.goal_quarters)
        if self.kind in PLANNED:
            self._plan(mask)
        self._set_goals(mask, self.goal, self.rng.episode_uniform("goal", GOAL_DRAWS))
        self._readings = torch.where(rows[:, None], self._qpos[:, None, : self._k], self._readings)
        self._fresh = self._fresh | mask

    def _begin_cubes(self, mask: Tensor, quat: Tensor, aligned: Tensor, off: Tensor, u: Tensor) -> None:
        """Put cubes into their first states; `off` [N, 2] in (-1, 1) of top and bottom, `u` [N, 7] uniform numbers."""
        labels, quarters = self._bank[(u[:, 0] * len(self._bank)).long()], (4.0 * u[:, 1:]).long()
        up = faces_along(aligned, _UP)
        axis = constant((0, 1, 2, 0, 1, 2), torch.int64, up.device)[up]  # of U R F D L B in `AXES`
        if self.kind in PLANNED:
            labels, quarters, off = self._first_labels(mask), torch.zeros_like(quarters), torch.zeros_like(off)
        self.mechanism.begin(mask, labels, quarters, axis, quat, _START_FACE_RAD * off)

    def _first_labels(self, mask: Tensor) -> Tensor:
        """Stickers [N, 54] of the cubes that plans begin with."""
        if self.kind == "scramble":
            return self._bank[:1].expand(len(mask), -1)
        if self.moves is not None:
            return torch.as_tensor(after(SOLVED, self.moves).copy(), device=mask.device).expand(len(mask), -1)
        labels = self.mechanism.labels.clone()
        seeds = (2.0**31 * self.rng.episode_uniform("scramble", 1)[:, 0]).long().tolist()
        for i in mask.nonzero()[:, 0].tolist():
            labels[i] = torch.as_tensor(after(SOLVED, random_scramble(seeds[i])).copy(), device=mask.device)
        return labels

    def _plan(self, mask: Tensor) -> None:
        """Write plans for the cubes of `mask` [N], from the states that they are in."""
        for i in mask.nonzero()[:, 0].tolist():
            moves = self.moves if self.kind == "scramble" else solution(self.mechanism.labels[i].cpu().numpy())
            quarters = in_quarters(moves or [])
            self.plan[i] = torch.as_tensor(as_plan(quarters, _LONGEST_PLAN), device=mask.device)
            self.planned[i], self.taken[i] = len(quarters), 0

    def _set_goals(self, mask: Tensor, last: Tensor, u: Tensor) -> None:
        """New goals after the goals `last` [N, 4] in the environments of `mask` [N]."""
        if self.kind in PLANNED:
            step = self.taken.clamp(max=_LONGEST_PLAN - 1)[:, None, None].expand(-1, 1, 2)
            face, sense = self.plan.gather(1, step)[:, 0].unbind(1)
            quat, quarters, turns = planned_goal(last, self.goal_quarters, face, sense)
            going_on = mask & (self.taken < self.planned)
            self.taken = self.taken + (going_on & turns)
        else:
            quat, quarters = next_goal(self.kind, last, self.goal_quarters, u, self._turning)
            going_on = mask
        if self.heading == "free":
            quat = with_face_up(quat)
        rows = going_on[:, None]
        self.goal = torch.where(rows, quat, self.goal)
        self.goal_quarters = torch.where(rows, quarters, self.goal_quarters)
        turn, faces = self._errors()
        self.goal_angle = torch.where(mask, turn + faces, self.goal_angle)
        self.waited = self.waited.masked_fill(mask, 0)

    def _to_goal(self, quat: Tensor) -> Tensor:
        left = super()._to_goal(quat)
        return without_heading(left) if self.heading == "free" else left

    def _left(self) -> Tensor:
        """By how much [N, 6] each face is still to turn, rad."""
        return wrapped(QUARTER * self.goal_quarters - self.mechanism.angles())

    def _errors(self) -> tuple[Tensor, Tensor]:
        """The cube's angle from the orientation wanted, and the sum of its faces' angles from those wanted, rad [N]."""
        return quat_angle(self._to_goal(self.mechanism.quat())), self._left().abs().sum(dim=1)

    def after_physics(self) -> None:
        self.mechanism.advance()

    def after_step(self) -> None:
        self.mechanism.settle()
        super().after_step()

    def observe(self) -> Tensor:
        quat, left = quat_canonical(self.mechanism.quat()), self._left()
        parts = (
            self._readings.flatten(1), self.intended, self._qpos[:, self._pos] - self._rest, quat, self.goal,
            quat_canonical(self._to_goal(quat)), (self._site_xpos[:, self._tips] - self._rest).flatten(1),
            self.mechanism.angles(), wrapped(QUARTER * self.goal_quarters), left, by_side(quat, left),
        )  # fmt: skip
        return torch.cat(parts, dim=1)

    def derive(self, observation: Tensor) -> Tensor:
        observation = super().derive(observation)
        shown = {name: observation[:, place].to(self.goal.dtype) for name, place in self._shown.items()}
        left = wrapped(shown["goal_face_angle"] - shown["face_angle"])
        observation[:, self._shown["goal_rel_face_angle"]] = left.to(observation.dtype)
        observation[:, self._shown["side_turn"]] = by_side(shown["cube_quat"], left).to(observation.dtype)
        return observation

    def observe_privileged(self) -> Tensor:
        m, k = self.mechanism, self._k
        parts = (
            self._qvel[:, :k], self._qpos[:, self._pos] - self._rest, quat_canonical(self._to_goal(m.quat())),
            velocity_of_cube(self._qvel[:, k : k + 6], self._qpos[:, self._quat]), self._sensors[:, self._touch],
            self._left(), m.by_face(m.offset_rates),
        )  # fmt: skip
        return torch.cat(parts, dim=1)

    def observe_pictured(self) -> dict[str, Tensor]:
        return {"mark_angle": marks_of(self.mechanism.quat(), self.mechanism.angles())}

    def from_pictures(self, name: str, read: Mapping[str, Tensor]) -> Tensor:
        return angles_of(*(read[part] for part in self.read_through[name]))

    def picture_rule(self, name: str) -> Mapping[str, Any]:
        return rule()

    def outcome(self, action: Tensor) -> Outcome:
        w, action = self.weights, action.to(self.target.dtype)
        self.target = self._smoothed(self.target, action)
        turn, faces = self._errors()
        away = torch.linalg.vector_norm(self._qpos[:, self._pos] - self._rest, dim=1)
        dropped = away > DROP_M
        near = (turn < SUCCESS_RAD) & (self._left().abs() < SUCCESS_FACE_RAD).all(dim=1)
        success, distance = near & ~dropped, turn + faces
        terms = {
            "progress": w.progress * (self.goal_angle - distance).clamp(min=0.0),
            "success": w.success * success.to(turn.dtype),
            "drop": w.drop * dropped.to(turn.dtype),
            **costs(w, away, action - self._last_action, self._qvel[:, : self._k], self._force),
        }
        reward = torch.stack(tuple(terms.values())).sum(dim=0)
        self._last_action, self.goal_angle = action.clone(), torch.minimum(self.goal_angle, distance)
        over = (self.waited >= self.patience_steps) & ~success & ~dropped  # no state of the hand, so no termination
        if self.kind in PLANNED:
            over = over | self._carried_out(success)
            terms["solved"] = (self.mechanism.labels // 9 == self._bank[0] // 9).all(dim=1).to(turn.dtype)
        if success.is_cuda or bool(success.any()):  # looking would stall a GPU
            self._set_goals(success, self.goal, self.rng.uniform("goal", GOAL_DRAWS))
        return Outcome(reward, dropped, success, terms, truncated=over)

    def _carried_out(self, success: Tensor) -> Tensor:
        """Where [N] plans are done. One that has not led to a solved cube, as a face has slipped, is made anew."""
        done = success & (self.taken >= self.planned)
        if self.kind == "solve":
            unsolved = done & (self.mechanism.labels // 9 != self._bank[0] // 9).any(dim=1)
            if bool(unsolved.any()):
                self._plan(unsolved)
                done = done & ~unsolved
        return done

    def draw_goal(self, model: mujoco.MjModel, data: mujoco.MjData, index: int) -> None:
        body, cube = id_of(model, _BODY, "goal"), id_of(model, _GEOM, "cube")
        quat = self.mechanism.quat()
        model.body_quat[body] = quat_multiply(self._to_goal(quat), quat)[index].cpu().numpy()
        scale = float(model.geom_size[cube, 0]) / float(model.site_size[id_of(model, _SITE, "goal"), 0])
        labels = self.mechanism.labels[index].cpu().numpy()
        left = (self.goal_quarters - self.mechanism.quarters)[index].tolist()
        turns = [Move(face, -quarters % 4) for face, quarters in zip(FACES, left, strict=True) if quarters % 4]
        shown, cut = after(labels, turns), (self.goal_quarters[index] % 4).tolist()
        for piece in PIECES:
            colour = PLASTIC if piece.corner == cut[piece.facelet // 9] else COLOURS[int(shown[piece.facelet]) // 9]
            model.site_rgba[id_of(model, _SITE, f"goal_{piece.name}")] = colour
        for site in range(id_of(model, _SITE, "goal"), id_of(model, _SITE, "goal_53") + 1):
            model.site_pos[site] *= scale
            model.site_size[site] *= scale
        mujoco.mj_kinematics(model, data)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"mechanism": self.mechanism.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.mechanism.load_state_dict(state["mechanism"])


def _check(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownOptionError(
            f"{name}: expected {' or '.join(map(repr, known))}, got {value!r}{nearest(str(value), known)}"
        )


def _moves(scramble: str) -> list[Move]:
    """The moves of the option. Raises CubeError, which names it."""
    try:
        return parse_moves(scramble)
    except ValueError as error:
        raise type(error)(f"scramble: {error}") from None


def _quat(rotation: np.ndarray) -> np.ndarray:
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(rotation, dtype=float).ravel())
    return quat


def _turns(mixing: int | Sequence[int]) -> tuple[int, int]:
    """The option as the fewest and the most turns."""
    pair = tuple(mixing) if isinstance(mixing, Sequence) else (mixing, mixing)
    if (
        len(pair) != 2
        or any(isinstance(n, bool) or not isinstance(n, int) for n in pair)
        or not 0 <= pair[0] <= pair[1]
    ):
        raise UnknownOptionError(f"mixing: expected a number of turns, or the fewest and the most, got {mixing!r}")
    return pair


def _components(parts: HandModel, hand: str) -> tuple[Component, ...]:
    """What the hand observes."""
    base = {component.name: component for component in hand_components(parts, HANDS[hand])}
    tips = base.pop("fingertip_pos")
    policy = [component for component in base.values() if component.group == "policy"]
    secret = [component for component in base.values() if component.group == "privileged"]
    angles = partial(Component, size=6, unit="rad", frame="cube", elements=tuple(FACES), limits=(-math.pi, math.pi))
    return (
        *policy,
        replace(tips, group="policy"),
        angles("face_angle", bodies=_CUBE,
               description="angles of the faces, counter-clockwise as seen from outside, from where they began"),
        angles("goal_face_angle", measured=False, description="angles wanted"),
        angles("goal_rel_face_angle", bodies=_CUBE, derived_from=("face_angle", "goal_face_angle"),
               description="goal_face_angle - face_angle, from -pi to pi"),
        replace(angles("side_turn", bodies=_CUBE, derived_from=("cube_quat", "goal_rel_face_angle"),
                       description="goal_rel_face_angle of the faces that point most to each side of the palm"),
                frame=_PALM, elements=SIDES),
        *secret,
        angles("true_goal_rel_face_angle", bodies=_CUBE, group="privileged", description="goal_rel_face_angle, clean"),
        Component("face_vel", 6, "rad/s", "cube", tuple(FACES), bodies=_CUBE, group="privileged",
                  description="velocities of the faces, relative to the cube"),
    )  # fmt: skip
