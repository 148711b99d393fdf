"""Drake's MultibodyPlant as a simulator of one mechanism. Imported only where it is asked for."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from pydrake.common.eigen_geometry import Quaternion
from pydrake.geometry import (
    AddContactMaterial,
    Box,
    Capsule,
    CollisionFilterDeclaration,
    Convex,
    Cylinder,
    Ellipsoid,
    GeometrySet,
    HalfSpace,
    ProximityProperties,
    RoleAssign,
    Sphere,
)
from pydrake.math import RigidTransform, RotationMatrix
from pydrake.multibody.plant import (
    AddMultibodyPlantSceneGraph,
    ContactModel,
    CoulombFriction,
    DiscreteContactApproximation,
)
from pydrake.multibody.tree import (
    FixedOffsetFrame,
    PdControllerGains,
    PrismaticJoint,
    RevoluteJoint,
    RotationalInertia,
    SpatialInertia,
    WeldJoint,
)
from pydrake.systems.analysis import Simulator as Stepper
from pydrake.systems.framework import DiagramBuilder

from envs.engines.bridge.compliance import Compliance
from envs.engines.bridge.mechanism import Joint, Link, Mechanism, Shape
from envs.engines.bridge.simulator import Touch
from envs.engines.bridge.statement import coefficients

Array = Any  # pydrake's stubs ask for arrays of a type that none has
logging.getLogger("drake").setLevel(logging.ERROR)  # it warns of planes that nothing soft can touch
# Damping of the servo that is dry friction: in a step it stops anything whose inertia is below this one, kg m^2.
_STOPPED = 10.0
_RIGID = 1e12  # N/m


def _pose(pos: Array, quat: Array) -> RigidTransform:
    return RigidTransform(RotationMatrix(Quaternion(quat / np.linalg.norm(quat))), pos)


def _solid(shape: Shape) -> Any:
    size = shape.size
    if shape.kind == "plane":
        return HalfSpace()
    if shape.kind == "sphere":
        return Sphere(size[0])
    if shape.kind == "capsule":
        return Capsule(size[0], 2.0 * size[1])
    if shape.kind == "cylinder":
        return Cylinder(size[0], 2.0 * size[1])
    if shape.kind == "ellipsoid":
        return Ellipsoid(size[0], size[1], size[2])
    if shape.kind == "box":
        return Box(2.0 * size[0], 2.0 * size[1], 2.0 * size[2])
    assert shape.points is not None
    points: Array = np.asfortranarray(shape.points.T)
    return Convex(points=points, label=f"geom{shape.geom}")


class DrakeSimulator:
    """One mechanism in Drake. Joints have their damping, limits and rotors' inertia there."""

    def __init__(self, found: Mechanism) -> None:
        self._found, self._steps = found, 0
        builder = DiagramBuilder()
        self._plant, self._scene = AddMultibodyPlantSceneGraph(builder, time_step=found.timestep_s)
        plant: Any = self._plant
        plant.set_discrete_contact_approximation(DiscreteContactApproximation.kLagged)
        plant.set_contact_model(ContactModel.kPoint)
        plant.set_adjacent_bodies_collision_filters(False)
        plant.mutable_gravity_field().set_gravity_vector(found.gravity)
        self._friction = coefficients("drake", found)
        self._geoms: dict[Any, int] = {}
        self._ids: dict[int, Any] = {}
        self._joints: list[tuple[Joint, Any]] = []
        self._bodies: dict[int, Any] = {0: plant.world_body()}
        self._free: list[tuple[Link, Any]] = []
        self._springs: dict[int, Compliance] = {}  # by geom
        self._depths: dict[int, int] = {}  # which of its depths each has now
        self._rubbing = 0
        for shape in found.static:
            self._add_shape(plant.world_body(), shape)
        for link in found.links:
            self._add_link(link)
        plant.Finalize()
        self._filter()
        self._diagram = builder.Build()
        self._stepper: Any = Stepper(self._diagram)
        self._context: Any = plant.GetMyMutableContextFromRoot(self._stepper.get_mutable_context())
        self._shapes: Any = self._scene.GetMyMutableContextFromRoot(self._stepper.get_mutable_context())
        self._contacts: Any = plant.get_contact_results_output_port()
        self._results: Any = self._contacts.Eval(self._context)
        self._force: Any = plant.get_applied_generalized_force_input_port()
        if self._rubbing:
            instance = self._joints[0][1].model_instance()
            still = np.zeros(2 * plant.num_actuators(instance))
            plant.get_desired_state_input_port(instance).FixValue(self._context, still)
        self._place()

    def _add_link(self, link: Link) -> None:
        plant: Any = self._plant
        turn = _pose(np.zeros(3), link.inertia_quat).rotation()
        about_com = RotationalInertia(*link.inertia).ReExpress(turn)
        com: Array = link.com
        inertia = SpatialInertia.MakeFromCentralInertia(link.mass, com, about_com)
        body = plant.AddRigidBody(f"body{link.body}", inertia)
        self._bodies[link.body] = body
        for shape in link.shapes:
            self._add_shape(body, shape)
        if link.free is not None:
            self._free.append((link, body))
            return
        parent, place = self._bodies[link.parent], _pose(link.pos, link.quat)
        if not link.joints:
            plant.AddJoint(WeldJoint(f"weld{link.body}", parent.body_frame(), body.body_frame(), place))
        for number, joint in enumerate(link.joints):
            last = number == len(link.joints) - 1
            child = body if last else plant.AddRigidBody(f"between{joint.index}", SpatialInertia.Zero())
            self._add_joint(joint, parent, child, place)
            parent, place = child, RigidTransform()

    def _add_joint(self, joint: Joint, parent: Any, child: Any, place: RigidTransform) -> None:
        plant: Any = self._plant
        anchor: Array = joint.anchor
        axis: Array = joint.axis
        at = RigidTransform(anchor)
        ends = []
        for label, body, pose in (("of", parent, place.multiply(at)), ("on", child, at)):
            ends.append(plant.AddFrame(FixedOffsetFrame(f"{label}{joint.index}", body.body_frame(), pose)))
        low, high = joint.range or (-math.inf, math.inf)
        make = PrismaticJoint if joint.slides else RevoluteJoint
        made = plant.AddJoint(
            make(f"joint{joint.index}", ends[0], ends[1], axis, low - joint.zero, high - joint.zero, joint.damping)
        )
        self._joints.append((joint, made))
        if joint.armature > 0.0 or joint.frictionloss > 0.0:
            rubs = joint.frictionloss > 0.0
            rotor = plant.AddJointActuator(f"rotor{joint.index}", made, joint.frictionloss if rubs else math.inf)
            rotor.set_default_rotor_inertia(joint.armature)
            rotor.set_default_gear_ratio(1.0)
            if rubs:
                self._rubbing += 1
                rotor.set_controller_gains(PdControllerGains(p=0.0, d=_STOPPED / self._found.timestep_s))

    def _add_shape(self, body: Any, shape: Shape) -> None:
        plant: Any = self._plant
        if shape.compliance is None:  # in series with another shape's spring; the world is rigid
            rigid = _RIGID if body is plant.world_body() else None
            properties = self._material(shape.geom, None, rigid)
        else:
            self._springs[shape.geom], self._depths[shape.geom] = shape.compliance, 0
            properties = self._spring(shape.geom, 0)
        made = plant.RegisterCollisionGeometry(
            body, _pose(shape.pos, shape.quat), _solid(shape), f"geom{shape.geom}", properties
        )
        self._geoms[made], self._ids[shape.geom] = shape.geom, made

    def _material(self, geom: int, dissipation: float | None, stiffness: float | None) -> Any:
        properties, friction = ProximityProperties(), self._friction[geom]
        AddContactMaterial(dissipation, stiffness, CoulombFriction(friction, friction), properties)
        return properties

    def _spring(self, geom: int, index: int) -> Any:
        """How a shape yields at one of its depths. Damping is stiffness * dissipation * depth (Hunt and Crossley)."""
        law = self._springs[geom]
        return self._material(geom, float(law.relaxations[index] / law.depths[index]), float(law.stiffnesses[index]))

    def _follow_depths(self) -> None:
        """Give each shape the spring of the depth at which the last step found it: Drake's springs are linear."""
        depths = dict.fromkeys(self._springs, 0.0)
        self._results = self._contacts.Eval(self._context)
        for i in range(self._results.num_point_pair_contacts()):
            pair = self._results.point_pair_contact_info(i).point_pair()
            for one in (pair.id_A, pair.id_B):
                if (geom := self._geoms[one]) in depths:
                    depths[geom] = max(depths[geom], pair.depth)
        for geom, depth in depths.items():
            index = min(int(np.searchsorted(self._springs[geom].depths, depth)), len(self._springs[geom].depths) - 1)
            if index != self._depths[geom]:
                self._depths[geom] = index
                self._scene.AssignRole(
                    self._shapes, self._plant.get_source_id(), self._ids[geom], self._spring(geom, index),
                    RoleAssign.kReplace,
                )  # fmt: skip

    def _filter(self) -> None:
        """Have only those shapes touch that may."""
        declaration, geoms = CollisionFilterDeclaration(), sorted(self._ids)
        for i, first in enumerate(geoms):
            apart = [self._ids[g] for g in geoms[i + 1 :] if (first, g) not in self._found.pairs]
            if apart:
                declaration.ExcludeBetween(GeometrySet(self._ids[first]), GeometrySet(apart))
        self._scene.collision_filter_manager().Apply(declaration)

    def _place(self) -> None:
        """Where coordinates and velocities are in Drake's vectors."""
        self._q = np.array([made.position_start() for _, made in self._joints], dtype=int)
        self._v = np.array([made.velocity_start() for _, made in self._joints], dtype=int)
        self._qpos = np.array([joint.qpos for joint, _ in self._joints], dtype=int)
        self._dof = np.array([joint.dof for joint, _ in self._joints], dtype=int)
        self._zero = np.array([joint.zero for joint, _ in self._joints])

    def write(self, qpos: Array, qvel: Array) -> None:
        plant, context = self._plant, self._context
        positions, velocities = np.zeros(plant.num_positions()), np.zeros(plant.num_velocities())
        positions[self._q], velocities[self._v] = qpos[self._qpos] - self._zero, qvel[self._dof]
        for link, body in self._free:
            at, dof = link.free or (0, 0)
            q, v, quat = body.floating_positions_start(), body.floating_velocities_start_in_v(), qpos[at + 3 : at + 7]
            positions[q : q + 4], positions[q + 4 : q + 7] = quat / np.linalg.norm(quat), qpos[at : at + 3]
            turn = _pose(np.zeros(3), quat).rotation().matrix()
            velocities[v : v + 3], velocities[v + 3 : v + 6] = turn @ qvel[dof + 3 : dof + 6], qvel[dof : dof + 3]
        plant.SetPositions(context, positions)
        plant.SetVelocities(context, velocities)

    def read(self) -> tuple[Array, Array]:
        plant, context, found = self._plant, self._context, self._found
        qpos, qvel = np.zeros(found.nq), np.zeros(found.nv)
        positions, velocities = plant.GetPositions(context), plant.GetVelocities(context)
        qpos[self._qpos], qvel[self._dof] = positions[self._q] + self._zero, velocities[self._v]
        for link, body in self._free:
            at, dof = link.free or (0, 0)
            q, v = body.floating_positions_start(), body.floating_velocities_start_in_v()
            quat = positions[q : q + 4] / np.linalg.norm(positions[q : q + 4])
            qpos[at : at + 3], qpos[at + 3 : at + 7] = positions[q + 4 : q + 7], quat
            turn = RotationMatrix(Quaternion(quat)).matrix()
            qvel[dof : dof + 3], qvel[dof + 3 : dof + 6] = velocities[v + 3 : v + 6], turn.T @ velocities[v : v + 3]
        return qpos, qvel

    def step(self, force: Array) -> None:
        own = np.zeros(self._plant.num_velocities())
        own[self._v] = force[self._dof]
        for link, body in self._free:
            dof, v = (link.free or (0, 0))[1], body.floating_velocities_start_in_v()
            turn = body.EvalPoseInWorld(self._context).rotation().matrix()
            own[v : v + 3], own[v + 3 : v + 6] = turn @ force[dof + 3 : dof + 6], force[dof : dof + 3]
        self._force.FixValue(self._context, own)
        # A step is made at each multiple of its length, the first at 0; times between them do not depend on rounding.
        self._stepper.AdvanceTo((self._steps + 0.5) * self._found.timestep_s)
        self._steps += 1
        self._follow_depths()

    def touches(self) -> list[Touch]:
        results, found = self._results, []
        for i in range(results.num_point_pair_contacts()):
            info = results.point_pair_contact_info(i)
            pair = info.point_pair()
            geoms = self._geoms[pair.id_A], self._geoms[pair.id_B]
            found.append(Touch(geoms, np.array(info.contact_point()), np.array(info.contact_force())))
        return found

    def close(self) -> None:
        """Nothing is held that Python does not free."""
