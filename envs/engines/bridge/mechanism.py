"""A compiled MuJoCo model in terms that every simulator of rigid bodies has: links, joints, shapes, what may touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.common.errors import EngineError
from envs.engines.bridge.compliance import Compliance, compliances
from envs.engines.cfrc_ext import without_plugin

Array = NDArray[np.float64]
ShapeKind = Literal["plane", "sphere", "capsule", "ellipsoid", "cylinder", "box", "convex"]

_JOINT, _GEOM = mujoco.mjtJoint, mujoco.mjtGeom
_KINDS: dict[int, ShapeKind] = {
    int(_GEOM.mjGEOM_PLANE): "plane", int(_GEOM.mjGEOM_SPHERE): "sphere", int(_GEOM.mjGEOM_CAPSULE): "capsule",
    int(_GEOM.mjGEOM_ELLIPSOID): "ellipsoid", int(_GEOM.mjGEOM_CYLINDER): "cylinder", int(_GEOM.mjGEOM_BOX): "box",
    int(_GEOM.mjGEOM_MESH): "convex",
}  # fmt: skip
_CONTACT_FIELDS = int(mujoco.mjtConDataField.mjCONDATA_FOUND), int(mujoco.mjtConDataField.mjCONDATA_FORCE)
_NET_FORCE = 3  # how a contact sensor gathers its contacts


@dataclass(frozen=True)
class Joint:
    """A hinge or a slide.

    Attributes:
        index, qpos, dof: the joint, and where its coordinate and its velocity are.
        slides: whether it slides along its axis, m, in place of turning about it, rad.
        anchor, axis: in the frame of its body.
        zero: its coordinate in the pose in which links have their places.
        range: lowest and highest coordinate, or None.
        damping, armature, frictionloss: N m s/rad, kg m^2, N m (N s/m, kg, N).
        mobility: its acceleration under 1 N m (1 N) in the initial pose, 1/(kg m^2) (1/kg).
    """

    index: int
    qpos: int
    dof: int
    slides: bool
    anchor: Array
    axis: Array
    zero: float
    range: tuple[float, float] | None
    damping: float
    armature: float
    frictionloss: float
    mobility: float


@dataclass(frozen=True)
class Shape:
    """A geom that may touch others.

    Attributes:
        geom: its index.
        kind, size: as MuJoCo has them; "convex": the hull of `points` [k, 3], with triangles `faces` [m, 3].
        pos, quat: in the frame of its link; of a static one in the world's.
        friction: the coefficient that sliding against the static world is to have, or against others where none is.
        compliance: how contacts with the static world yield; None: it does not touch it.
        mobility: the largest acceleration that 1 N makes of its centre, and of a point on its rim, in the initial pose,
            1/kg.
    """

    geom: int
    kind: ShapeKind
    size: Array
    pos: Array
    quat: Array
    points: Array | None
    faces: NDArray[np.int64] | None
    friction: float
    compliance: Compliance | None
    mobility: tuple[float, float]


@dataclass(frozen=True)
class Link:
    """A body that moves.

    Attributes:
        body, parent: indices; 0 is the world.
        pos, quat: in its parent's frame, where all joints have their `zero`.
        mass, com, inertia_quat, inertia: kg, m, -, kg m^2 about the centre of mass in the axes of `inertia_quat`.
        joints: between its parent and it, in the order in which they act; none: it is fixed to its parent.
        free: where the coordinates and velocities of its free joint begin, or None.
    """

    body: int
    parent: int
    pos: Array
    quat: Array
    mass: float
    com: Array
    inertia_quat: Array
    inertia: Array
    joints: tuple[Joint, ...]
    free: tuple[int, int] | None
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Mechanism:
    """A model, as another simulator needs it.

    Attributes:
        links: parents before children.
        static: shapes of the world and of what is fixed to it.
        pairs: geoms (lower index first) that may touch, and the friction between them in MuJoCo.
        gravity: m/s^2.
        timestep_s: of the other simulator.
    """

    nq: int
    nv: int
    links: tuple[Link, ...]
    static: tuple[Shape, ...]
    pairs: dict[tuple[int, int], float]
    gravity: Array
    timestep_s: float

    @property
    def shapes(self) -> list[Shape]:
        """All shapes, of the world and of links."""
        return [*self.static, *(shape for link in self.links for shape in link.shapes)]


def mechanism(model: mujoco.MjModel, steps: int = 1) -> Mechanism:
    """Translate a model, to be advanced by `steps` steps of another simulator in each physics step.

    Raises:
        EngineError: it has what is not translated, see `problems`.
    """
    for problem in problems(model):
        raise EngineError(f"engine: {problem}")
    pairs, placed = _pairs(model), _placed(model)
    inverse = _inverse_inertia(model, placed)
    touching = {geom for pair in pairs for geom in pair}
    static = {g for g in touching if model.body_weldid[model.geom_bodyid[g]] == 0}
    yielding = compliances(model, pairs, static)
    shapes = {
        g: _shape(
            model,
            g,
            placed if g in static else None,
            _friction(pairs, g, static),
            yielding.get(g),
            _mobility(model, placed, inverse, g),
        )
        for g in touching
    }
    links = [_link(model, body, shapes, inverse) for body in range(1, model.nbody) if model.body_weldid[body] != 0]
    timestep_s = float(model.opt.timestep) / steps
    gravity = np.array(model.opt.gravity) * (not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_GRAVITY))
    return Mechanism(
        model.nq, model.nv, tuple(links), tuple(shapes[g] for g in sorted(static)), pairs, gravity, timestep_s
    )


def cross(a: Array, b: Array) -> Array:
    """a x b [3]; NumPy's takes a hundred times as long for one pair."""
    (x, y, z), (u, v, w) = a.tolist(), b.tolist()
    return np.array((y * w - z * v, z * u - x * w, x * v - y * u))


