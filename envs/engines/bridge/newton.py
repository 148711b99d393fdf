"""Newton's SolverFeatherstone as a simulator of one mechanism, on the CPU. Imported only where it is asked for.

Newton's other way to simulate robots, SolverMuJoCo, is MuJoCo itself. SolverFeatherstone has reduced coordinates with
rotors, and contacts, friction and limits as springs and dampers, all of them explicit: they hold over a step. So where
there are contacts its steps are parts of the mechanism's, and no spring, damper or slope of friction is larger than
such a part can bear.
"""

# The two kernels are Warp's language in Python's clothes.
# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import newton
import numpy as np
import warp as wp
from numpy.typing import NDArray

from envs.engines.bridge.compliance import DEPTHS
from envs.engines.bridge.forces import mobility_of, parts_for_contacts
from envs.engines.bridge.mechanism import Joint, Link, Mechanism, Shape, cross
from envs.engines.bridge.simulator import Touch
from envs.engines.bridge.statement import coefficients
from envs.engines.bridge.urdf import turn_of

Array, Index = NDArray[np.float64], NDArray[np.int64]
wp.config.log_level = max(wp.config.log_level, wp.LOG_ERROR)  # silent about every kernel that it compiles or loads

# Of what a contact does in a step: the most that damping may be, and friction below its limit, as shares of what would
# stop the two shapes; and the square of the most that the spring may turn its oscillation by, rad^2.
_DAMPING, _SLOPE, _TURN = 1.0, 0.5, 0.1
_NEXT, _AFTER = [1, 2, 0], [2, 0, 1]
_MOST = 8  # points at which two shapes touch
_STIFFNESS, _RELAXATION = 2500.0, 0.04  # Newton's own, N/m and s, for shapes that touch each other only
_STOP = 0.4  # rad by which the spring of a limit turns in a step; it is damped critically
_HELD, _STOPPED = 0.25, 0.75  # of dry friction: share of what would stop a joint in a step that adds up, and that acts


def _transform(pos: Array, quat: Array) -> Any:
    w, x, y, z = (quat / np.linalg.norm(quat)).tolist()
    return wp.transform(wp.vec3(*pos.tolist()), wp.quat(x, y, z, w))


@wp.kernel
def _deepest(
    count: wp.array(dtype=int), shape0: wp.array(dtype=int), shape1: wp.array(dtype=int),
    point0: wp.array(dtype=wp.vec3), point1: wp.array(dtype=wp.vec3), margin0: wp.array(dtype=float),
    margin1: wp.array(dtype=float), normal: wp.array(dtype=wp.vec3), body: wp.array(dtype=int),
    pose: wp.array(dtype=wp.transform), deepest: wp.array(dtype=float),
):  # fmt: skip
    """How deep each shape is in others at most, m."""
    i = wp.tid()
    if i >= count[0]:
        return
    first, second = wp.vec3(point0[i]), wp.vec3(point1[i])
    if body[shape0[i]] >= 0:
        first = wp.transform_point(pose[body[shape0[i]]], first)
    if body[shape1[i]] >= 0:
        second = wp.transform_point(pose[body[shape1[i]]], second)
    depth = wp.dot(first - second, normal[i]) + margin0[i] + margin1[i]
    wp.atomic_max(deepest, shape0[i], depth)
    wp.atomic_max(deepest, shape1[i], depth)


@wp.kernel
def _follow(
    shapes: wp.array(dtype=int), deepest: wp.array(dtype=float), depths: wp.array2d(dtype=float),
    springs: wp.array2d(dtype=float), dampers: wp.array2d(dtype=float),
    stiffness: wp.array(dtype=float), damping: wp.array(dtype=float),
):  # fmt: skip
    """Stiffness and damping of shapes at their depths, between the entries of their tables."""
    i = wp.tid()
    depth, last = deepest[shapes[i]], depths.shape[1] - 1
    low = int(0)  # noqa: UP018, RUF046  # a variable, for Warp
    while low < last - 1 and depths[i, low + 1] < depth:
        low += 1
    share = wp.clamp((depth - depths[i, low]) / (depths[i, low + 1] - depths[i, low]), 0.0, 1.0)
    stiffness[shapes[i]] = 2.0 * wp.lerp(springs[i, low], springs[i, low + 1], share)
    damping[shapes[i]] = 2.0 * wp.lerp(dampers[i, low], dampers[i, low + 1], share)


