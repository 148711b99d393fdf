"""What the tests of the GPU engine share: one small model with all kinds of things in it, and a pair of engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from envs.engines.cpu import CpuEngine
from envs.engines.gpu.options import GpuOptions

pytest.importorskip("mujoco_warp")

from envs.engines.gpu.engine import GpuEngine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# A free box on a plane, a free load welded to a mocap body, an arm with a limit on a servo, a ball on a height field.
WORLD = """
<mujoco>
  <option timestep="0.002"/>
  <asset>
    <hfield name="hills" nrow="3" ncol="3" size="1 1 0.2 0.1" elevation="0 .5 0  .5 1 .5  0 .5 0"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="3 3 1"/>
    <geom name="hills" type="hfield" hfield="hills" pos="6 0 0"/>
    <body name="box" pos="0 0 0.105"><freejoint/><geom name="box" type="box" size="0.1 0.1 0.1" mass="1"/></body>
    <body name="hand" mocap="true" pos="0 1 0.5"/>
    <body name="load" pos="0 1 0.5"><freejoint/><geom name="load" size="0.05" mass="1"/></body>
    <body name="arm" pos="0 -1 1">
      <joint name="hinge" axis="0 1 0" damping="0.1" range="-0.3 0.3" limited="true"/>
      <geom name="arm" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.5"/>
      <site name="tip" pos="0.3 0 0"/>
    </body>
    <body name="ball" pos="6.3 0.2 0.35"><freejoint/><geom name="ball" size="0.1" mass="1"/></body>
  </worldbody>
  <equality><weld body1="hand" body2="load"/></equality>
  <actuator><position name="servo" joint="hinge" kp="20" kv="1"/></actuator>
  <sensor><jointpos joint="hinge"/><framelinvel objtype="site" objname="tip"/><accelerometer site="tip"/></sensor>
</mujoco>
"""
STATE = ("qpos", "qvel", "ctrl", "mocap_pos", "mocap_quat", "qacc_warmstart", "time")
DERIVED = ("xpos", "xquat", "site_xpos", "site_xmat", "geom_xpos", "subtree_com", "cvel", "cdof", "sensordata")


def pair(num_envs: int = 3, xml: str = WORLD, **options: Any) -> tuple[CpuEngine, GpuEngine]:
    """The same simulations on both engines."""
    model = mujoco.MjModel.from_xml_string(xml)
    return CpuEngine(model, num_envs, 1), GpuEngine(model, num_envs, DEVICE, GpuOptions(**options))


def gpu(num_envs: int = 3, **options: Any) -> GpuEngine:
    """Simulations of `WORLD` on the GPU engine."""
    return GpuEngine(mujoco.MjModel.from_xml_string(WORLD), num_envs, DEVICE, GpuOptions(**options))


def copy_state(source: CpuEngine, target: GpuEngine) -> None:
    """Bring both engines to the state of the first, rounded to what the second can hold, derived fields included."""
    for name in STATE:
        values = source.data(name).float()
        source.data(name).copy_(values)
        target.data(name).copy_(values)
    source.forward()
    target.forward()


def shake(*engines: CpuEngine | GpuEngine, seed: int = 0) -> None:
    """Give every simulation a velocity and a control of its own, the same on all engines."""
    for name, size in (("qvel", 0.5), ("ctrl", 0.3)):
        generator = torch.Generator().manual_seed(seed)
        noise = size * torch.randn(engines[0].data(name).shape, generator=generator)
        for engine in engines:
            engine.data(name).copy_(noise)
    for engine in engines:
        engine.forward()


def bind(names: Sequence[str], *engines: CpuEngine | GpuEngine) -> None:
    """Have engines keep derived fields from now on."""
    for engine in engines:
        for name in names:
            engine.data(name)


def far(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors, wherever they are."""
    return float((a.double().cpu() - b.double().cpu()).abs().max()) if a.numel() else 0.0


def mask_of(engine: Any, *chosen: int) -> Tensor:
    """A mask [N] of the chosen simulations, on the engine's device."""
    mask = torch.zeros(engine.num_envs, dtype=torch.bool, device=engine.device)
    mask[list(chosen)] = True
    return mask