def name_of(model: mujoco.MjModel, kind: mujoco.mjtObj, index: int) -> str:
    """An object's name, in quotes, or its number."""
    name = mujoco.mj_id2name(model, kind, index)
    return f"{name!r}" if name else f"number {index}"


def problems(model: mujoco.MjModel) -> Iterator[str]:
    """What of a model has no translation into other simulators; one line each."""
    objects = mujoco.mjtObj
    for j in range(model.njnt):
        joint, body = name_of(model, objects.mjOBJ_JOINT, j), int(model.jnt_bodyid[j])
        if int(model.jnt_type[j]) == int(_JOINT.mjJNT_BALL):
            yield f"joint {joint} is a ball joint, which is not translated: hinges, slides and free joints are"
        if int(model.jnt_type[j]) == int(_JOINT.mjJNT_FREE) and (model.body_jntnum[body] > 1):
            yield f"joint {joint} is a free joint beside others of its body, which is not translated"
    for e in range(model.neq):
        if model.eq_active0[e]:
            yield (
                f"equality {name_of(model, objects.mjOBJ_EQUALITY, e)} is not translated (welds, as those of mocap "
                "bodies, connections and coupled joints)"
            )
    for t in range(model.ntendon):
        if model.tendon_limited[t] or model.tendon_frictionloss[t] or model.tendon_armature[t]:
            name = name_of(model, objects.mjOBJ_TENDON, t)
            yield f"tendon {name} has limits, dry friction or armature, which are not translated"
    if model.nflex:
        yield "flexible bodies are not translated"
    if model.nplugin and without_plugin(model) is model:
        yield "plugins are not translated"
    if model.nhistory:
        yield "delays of the model's own actuators and sensors are not translated"
    yield from _actuator_problems(model)
    yield from _shape_problems(model)
    yield from _sensor_problems(model)


def _actuator_problems(model: mujoco.MjModel) -> Iterator[str]:
    for a in range(model.nactuator):
        name = name_of(model, mujoco.mjtObj.mjOBJ_ACTUATOR, a)
        if int(model.actuator_dyntype[a]) != int(mujoco.mjtDyn.mjDYN_NONE):
            yield f"actuator {name} has an activation state (dyntype), which is not translated"
        if int(model.actuator_trntype[a]) == int(mujoco.mjtTrn.mjTRN_BODY):
            yield f"actuator {name} is an adhesion, which is not translated"


