"""What Adroit's tasks of gymnasium-robotics (Rajeswaran et al. 2018, arXiv 1709.10087) share, batched.

The tasks are in `tasks`. They equal gymnasium-robotics' AdroitHand Door, Hammer, Pen and Relocate (v1, dense and
sparse) step by step. Positions of bodies and sites are those of the last evaluation of the dynamics, one physics step
behind the joints.

Action: targets of the servos of arm (a force of 500 times the target minus 200 times the position) and hand. Control
period 0.01 s.

Every episode puts part of the scene elsewhere: the door, the nail's board, the pen's target, the ball and its target.
Those positions are values of the model, per environment; they are added to what randomization makes of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from envs.engines.base import Engine, write_rows
from envs.manipulation.shadow_hand.common import HandTask, joint_components
from envs.platform.gymnasium_robotics_patch import robotics_asset
from envs.task import Component, Outcome, SpecEdit, compile_spec, id_of, spec_edits

_SPARSE_REWARD = (-0.1, 10.0)  # without and with success
_ACTUATOR, _BODY, _SITE = mujoco.mjtObj.mjOBJ_ACTUATOR, mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_SITE


@cache
def load_adroit(xml: str, full: tuple[int, ...], _edits: tuple[SpecEdit, ...]) -> mujoco.MjModel:
    """A model with gymnasium-robotics' gains of wrist and fingers, set after compilation as there. `full`: see
    `compile_spec`, which makes the `_edits`."""
    model = compile_spec(mujoco.MjSpec.from_file(str(robotics_asset("adroit_hand", xml))), full)
    for first, last, gain in (("A_WRJ1", "A_WRJ0", 10.0), ("A_FFJ3", "A_THJ0", 1.0)):
        servos = slice(id_of(model, _ACTUATOR, first), id_of(model, _ACTUATOR, last) + 1)
        model.actuator_gainprm[servos, :3] = (gain, 0.0, 0.0)
        model.actuator_biasprm[servos, :3] = (0.0, -gain, 0.0)
    return model


class ResetRange:
    """Values in one row of a model field that every episode draws anew, on top of what randomization writes there.

    Args:
        engine: the simulations.
        field, row: which values [k].
        low, high: [k] between what they are drawn, in the nominal world; None for a value that stays.
    """

    def __init__(
        self, engine: Engine, field: str, row: int, low: Sequence[float | None], high: Sequence[float | None]
    ) -> None:
        self._live = engine.field(field)[:, row]  # [N, k]
        nominal = engine.nominal(field)[row]
        self._nominal = nominal.to(engine.device, engine.dtype)  # [k]
        self._low, self._high = (
            self._nominal.new_tensor([n if x is None else x for n, x in zip(nominal.tolist(), ends, strict=True)])
            for ends in (low, high)
        )

    def restore(self, mask: Tensor) -> None:
        """Write the nominal values in the environments of `mask` [N]."""
        write_rows(self._live, self._nominal, mask)

    def draw(self, mask: Tensor, u: Tensor) -> None:
        """Write values of the range, for numbers u [N, k] in (0, 1), in the environments of `mask` [N]."""
        self.write(mask, self._low + u.to(self._low.dtype) * (self._high - self._low))

    def write(self, mask: Tensor, values: Tensor) -> None:
        """Write values [N, k], given for the nominal world, in the environments of `mask` [N]."""
        write_rows(self._live, self._live + (values - self._nominal), mask)


class AdroitTask(HandTask):
    """One of the Adroit tasks, for N environments.

    Args:
        sparse: reward is 10 with success and -0.1 without.
    """

    decimation = 5
    max_episode_steps = 200
    name: ClassVar[str]
    start: ClassVar[int] = 0  # joints before the first observed one
    joints: ClassVar[int]  # observed joints of arm and hand

    def __init__(self, sparse: bool = False) -> None:
        self.id = f"AdroitHand{self.name}{'Sparse' if sparse else ''}-v1"
        self.sparse = sparse
        self.compile_full(())
        robot = range(self.start, self.start + self.joints)
        self.observation = (*joint_components(self.model, "joint_pos", robot, "position"), *self.parts())

    def compile_full(self, bodies: Sequence[int]) -> None:
        self.use_servos(load_adroit(f"adroit_{self.name.lower()}.xml", tuple(bodies), spec_edits()))

    def on_attach(self) -> None:
        super().on_attach()
        self._site_xpos, self._xpos = self.engine.data("site_xpos"), self.engine.data("xpos")
        self._xquat = self.engine.data("xquat")
        self._joint_pos = self._qpos[:, self.start : self.start + self.joints]
        self._palm = self.site("S_grasp")
        self._slices = self.slices()
        self._ranges = self.reset_ranges()

    @abstractmethod
    def parts(self) -> tuple[Component, ...]:
        """Components of the observation that follow the joints."""

    @abstractmethod
    def reset_ranges(self) -> tuple[ResetRange, ...]:
        """What an episode puts elsewhere: positions."""

    def site(self, name: str) -> Tensor:
        """Live world positions [N, 3] of a site, m."""
        return self._site_xpos[:, id_of(self.model, _SITE, name)]

    def body(self, name: str) -> Tensor:
        """Live world positions [N, 3] of a body, m."""
        return self._xpos[:, id_of(self.model, _BODY, name)]

    def before_reset(self, mask: Tensor) -> None:
        for drawn in self._ranges:
            drawn.restore(mask)

    def reset(self, mask: Tensor) -> None:
        for i, drawn in enumerate(self._ranges):
            drawn.draw(mask, self.rng.episode_uniform(f"place{i}", 3))

    @abstractmethod
    def reward_and_success(self) -> tuple[Tensor, Tensor]:
        """Dense reward [N] and success [N]."""

    def outcome(self, action: Tensor) -> Outcome:
        reward, success = self.reward_and_success()
        if self.sparse:
            without, with_success = _SPARSE_REWARD
            reward = torch.full_like(reward, without).masked_fill(success, with_success)
        return Outcome(reward, torch.zeros_like(success), success)