@dataclass(frozen=True)
class _Points:
    """Contacts [n] of two shapes and bodies each [2 n], the first ones and then the second ones: where these have their
    deepest points, the normal from the first to the second, and how deep they are."""

    shapes: Index
    bodies: Index
    places: Array
    normal: Array
    depth: Array


class NewtonSimulator:
    """One mechanism in Newton. Joints have their rotors and limits there; their dry friction is a force."""

    def __init__(self, found: Mechanism) -> None:
        self._found, self._parts = found, parts_for_contacts(found)
        self._step_s = found.timestep_s / self._parts
        self._builder: Any = newton.ModelBuilder(gravity=found.gravity.tolist())
        self._bodies: dict[int, int] = {0: -1}
        self._shapes: dict[int, int] = {}  # by geom
        self._joints: list[tuple[Joint, int]] = []
        self._free: list[tuple[Link, int]] = []
        self._friction = coefficients("newton", found)
        for shape in found.static:
            self._add_shape(-1, shape)
        trees: dict[int, list[int]] = {}  # joints, by body at the root
        roots: dict[int, int] = {}
        for link in found.links:
            root = roots[link.body] = roots.get(link.parent, link.body)
            trees.setdefault(root, []).extend(self._add_link(link))
        for joints in trees.values():
            self._builder.add_articulation(joints)
        self._model: Any = self._builder.finalize(device="cpu", skip_validation_inertia=True)
        self._solver: Any = newton.solvers.SolverFeatherstone(self._model, update_mass_matrix_interval=self._parts)
        self._state, self._control = self._model.state(), self._model.control()
        self._place()
        self._pipeline: Any = None
        self._contacts: Any = None
        if found.pairs:
            self._collide()
            self._law()
        self._graph: Any = None

    def _add_link(self, link: Link) -> list[int]:
        """Add a body and the joints that it hangs on; returns them.

        Bodies have to come in the order of joints: the solver takes the inertia of body i for that of joint i.
        """
        builder, turn = self._builder, turn_of(link.inertia_quat)
        between = [builder.add_link(lock_inertia=True) for _ in link.joints[1:]]
        inertia = wp.mat33(*(turn @ np.diag(link.inertia) @ turn.T).ravel().tolist())
        com = wp.vec3(*link.com.tolist())
        body = builder.add_link(com=com, inertia=inertia, mass=link.mass, lock_inertia=True)
        self._bodies[link.body] = body
        for shape in link.shapes:
            self._add_shape(body, shape)
        if link.free is not None:
            self._free.append((link, builder.add_joint_free(body)))
            return [self._free[-1][1]]
        parent, pos, quat = self._bodies[link.parent], link.pos, link.quat
        if not link.joints:
            return [builder.add_joint_fixed(parent, body, parent_xform=_transform(pos, quat))]
        made = []
        for joint, child in zip(link.joints, [*between, body], strict=True):
            made.append(self._add_joint(joint, parent, child, pos, quat))
            parent, pos, quat = child, np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
        return made

    def _add_joint(self, joint: Joint, parent: int, child: int, pos: Array, quat: Array) -> int:
        low, high = joint.range or (-math.inf, math.inf)
        stiffness = _STOP**2 / (joint.mobility * self._step_s**2) if joint.range else 0.0
        damping = 2.0 * _STOP / (joint.mobility * self._step_s) if joint.range else 0.0
        add = self._builder.add_joint_prismatic if joint.slides else self._builder.add_joint_revolute
        made = add(
            parent, child, axis=wp.vec3(*joint.axis.tolist()), armature=joint.armature,
            parent_xform=_transform(pos + turn_of(quat / np.linalg.norm(quat)) @ joint.anchor, quat),
            child_xform=_transform(joint.anchor, np.array([1.0, 0.0, 0.0, 0.0])),
            limit_lower=low - joint.zero, limit_upper=high - joint.zero, limit_ke=stiffness, limit_kd=damping,
            target_ke=0.0, target_kd=0.0, damping=0.0, stiffness=0.0, friction=0.0,
        )  # fmt: skip
        self._joints.append((joint, made))
        return made

    def _add_shape(self, body: int, shape: Shape) -> None:
        builder, size = self._builder, shape.size.tolist()
        place = {"xform": _transform(shape.pos, shape.quat)}
        place["cfg"] = newton.ModelBuilder.ShapeConfig(density=0.0, gap=0.0, mu=self._friction[shape.geom])
        if shape.kind == "plane":
            made = builder.add_shape_plane(body=body, width=0.0, length=0.0, **place)
        elif shape.kind == "sphere":
            made = builder.add_shape_sphere(body, radius=size[0], **place)
        elif shape.kind == "capsule":
            made = builder.add_shape_capsule(body, radius=size[0], half_height=size[1], **place)
        elif shape.kind == "cylinder":
            made = builder.add_shape_cylinder(body, radius=size[0], half_height=size[1], **place)
        elif shape.kind == "box":
            made = builder.add_shape_box(body, hx=size[0], hy=size[1], hz=size[2], **place)
        elif shape.kind == "ellipsoid":
            made = builder.add_shape_ellipsoid(body, rx=size[0], ry=size[1], rz=size[2], **place)
        else:
            assert shape.points is not None
            assert shape.faces is not None
            count = len(shape.points)
            mesh = newton.Mesh(shape.points, shape.faces.ravel(), compute_inertia=False, maxhullvert=count)
            made = builder.add_shape_convex_hull(body, mesh=mesh, **place)
        self._shapes[shape.geom] = made

    def _place(self) -> None:
        """Where coordinates and velocities are in Newton's arrays, whose memory NumPy shares."""
        q_start, qd_start = self._model.joint_q_start.numpy(), self._model.joint_qd_start.numpy()
        self._q, self._qd = self._state.joint_q.numpy(), self._state.joint_qd.numpy()
        self._f = self._control.joint_f.numpy()
        self._of_q = np.array([q_start[made] for _, made in self._joints], dtype=int)
        self._of_v = np.array([qd_start[made] for _, made in self._joints], dtype=int)
        self._qpos = np.array([joint.qpos for joint, _ in self._joints], dtype=int)
        self._dof = np.array([joint.dof for joint, _ in self._joints], dtype=int)
        self._zero = np.array([joint.zero for joint, _ in self._joints])
        self._bases = [(link, int(q_start[made]), int(qd_start[made])) for link, made in self._free]
        self._loss = np.array([joint.frictionloss for joint, _ in self._joints])
        stops = [1.0 / (joint.mobility * self._found.timestep_s) for joint, _ in self._joints]
        self._stops, self._held = np.array(stops), np.zeros(len(self._joints))

    def _collide(self) -> None:
        """What finds contacts, between pairs that may touch."""
        pairs = [(self._shapes[a], self._shapes[b]) for a, b in sorted(self._found.pairs)]
        self._geoms = {made: geom for geom, made in self._shapes.items()}
        self._pipeline = newton.CollisionPipeline(
            self._model, broad_phase="explicit", rigid_contact_max=_MOST * len(pairs),
            shape_pairs_filtered=wp.array(pairs, dtype=wp.vec2i, device="cpu"),
        )  # fmt: skip
        contacts = self._contacts = self._pipeline.contacts()
        self._count = contacts.rigid_contact_count.numpy()
        self._sides = (
            (contacts.rigid_contact_shape0, contacts.rigid_contact_shape1),
            (contacts.rigid_contact_point0, contacts.rigid_contact_point1),
            (contacts.rigid_contact_margin0, contacts.rigid_contact_margin1),
        )

    def _law(self) -> None:
        """Springs, dampers and slopes of friction at points of contact.

        Newton takes the mean of two shapes' numbers. The world's are 0, and a shape's twice what it is to have.
        """
        model, step_s = self._model, self._step_s
        self._body_q, self._body_qd = self._state.body_q.numpy(), self._state.body_qd.numpy()
        self._com, self._shape_body = model.body_com.numpy().astype(np.float64), model.shape_body.numpy()
        self._ke, self._kd = model.shape_material_ke.numpy(), model.shape_material_kd.numpy()
        self._kf, self._mu = model.shape_material_kf.numpy(), model.shape_material_mu.numpy()
        self._ke[:] = self._kd[:] = self._kf[:] = 0.0
        static = {shape.geom for shape in self._found.static}
        moving = [shape for shape in self._found.shapes if shape.geom not in static]
        self._moving = wp.array([self._shapes[shape.geom] for shape in moving], dtype=int, device="cpu")
        self._deepest = wp.zeros(len(self._ke), dtype=float, device="cpu")
        tables = np.zeros((3, len(moving), DEPTHS))  # depths, springs, dampers
        for row, shape in enumerate(moving):
            law, most = shape.compliance, 1.0 / (mobility_of(self._found, shape) * step_s)
            depths = np.geomspace(1e-6, 1.0, DEPTHS) if law is None else law.depths
            stiffness = np.full(DEPTHS, _STIFFNESS) if law is None else law.stiffnesses
            damping = stiffness * (_RELAXATION if law is None else law.relaxations)
            tables[:, row] = depths, np.minimum(stiffness, _TURN * most / step_s), np.minimum(damping, _DAMPING * most)
            self._kf[self._shapes[shape.geom]] = 2.0 * _SLOPE * most
        self._tables = [wp.array(table, dtype=float, device="cpu") for table in tables]

    def _follow_depths(self) -> None:
        """Give each shape the spring of the depth at which it is: Newton's springs are linear."""
        contacts, model = self._contacts, self._model
        self._deepest.zero_()
        inputs = [
            contacts.rigid_contact_count, contacts.rigid_contact_shape0, contacts.rigid_contact_shape1,
            contacts.rigid_contact_point0, contacts.rigid_contact_point1, contacts.rigid_contact_margin0,
            contacts.rigid_contact_margin1, contacts.rigid_contact_normal, model.shape_body, self._state.body_q,
        ]  # fmt: skip
        wp.launch(_deepest, contacts.rigid_contact_max, inputs, [self._deepest], device="cpu")
        inputs = [self._moving, self._deepest, *self._tables]
        outputs = [model.shape_material_ke, model.shape_material_kd]
        wp.launch(_follow, len(self._moving), inputs, outputs, device="cpu")

    def _points(self) -> _Points | None:
        """Where the contacts that the last step found are now; None: there are none."""
        if self._contacts is None or not self._count[0]:
            return None
        contacts, count = self._contacts, int(self._count[0])
        normal = contacts.rigid_contact_normal.numpy()[:count].astype(np.float64)  # from the first to the second
        shapes = np.concatenate([of.numpy()[:count] for of in self._sides[0]])
        points = np.concatenate([of.numpy()[:count] for of in self._sides[1]]).astype(np.float64)
        margins = np.concatenate([of.numpy()[:count] for of in self._sides[2]])
        bodies = self._shape_body[shapes]
        places = np.where((bodies < 0)[:, None], points, _moved(self._body_q[bodies].astype(np.float64), points))
        places[:count] += margins[:count, None] * normal
        places[count:] -= margins[count:, None] * normal
        depth = ((places[:count] - places[count:]) * normal).sum(axis=1)
        return _Points(shapes, bodies, places, normal, depth)

    def _velocity(self, bodies: Index, places: Array) -> Array:
        """Of points [n, 3] that are fixed to bodies."""
        com = _moved(self._body_q[bodies].astype(np.float64), self._com[bodies])
        twist = self._body_qd[bodies].astype(np.float64)
        return np.where((bodies < 0)[:, None], 0.0, twist[:, :3] + _cross(twist[:, 3:], places - com))

    def touches(self) -> list[Touch]:
        """By Newton's law of contact in the present state, as it does not say its forces."""
        points, found = self._points(), []
        if points is None:
            return found
        normal, depth, count = points.normal, points.depth, len(points.depth)
        first, second = points.shapes[:count], points.shapes[count:]
        mean = lambda values: 0.5 * (values[first] + values[second]).astype(np.float64)  # noqa: E731
        velocity = self._velocity(points.bodies, points.places)
        approach = velocity[:count] - velocity[count:]
        closing = (approach * normal).sum(axis=1)
        pressed = mean(self._ke) * depth + mean(self._kd) * np.maximum(closing, 0.0)
        along = mean(self._kf)[:, None] * (approach - closing[:, None] * normal)
        size = np.maximum(np.linalg.norm(along, axis=1), 1e-12)
        along *= np.minimum(1.0, mean(self._mu) * pressed / size)[:, None]
        for i in np.flatnonzero(depth > 0.0).tolist():
            geoms = self._geoms[int(first[i])], self._geoms[int(second[i])]
            place = 0.5 * (points.places[i] + points.places[count + i])
            found.append(Touch(geoms, place, pressed[i] * normal[i] + along[i]))
        return found

    def write(self, qpos: Array, qvel: Array) -> None:
        self._q[self._of_q], self._qd[self._of_v] = qpos[self._qpos] - self._zero, qvel[self._dof]
        for link, q, v in self._bases:
            at, dof = link.free or (0, 0)
            quat = qpos[at + 3 : at + 7] / np.linalg.norm(qpos[at + 3 : at + 7])
            turn = turn_of(quat)
            spin = turn @ qvel[dof + 3 : dof + 6]
            self._q[q : q + 3], self._q[q + 3 : q + 6], self._q[q + 6] = qpos[at : at + 3], quat[1:], quat[0]
            self._qd[v : v + 3] = qvel[dof : dof + 3] + cross(spin, turn @ link.com)
            self._qd[v + 3 : v + 6] = spin
        self._held[:] = 0.0
        newton.eval_fk(self._model, self._state.joint_q, self._state.joint_qd, self._state)

    def read(self) -> tuple[Array, Array]:
        found = self._found
        qpos, qvel = np.zeros(found.nq), np.zeros(found.nv)
        qpos[self._qpos], qvel[self._dof] = self._q[self._of_q] + self._zero, self._qd[self._of_v]
        for link, q, v in self._bases:
            at, dof = link.free or (0, 0)
            xyzw = self._q[q + 3 : q + 7].astype(np.float64)
            quat = np.array([xyzw[3], *xyzw[:3]]) / np.linalg.norm(xyzw)
            turn, spin = turn_of(quat), self._qd[v + 3 : v + 6].astype(np.float64)
            qpos[at : at + 3], qpos[at + 3 : at + 7] = self._q[q : q + 3], quat
            qvel[dof : dof + 3] = self._qd[v : v + 3] - cross(spin, turn @ link.com)
            qvel[dof + 3 : dof + 6] = turn.T @ spin
        return qpos, qvel

    def step(self, force: Array) -> None:
        self._f[self._of_v] = force[self._dof] - self._rubbing()
        for link, q, v in self._bases:
            dof, xyzw = (link.free or (0, 0))[1], self._q[q + 3 : q + 7].astype(np.float64)
            turn = turn_of(np.array([xyzw[3], *xyzw[:3]]))
            push, torque = force[dof : dof + 3], turn @ force[dof + 3 : dof + 6]
            self._f[v : v + 3], self._f[v + 3 : v + 6] = push, torque - cross(turn @ link.com, push)
        self._advance()

    def _rubbing(self) -> Array:
        """Dry friction of joints, which Newton's solver has not: at most so large, up to that what stops the joint."""
        stop = self._stops * self._qd[self._of_v]
        self._held = np.clip(self._held + _HELD * stop, -self._loss, self._loss)
        return np.clip(self._held + _STOPPED * stop, -self._loss, self._loss)

    def _advance(self) -> None:
        """A step of the mechanism: all parts of it are recorded once, and played again."""
        if self._graph is not None:
            wp.capture_launch(self._graph)
            return
        self._all_parts()  # loads kernels
        wp.capture_begin(device="cpu")
        try:
            self._all_parts()
        finally:
            self._graph = wp.capture_end(device="cpu")

    def _all_parts(self) -> None:
        for _ in range(self._parts):
            if self._pipeline is not None:
                self._pipeline.collide(self._state, self._contacts)
                self._follow_depths()
            self._solver.step(self._state, self._state, self._control, self._contacts, self._step_s)

    def close(self) -> None:
        """Nothing is held that Python does not free."""


def _moved(poses: Array, points: Array) -> Array:
    """Points [n, 3] in the frames of poses [n, 7] (position, and quaternion with w last), in the world's frame."""
    axis, w = poses[:, 3:6], poses[:, 6:]
    twice = 2.0 * _cross(axis, points)
    return poses[:, :3] + points + w * twice + _cross(axis, twice)


def _cross(a: Array, b: Array) -> Array:
    """a x b [n, 3]; NumPy's takes several times as long for a few."""
    return a[:, _NEXT] * b[:, _AFTER] - a[:, _AFTER] * b[:, _NEXT]