def _shape_problems(model: mujoco.MjModel) -> Iterator[str]:
    for g in sorted({geom for pair in _pairs(model) for geom in pair}):
        name, kind = name_of(model, mujoco.mjtObj.mjOBJ_GEOM, g), int(model.geom_type[g])
        body = int(model.geom_bodyid[g])
        if kind not in _KINDS:
            yield f"geom {name} is a height field or signed distance field, which is not translated"
        elif _KINDS[kind] == "plane" and model.body_weldid[body] != 0:
            yield f"geom {name} is a plane on a body that moves, which is not translated"
        if model.body_mocapid[model.body_rootid[body]] >= 0:
            yield f"geom {name} is on a mocap body and can be touched, which is not translated"


def _sensor_problems(model: mujoco.MjModel) -> Iterator[str]:
    found, force = (1 << field for field in _CONTACT_FIELDS)
    for s in range(model.nsensor):
        name, kind = name_of(model, mujoco.mjtObj.mjOBJ_SENSOR, s), int(model.sensor_type[s])
        if kind == int(mujoco.mjtSensor.mjSENS_TOUCH):
            yield f"sensor {name} is a touch sensor, which is not translated: contact sensors are"
        if kind == int(mujoco.mjtSensor.mjSENS_CONTACT):
            fields, how, _ = (int(number) for number in model.sensor_intprm[s, :3])
            if fields & ~(found | force) or (fields & force and how != _NET_FORCE):
                yield f"sensor {name} shows more of contacts than that there are some, and net forces: not translated"
            if int(model.sensor_objtype[s]) == int(mujoco.mjtObj.mjOBJ_SITE):
                yield f"sensor {name} looks at contacts in a site's volume, which is not translated"


def _pairs(model: mujoco.MjModel) -> dict[tuple[int, int], float]:
    """Geoms that may touch by MuJoCo's rules (manual, Computation, Collision detection), and their friction."""
    if model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_CONTACT):
        return {}
    parents = not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_FILTERPARENT)
    weld = model.body_weldid
    above = weld[model.body_parentid[weld]]
    excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in model.exclude_signature}
    found: dict[tuple[int, int], float] = {}
    for p in range(model.npair):
        first, second = sorted((int(model.pair_geom1[p]), int(model.pair_geom2[p])))
        found[first, second] = float(model.pair_friction[p, 0]) if model.pair_dim[p] > 1 else 0.0
    able = np.flatnonzero((model.geom_contype != 0) | (model.geom_conaffinity != 0))
    for i, first in enumerate(able.tolist()):
        for second in able[i + 1 :].tolist():
            bodies = int(model.geom_bodyid[first]), int(model.geom_bodyid[second])
            a, b = (int(weld[body]) for body in bodies)
            related = parents and a != 0 and b != 0 and (a == above[b] or b == above[a])
            types = model.geom_contype, model.geom_conaffinity
            matched = types[0][first] & types[1][second] or types[0][second] & types[1][first]
            apart = bodies in excluded or bodies[::-1] in excluded
            if a != b and not related and matched and not apart and (first, second) not in found:
                found[first, second] = _pair_friction(model, first, second)
    return found


def _pair_friction(model: mujoco.MjModel, first: int, second: int) -> float:
    """Sliding friction between two geoms (manual, Modeling, Contact parameters)."""
    priority, friction, size = model.geom_priority, model.geom_friction[:, 0], model.geom_condim
    if priority[first] != priority[second]:
        chosen = first if priority[first] > priority[second] else second
        return float(friction[chosen]) if size[chosen] > 1 else 0.0
    return float(max(friction[first], friction[second])) if max(size[first], size[second]) > 1 else 0.0


def _friction(pairs: dict[tuple[int, int], float], geom: int, static: set[int]) -> float:
    """`Shape.friction` of a geom; of a static one the largest that it has with others."""
    own = {(b if a == geom else a): value for (a, b), value in pairs.items() if geom in (a, b)}
    of_world = [value for other, value in own.items() if other in static]
    return max(of_world or own.values())


