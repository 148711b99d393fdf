"""A simulation in viser's scene: shapes are sent once, then the poses of bodies that moved, and shapes anew whose
colours have changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
import viser
from numpy.typing import NDArray

from envs.common.step_records import Mark
from simreal.vision.live.player import Contacts, Player, Points
from simreal.vision.live.shapes import WIDE_M, Triangles, body_shapes, colours_of, site_shape

_MOVED_M, _TURNED = 1e-5, 1e-6  # below which nobody sees it: of a place, and of a quaternion's values
_WORLD = "/world"
_CONTACT, _FORCE, _PUSH = (230, 150, 50), (200, 30, 30), (130, 40, 190)
_PUSH_M = 0.004  # length of a push, m/N
_LINES, _ABOVE_M = (120, 128, 138), 0.002  # of the ground: colour, and height above it
_PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)

Clicked = Callable[[int, Points], None]
"""Called with a body and the direction [3] in which somebody looks at it."""


@dataclass
class _Node:
    """What is drawn of a body or of a site.

    Attributes:
        frame: whose pose is sent.
        name: of the frame.
        kind: "body" or "site".
        index: in the model.
        pose: as sent: place and quaternion [7].
        meshes: in the frame.
        colours: that they were made with.
    """

    frame: Any
    name: str
    kind: str
    index: int
    pose: NDArray[np.float64] = field(default_factory=lambda: np.full(7, np.inf))
    meshes: list[Any] = field(default_factory=list)
    colours: bytes = b""


class Drawing:
    """A player's simulation in the scene of a server.

    Args:
        server: all its browsers see the same.
        player: what to show.
        clicked: told of bodies that were clicked.

    Attributes:
        follow: whether the robot stays in the middle.
        contacts: whether contacts and forces are drawn.
        offset: [3] by which the scene is moved to keep the robot in the middle.
        sent: messages with poses so far, for measurements.
    """

    def __init__(self, server: viser.ViserServer, player: Player, clicked: Clicked) -> None:
        self._server, self._player, self._clicked = server, player, clicked
        self.follow, self.contacts, self.sent, self.offset = True, False, 0, np.zeros(3)
        marks = player.look()
        model, task = player.model, player.environment.task.model
        apart = np.abs(np.hstack((model.site_pos - task.site_pos, model.site_quat - task.site_quat)))
        self._sites = np.flatnonzero((apart > _MOVED_M).any(axis=1))
        self._tracked = int(player.environment.task.render_camera.get("trackbodyid", -1))
        self._light(server.scene)
        self._root = server.scene.add_frame(_WORLD, show_axes=False)
        self._nodes: list[_Node] = []
        with server.atomic():
            self._add_bodies(model)
            for site in self._sites.tolist():
                self._add(f"site_{site}", "site", site)
        self._marks: list[Any] = []
        self._lines = self._points = None
        self._aim(marks)

    @staticmethod
    def _light(scene: viser.SceneApi) -> None:
        """One light from above and some from everywhere: viser's own, meant for photographs, bleach plain colours."""
        scene.configure_default_lights(enabled=False)
        scene.configure_environment_map(hdri=None)
        scene.add_light_ambient("/ambient", intensity=2.0)
        scene.add_light_directional("/sun", intensity=3.0, position=(1.0, -2.0, 4.0), cast_shadow=True)

    def _add_bodies(self, model: mujoco.MjModel) -> None:
        for body in range(model.nbody):
            self._add(f"body_{body}", "body", body)
        for geom in np.flatnonzero((model.geom_type == _PLANE) & (model.geom_size[:, 0] == 0.0)).tolist():
            if not model.geom_bodyid[geom]:  # without lines nobody sees how a robot moves over it
                self._server.scene.add_grid(
                    f"{_WORLD}/grid_{geom}", width=2 * WIDE_M, height=2 * WIDE_M, cell_size=0.5, section_size=2.5,
                    cell_color=_LINES, section_color=_LINES, position=model.geom_pos[geom] + [0.0, 0.0, _ABOVE_M],
                    wxyz=model.geom_quat[geom],
                )  # fmt: skip

    def _add(self, name: str, kind: str, index: int) -> None:
        """A node, where anything of it is to be seen."""
        if self._shapes(kind, index):
            frame = self._server.scene.add_frame(f"{_WORLD}/{name}", show_axes=False)
            self._nodes.append(_Node(frame, name, kind, index))
            self._draw(self._nodes[-1])

    def _shapes(self, kind: str, index: int) -> list[Triangles]:
        """What a node looks like now."""
        model = self._player.model
        if kind == "body":
            return body_shapes(model, index, frozenset(self._sites.tolist()))
        shape = site_shape(model, index)
        return [] if shape is None else [shape]

    def _draw(self, node: _Node) -> None:
        """Send a node's shapes, in place of those that it had."""
        for mesh in node.meshes:
            mesh.remove()
        model = self._player.model
        body = node.index if node.kind == "body" and model.body_weldid[node.index] else None  # that a click means
        node.colours, node.meshes = colours_of(model, node.kind, node.index), []
        for number, shape in enumerate(self._shapes(node.kind, node.index)):
            red, green, blue, alpha = shape.rgba
            mesh = self._server.scene.add_mesh_simple(
                f"{_WORLD}/{node.name}/{number}", shape.vertices.astype(np.float32), shape.faces.astype(np.uint32),
                color=(int(255 * red), int(255 * green), int(255 * blue)), opacity=None if alpha >= 1.0 else alpha,
                flat_shading=not shape.round, side="front" if body is None else "double",
                cast_shadow=body is not None,
            )  # fmt: skip
            if body is not None:
                mesh.on_click(lambda event, b=body: self._clicked(b, np.asarray(event.ray_direction, dtype=float)))
            node.meshes.append(mesh)

    def show(self) -> None:
        """Send what has moved, as one batch."""
        marks = self._player.look()
        with self._server.atomic():
            for node in self._nodes:
                self._send(node)
                if colours_of(self._player.model, node.kind, node.index) != node.colours:
                    self._draw(node)
            self._aim(marks)
            self._show_forces()

    def _pose(self, kind: str, index: int) -> NDArray[np.float64]:
        data = self._player.data
        if kind == "body":
            return np.concatenate((data.xpos[index], data.xquat[index]))
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, data.site_xmat[index])
        return np.concatenate((data.site_xpos[index], quat))

    def _send(self, node: _Node) -> None:
        pose, sent = self._pose(node.kind, node.index), node.pose
        if np.abs(pose[:3] - sent[:3]).max() > _MOVED_M:
            node.frame.position = pose[:3]
            self.sent += 1
        if np.abs(pose[3:] - sent[3:]).max() > _TURNED:
            node.frame.wxyz = pose[3:]
            self.sent += 1
        node.pose = pose

    def _aim(self, marks: Sequence[Mark]) -> None:
        """Keep what is followed in the middle, and put marks where they are."""
        offset = np.zeros(3)
        if self.follow and self._tracked > 0:
            offset[:2] = -self._player.data.xpos[self._tracked][:2]
        if np.abs(offset - self.offset).max() > _MOVED_M:
            self._root.position = self.offset = offset
        while len(self._marks) < len(marks):
            mark, name = marks[len(self._marks)], f"{_WORLD}/mark_{len(self._marks)}"
            size = mark.size or 0.015 * float(self._player.model.stat.extent)
            if mark.quat is None:
                red, green, blue, alpha = mark.rgba
                colour = (int(255 * red), int(255 * green), int(255 * blue))
                self._marks.append(self._server.scene.add_icosphere(name, radius=size, color=colour, opacity=alpha))
            else:
                length = mark.size or 5.0 * size
                self._marks.append(self._server.scene.add_frame(name, axes_length=length, axes_radius=0.06 * length))
        for handle, mark in zip(self._marks, marks, strict=False):
            handle.position = mark.pos
            if mark.quat is not None:
                handle.wxyz = mark.quat

    def _show_forces(self) -> None:
        """Draw contacts with their forces, and pushes."""
        found = self._player.contacts() if self.contacts else Contacts(np.zeros((0, 3)), np.zeros((0, 3)))
        model, data = self._player.model, self._player.data
        # As MuJoCo's viewer: a force as long as vis.map.force / stat.meanmass makes it
        lengths = float(model.vis.map.force) / max(float(model.stat.meanmass), 1e-9)
        ends = found.places + lengths * found.forces
        segments, colours = [np.stack((found.places, ends), axis=1)], [np.full((len(ends), 2, 3), _FORCE)]
        for push in self._player.pushes:
            if push.steps > 0:
                at = data.xipos[push.body]
                segments.append(np.stack((at - _PUSH_M * push.force, at))[None])
                colours.append(np.full((1, 2, 3), _PUSH))
        self._redraw(found.places, np.concatenate(segments), np.concatenate(colours))

    def _redraw(self, places: Points, segments: NDArray[np.float64], colours: NDArray[Any]) -> None:
        scene = self._server.scene
        if len(segments):
            self._lines = scene.add_line_segments(
                f"{_WORLD}/forces", segments.astype(np.float32), colours.astype(np.uint8), thickness=3.0,
                thickness_units="screen",
            )  # fmt: skip
        elif self._lines is not None:
            self._lines.remove()
            self._lines = None
        if len(places):
            self._points = scene.add_point_cloud(
                f"{_WORLD}/contacts", places.astype(np.float32), _CONTACT, point_size=0.012, point_shape="circle"
            )
        elif self._points is not None:
            self._points.remove()
            self._points = None
