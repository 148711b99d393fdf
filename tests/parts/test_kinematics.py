"""Poses and Jacobians of chains, against MuJoCo's; what sends a tool a step, against the step that it then makes."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from envs.common.spatial import matrix_to_quat, quat_to_matrix
from envs.parts.kinematics import Kinematics, chain_to, damped_least_squares

# Off-centre anchors, two joints in one body, reference coordinates, turned bodies, a site and a geom that are turned.
MODEL = """
<mujoco>
  <worldbody>
    <body name="mount" pos="0.1 -0.2 0.3" euler="20 -30 40">
      <body name="ship" pos="0 0.1 0" euler="5 0 0">{joint}
        <geom size="0.05"/>
        <body name="boom" pos="0.2 0.1 -0.1" euler="0 50 10">
          <joint name="swing" axis="1 2 3" pos="0.05 -0.02 0.01" ref="30"/>
          <joint name="lift" type="slide" axis="0 1 1" pos="0.1 0 0" ref="0.2"/>
          <geom size="0.05"/>
          <body name="wrist" pos="-0.1 0.3 0.2" euler="70 0 -20">
            <joint name="ball" type="ball" pos="0.03 0.02 0.01"/>
            <geom size="0.05"/>
            <body name="hand" pos="0 0 0.2">
              <joint name="grip" axis="0 0 1" pos="0 0.1 0"/>
              <geom name="palm" type="box" size="0.1 0.1 0.02" pos="0.01 0.02 0.03" euler="10 20 30"/>
              <site name="tip" pos="0.05 0 0.1" euler="0 90 15"/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""
HINGED = '<joint name="base" axis="0 0 1"/>'


def floating() -> str:
    """The same without the mount: the ship floats."""
    inner = MODEL[MODEL.index('      <body name="ship"') : MODEL.rindex("    </body>\n  </worldbody>")]
    return "<mujoco><worldbody>" + inner.format(joint='<freejoint name="float"/>') + "</worldbody></mujoco>"


def random_states(model: mujoco.MjModel, count: int) -> np.ndarray:
    """Coordinates [count, nq] all over the place, with quaternions of any length."""
    rng = np.random.default_rng(0)
    return rng.uniform(-2.0, 2.0, (count, model.nq))


@pytest.mark.parametrize("xml", [MODEL.format(joint=HINGED), floating()], ids=["hinged", "floating"])
@pytest.mark.parametrize("tip", ["hand", "palm", "tip", "ship"])
def test_poses_and_jacobians_are_those_of_mujoco(xml: str, tip: str) -> None:
    model = mujoco.MjModel.from_xml_string(xml)
    data, states = mujoco.MjData(model), random_states(model, 20)
    chain = chain_to(model, tip)
    kinematics = Kinematics(chain, torch.float64, torch.device("cpu"))
    q = torch.from_numpy(states)[:, chain.addresses("qpos")]
    pos, rot = kinematics.pose(q)
    jacobian, columns = kinematics.jacobian(q), chain.addresses("dof")
    thing = data.body(tip) if tip in ("hand", "ship") else data.site(tip) if tip == "tip" else data.geom(tip)
    body = model.body(tip).id if tip in ("hand", "ship") else model.body("hand").id
    for i, state in enumerate(states):
        data.qpos[:] = state
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        np.testing.assert_allclose(pos[i], thing.xpos, atol=1e-9)
        np.testing.assert_allclose(rot[i].ravel(), thing.xmat, atol=1e-9)
        jacp, jacr = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, jacp, jacr, thing.xpos, body)
        np.testing.assert_allclose(jacobian[i], np.concatenate((jacp, jacr))[:, columns], atol=1e-9)


def test_a_chain_may_start_at_any_body_that_carries_the_tip() -> None:
    model = mujoco.MjModel.from_xml_string(floating())
    data = mujoco.MjData(model)
    chain = chain_to(model, "tip", root="boom")
    assert chain.joints == ("ball", "grip")
    data.qpos[:] = random_states(model, 1)[0]
    mujoco.mj_kinematics(model, data)
    q = torch.from_numpy(data.qpos.copy())[None, chain.addresses("qpos")]
    pos, _ = Kinematics(chain, torch.float64, torch.device("cpu")).pose(q)
    boom = data.body("boom")
    np.testing.assert_allclose(pos[0], boom.xmat.reshape(3, 3).T @ (data.site("tip").xpos - boom.xpos), atol=1e-9)


@pytest.mark.parametrize(
    ("tip", "root", "message"),
    [
        ("tap", "world", "no body, site or geom named 'tap'"),
        ("tip", "bom", "no body named 'bom'"),
        ("ship", "hand", "'hand' does not carry 'ship'"),
    ],
)
def test_a_chain_that_is_none_is_refused(tip: str, root: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chain_to(mujoco.MjModel.from_xml_string(floating()), tip, root)


def test_rotation_matrices_become_the_quaternions_that_they_came_from() -> None:
    quat = torch.randn(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    half_turns = torch.cat((torch.zeros(3, 1), torch.eye(3)), dim=1).double()
    quat = torch.cat((quat / quat.norm(dim=1, keepdim=True), half_turns))
    back = matrix_to_quat(quat_to_matrix(quat))
    assert (back[:, 0] >= 0.0).all()
    torch.testing.assert_close((back * quat).sum(dim=1).abs(), torch.ones(503, dtype=torch.float64))


def test_damped_least_squares_are_what_the_formula_says() -> None:
    # J = [3 4], damping 5, step 10: dq = [3 4] 10 / (25 + 25) = [0.6 0.8]
    found = damped_least_squares(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[10.0]]), 5.0)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8]]))