def _placed(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return data


def _inverse_inertia(model: mujoco.MjModel, placed: mujoco.MjData) -> Array:
    """The inverse [nv, nv] of the mass matrix in the initial pose."""
    inertia = np.zeros((model.nv, model.nv))
    if model.nv:
        mujoco.mj_comPos(model, placed)
        mujoco.mj_makeM(model, placed)
        mujoco.mj_fullM(model, placed, inertia)
    return np.array(np.linalg.inv(inertia), dtype=np.float64)


def _mobility(model: mujoco.MjModel, placed: mujoco.MjData, inverse: Array, geom: int) -> tuple[float, float]:
    """`Shape.mobility` of a geom."""
    slide, turn = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jac(model, placed, slide, turn, placed.geom_xpos[geom], int(model.geom_bodyid[geom]))
    of_slide, of_turn = (float(np.linalg.eigvalsh(jac @ inverse @ jac.T)[-1]) for jac in (slide, turn))
    return of_slide, of_slide + float(model.geom_rbound[geom]) ** 2 * of_turn


def _shape(
    model: mujoco.MjModel, geom: int, placed: mujoco.MjData | None, friction: float,
    compliance: Compliance | None, mobility: tuple[float, float],
) -> Shape:  # fmt: skip
    kind, points, faces = _KINDS[int(model.geom_type[geom])], None, None
    if kind == "convex":
        points, faces = hull(model, int(model.geom_dataid[geom]))
    size, pos, quat = (np.array(of[geom]) for of in (model.geom_size, model.geom_pos, model.geom_quat))
    if placed is not None:
        pos = np.array(placed.geom_xpos[geom])
        mujoco.mju_mat2Quat(quat, placed.geom_xmat[geom])
    return Shape(geom, kind, size, pos, quat, points, faces, friction, compliance, mobility)


def hull(model: mujoco.MjModel, mesh: int) -> tuple[Array, NDArray[np.int64]]:
    """Corners [k, 3] of a mesh's convex hull, and its triangles [m, 3] as indices of them, as MuJoCo has compiled it;
    those of the mesh where it has none."""
    start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    vertices = np.array(model.mesh_vert[start : start + count], dtype=np.float64)
    graph = int(model.mesh_graphadr[mesh])
    if graph < 0:
        first, number = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        return vertices, np.array(model.mesh_face[first : first + number], dtype=np.int64)
    corners, faces = (int(number) for number in model.mesh_graph[graph : graph + 2])
    own = np.array(model.mesh_graph[graph + 2 + corners : graph + 2 + 2 * corners], dtype=np.int64)
    at = graph + 2 + 3 * corners + 3 * faces
    order = np.argsort(own)
    places = np.searchsorted(own, model.mesh_graph[at : at + 3 * faces], sorter=order)
    return vertices[own], order[places].reshape(-1, 3)


def _link(model: mujoco.MjModel, body: int, shapes: dict[int, Shape], inverse: Array) -> Link:
    first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    indices = range(first, first + count)
    free = next((j for j in indices if int(model.jnt_type[j]) == int(_JOINT.mjJNT_FREE)), None)
    parent = int(model.body_parentid[body])
    pos, quat = np.array(model.body_pos[body]), np.array(model.body_quat[body])
    if model.body_weldid[parent] == 0 and parent:  # of something that is fixed to the world
        data = _placed(model)
        parent, pos, quat = 0, np.array(data.xpos[body]), np.array(data.xquat[body])
    of_free = None if free is None else (int(model.jnt_qposadr[free]), int(model.jnt_dofadr[free]))
    return Link(
        body, parent, pos, quat, float(model.body_mass[body]), np.array(model.body_ipos[body]),
        np.array(model.body_iquat[body]), np.array(model.body_inertia[body]),
        () if free is not None else tuple(_joint(model, j, inverse) for j in indices), of_free,
        tuple(shape for geom, shape in sorted(shapes.items()) if model.geom_bodyid[geom] == body),
    )  # fmt: skip


def _joint(model: mujoco.MjModel, j: int, inverse: Array) -> Joint:
    qpos, dof = int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j])
    low, high = (float(end) for end in model.jnt_range[j])
    limited = model.jnt_limited[j] and not model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_LIMIT)
    fields = (model.dof_damping, model.dof_armature, model.dof_frictionloss)
    damping, armature, frictionloss = (float(field[dof]) for field in fields)
    return Joint(
        j, qpos, dof, int(model.jnt_type[j]) == int(_JOINT.mjJNT_SLIDE), np.array(model.jnt_pos[j]),
        np.array(model.jnt_axis[j]), float(model.qpos0[qpos]), (low, high) if limited else None,
        damping, armature, frictionloss, float(inverse[dof, dof]),
    )  # fmt: skip
