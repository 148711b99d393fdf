"""PyBullet as a simulator of one mechanism. Imported only where it is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pybullet
from numpy.typing import NDArray

from envs.engines.bridge.compliance import Compliance
from envs.engines.bridge.mechanism import Joint, Link, Mechanism, Shape, cross
from envs.engines.bridge.rotors import with_rotor
from envs.engines.bridge.simulator import Touch
from envs.engines.bridge.statement import coefficients
from envs.engines.bridge.urdf import link_name, turn_of, urdf, write_points

Array = NDArray[np.float64]
Places = NDArray[np.int64]
_FLAGS = (
    pybullet.URDF_USE_INERTIA_FROM_FILE
    | pybullet.URDF_USE_SELF_COLLISION
    | pybullet.URDF_USE_SELF_COLLISION_INCLUDE_PARENT
    | pybullet.URDF_MAINTAIN_LINK_ORDER
)
_ITERATIONS = 100  # of its solver; 50 by default
_FASTEST = 1e9  # its limit of joints' speeds is 100 by default


def _xyzw(quat: Array) -> list[float]:
    return [*quat[1:].tolist(), float(quat[0])]


class BulletSimulator:
    """One mechanism in PyBullet, each tree of links as a body of its own; each shape that may touch is a link without
    mass that is fixed to its body's, for Bullet knows friction, filters and contacts by link."""

    def __init__(self, found: Mechanism) -> None:
        self._found = found
        self.client = pybullet.connect(pybullet.DIRECT)
        if self.client < 0:
            raise RuntimeError("PyBullet has no room for another simulation")
        self._to = {"physicsClientId": self.client}
        pybullet.setGravity(*found.gravity.tolist(), **self._to)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=found.timestep_s, numSolverIterations=_ITERATIONS, numSubSteps=1, **self._to
        )
        self._places: dict[int, tuple[int, int]] = {}  # geom: body and link
        self._joints: list[tuple[Joint, int, int]] = []  # with body and link
        self._springs: dict[tuple[int, int], Compliance] = {}  # by body and link
        self._depths: dict[tuple[int, int], int] = {}  # which of its depths each has now
        self._points: Any = ()
        self._bodies: list[tuple[Link, int, int]] = []
        self._free: list[tuple[Link, int, Array, Array]] = []  # with its body, and the place and axes of its inertia
        with tempfile.TemporaryDirectory() as folder:
            for shape in found.static:
                self._add_static(shape, Path(folder))
            for root in (link for link in found.links if link.parent == 0):
                self._add_tree(root, Path(folder))
        self._set_dynamics()
        self._filter()
        self._group()

    def _add_static(self, shape: Shape, folder: Path) -> None:
        solid = self._solid(shape, folder)
        made = pybullet.createMultiBody(0.0, solid, -1, shape.pos.tolist(), _xyzw(shape.quat), **self._to)
        self._places[shape.geom] = made, -1

    def _solid(self, shape: Shape, folder: Path) -> int:
        size = shape.size.tolist()
        if shape.kind == "plane":
            return pybullet.createCollisionShape(pybullet.GEOM_PLANE, planeNormal=[0, 0, 1], **self._to)
        if shape.kind == "sphere":
            return pybullet.createCollisionShape(pybullet.GEOM_SPHERE, radius=size[0], **self._to)
        if shape.kind == "box":
            return pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=size, **self._to)
        if shape.kind in ("capsule", "cylinder"):
            kind = pybullet.GEOM_CAPSULE if shape.kind == "capsule" else pybullet.GEOM_CYLINDER
            return pybullet.createCollisionShape(kind, radius=size[0], height=2.0 * size[1], **self._to)
        file = str(write_points(shape, folder))
        return pybullet.createCollisionShape(pybullet.GEOM_MESH, fileName=file, **self._to)

    def _add_tree(self, root: Link, folder: Path) -> None:
        tree = [root]
        for link in self._found.links:
            if any(link.parent == other.body for other in tree):
                tree.append(link)
        # Bullet keeps files in memory by their names: a name of its own for every model.
        path = folder / f"{folder.name}_{root.body}.urdf"
        path.write_text(urdf(tree, folder), encoding="utf-8")
        fixed = root.free is None
        made = pybullet.loadURDF(str(path), useFixedBase=fixed, flags=_FLAGS, **self._to)
        names: dict[str, int] = {}
        for i in range(pybullet.getNumJoints(made, **self._to)):
            info = pybullet.getJointInfo(made, i, **self._to)
            names[info[12].decode()] = i
        for link in tree:
            self._bodies.append((link, made, names.get(f"body{link.body}", -1)))
            for joint in link.joints:
                self._joints.append((joint, made, names[link_name(link, joint)]))
            for shape in link.shapes:
                self._places[shape.geom] = made, names[f"geom{shape.geom}"]
        if not fixed:
            info = pybullet.getDynamicsInfo(made, -1, **self._to)
            at, xyzw = np.array(info[3]), np.array(info[4])
            self._free.append((root, made, at, np.array([xyzw[3], *xyzw[:3]])))

    def _set_dynamics(self) -> None:
        friction = coefficients("pybullet", self._found)
        for body in range(pybullet.getNumBodies(**self._to)):
            for link in range(-1, pybullet.getNumJoints(body, **self._to)):
                pybullet.changeDynamics(
                    body, link, linearDamping=0.0, angularDamping=0.0, jointDamping=0.0, maxJointVelocity=_FASTEST,
                    restitution=0.0, rollingFriction=0.0, spinningFriction=0.0,
                    activationState=pybullet.ACTIVATION_STATE_DISABLE_SLEEPING, **self._to,
                )  # fmt: skip
        for shape in self._found.shapes:
            (body, link), yielding = self._places[shape.geom], shape.compliance
            pybullet.changeDynamics(body, link, lateralFriction=friction[shape.geom], **self._to)
            if yielding is not None:
                self._springs[body, link] = yielding
                self._set_spring(body, link, 0)
        for link, body, index in self._bodies:  # a URDF with a rotor's inertia is refused: no rigid body has it
            pybullet.changeDynamics(body, index, localInertiaDiagonal=with_rotor(link)[0].tolist(), **self._to)
        for joint, body, link in self._joints:  # without force its hidden motor would hold the joint
            pybullet.setJointMotorControl2(
                body, link, pybullet.VELOCITY_CONTROL, targetVelocity=0.0, force=joint.frictionloss, **self._to
            )

    def _set_spring(self, body: int, link: int, depth: int) -> None:
        """Have a shape's contacts yield as MuJoCo's do at one of its depths: Bullet's springs are linear."""
        law = self._springs[body, link]
        stiffness = float(law.stiffnesses[depth])
        damping = stiffness * float(law.relaxations[depth])
        pybullet.changeDynamics(body, link, contactStiffness=stiffness, contactDamping=damping, **self._to)
        self._depths[body, link] = depth

    def _follow_depths(self) -> None:
        """Give each shape the spring of the depth at which the last step found it."""
        depths = dict.fromkeys(self._springs, 0.0)
        self._points = pybullet.getContactPoints(**self._to)
        for point in self._points:
            for place in ((point[1], point[3]), (point[2], point[4])):
                if place in depths:
                    depths[place] = max(depths[place], -point[8])
        for place, depth in depths.items():
            index = int(np.searchsorted(self._springs[place].depths, depth))
            index = min(index, len(self._springs[place].depths) - 1)
            if index != self._depths[place]:
                self._set_spring(*place, index)

    def _filter(self) -> None:
        """Have only those shapes touch that may."""
        geoms = sorted(self._places)
        for i, first in enumerate(geoms):
            for second in geoms[i + 1 :]:
                (a, la), (b, lb) = self._places[first], self._places[second]
                may = int((first, second) in self._found.pairs)
                pybullet.setCollisionFilterPair(a, b, la, lb, may, **self._to)

    def _group(self) -> None:
        """Joints by body, for calls of many."""
        self._geoms = {place: geom for geom, place in self._places.items()}
        self._by_body: list[tuple[int, list[int], Places, Places, Array]] = []
        for body in dict.fromkeys(made for _, made, _ in self._joints):
            those = [(joint, link) for joint, made, link in self._joints if made == body]
            self._by_body.append(
                (
                    body,
                    [link for _, link in those],
                    np.array([joint.qpos for joint, _ in those]),
                    np.array([joint.dof for joint, _ in those]),
                    np.array([joint.zero for joint, _ in those]),
                )
            )

    def write(self, qpos: Array, qvel: Array) -> None:
        for link, body, at, axes in self._free:
            q, v = link.free or (0, 0)
            quat, spin = qpos[q + 3 : q + 7], qvel[v + 3 : v + 6]
            turn = turn_of(quat)
            whole = np.zeros(4)
            mujoco.mju_mulQuat(whole, quat, axes)
            arm, spin_world = turn @ at, turn @ spin
            linear = qvel[v : v + 3] + cross(spin_world, arm)
            place = (qpos[q : q + 3] + arm).tolist()
            pybullet.resetBasePositionAndOrientation(body, place, _xyzw(whole), **self._to)
            pybullet.resetBaseVelocity(body, linear.tolist(), spin_world.tolist(), **self._to)
        for body, links, q, v, zero in self._by_body:
            for link, position, speed in zip(links, (qpos[q] - zero).tolist(), qvel[v].tolist(), strict=True):
                pybullet.resetJointState(body, link, position, speed, **self._to)

    def read(self) -> tuple[Array, Array]:
        qpos, qvel = np.zeros(self._found.nq), np.zeros(self._found.nv)
        for link, body, at, axes in self._free:
            q, v = link.free or (0, 0)
            place, xyzw = pybullet.getBasePositionAndOrientation(body, **self._to)
            linear, spin = (np.array(x) for x in pybullet.getBaseVelocity(body, **self._to))
            inverse, quat = np.zeros(4), np.zeros(4)
            mujoco.mju_negQuat(inverse, axes)
            mujoco.mju_mulQuat(quat, np.array([xyzw[3], *xyzw[:3]]), inverse)
            turn = turn_of(quat)
            arm = turn @ at
            qpos[q : q + 3], qpos[q + 3 : q + 7] = np.array(place) - arm, quat
            qvel[v : v + 3], qvel[v + 3 : v + 6] = linear - cross(spin, arm), turn.T @ spin
        for body, links, q, v, zero in self._by_body:
            states = pybullet.getJointStates(body, links, **self._to)
            qpos[q], qvel[v] = np.array([s[0] for s in states]) + zero, [s[1] for s in states]
        return qpos, qvel

    def step(self, force: Array) -> None:
        for body, links, _, v, _ in self._by_body:
            pybullet.setJointMotorControlArray(
                body, links, pybullet.TORQUE_CONTROL, forces=force[v].tolist(), **self._to
            )
        for link, body, at, axes in self._free:
            v = (link.free or (0, 0))[1]
            if force[v : v + 6].any():
                self._push(body, at, axes, force[v : v + 3], force[v + 3 : v + 6])
        pybullet.stepSimulation(**self._to)
        self._follow_depths()

    def _push(self, body: int, at: Array, axes: Array, force: Array, torque: Array) -> None:
        """Push a free base: a force in the world's axes and a torque in the body's, about the origin of its frame."""
        place, xyzw = pybullet.getBasePositionAndOrientation(body, **self._to)
        inverse, quat = np.zeros(4), np.zeros(4)
        mujoco.mju_negQuat(inverse, axes)
        mujoco.mju_mulQuat(quat, np.array([xyzw[3], *xyzw[:3]]), inverse)
        turn = turn_of(quat)
        about_com = turn @ torque - cross(turn @ at, force)
        pybullet.applyExternalForce(body, -1, force.tolist(), place, pybullet.WORLD_FRAME, **self._to)
        pybullet.applyExternalTorque(body, -1, about_com.tolist(), pybullet.WORLD_FRAME, **self._to)

    def touches(self) -> list[Touch]:
        found = []
        for point in self._points:
            a, b = self._geoms.get((point[1], point[3])), self._geoms.get((point[2], point[4]))
            if a is None or b is None or point[9] <= 0.0:
                continue
            # The normal points from the second to the first; forces are those on the first.
            on_first = point[9] * np.array(point[7]) + point[10] * np.array(point[11]) + point[12] * np.array(point[13])
            found.append(Touch((a, b), np.array(point[6]), -on_first))
        return found

    def close(self) -> None:
        pybullet.disconnect(**self._to)
