"""Which derived fields of mjData each stage of MuJoCo's forward pipeline computes, from kinematics on."""

from __future__ import annotations

import mujoco
import numpy as np

_POSITION = int(mujoco.mjtStage.mjSTAGE_POS)
_VELOCITY = int(mujoco.mjtStage.mjSTAGE_VEL)
_ACCELERATION = int(mujoco.mjtStage.mjSTAGE_ACC)
_OF_POSITION = (
    "xpos xquat xmat xipos xiquat ximat xanchor xaxis geom_xpos geom_xmat geom_xquat site_xpos site_xmat site_xquat "
    "cam_xpos cam_xmat light_xpos light_xdir subtree_com cdof cinert crb M qLD qLDiagInv ten_length ten_J ten_wrapadr "
    "ten_wrapnum wrap_obj wrap_xpos actuator_length actuator_moment moment_rownnz moment_rowadr moment_colind "
    "flexvert_xpos flexelem_aabb flexedge_length flexedge_J bvh_aabb_dyn bvh_active"
)
_OF_CONTACTS = "ncon ne nf nl nefc nJ nA nidof nisland"  # the position stage's, less its kinematics
_OF_VELOCITY = (
    "cvel cdof_dot qfrc_bias qfrc_passive qfrc_spring qfrc_damper qfrc_gravcomp qfrc_fluid ten_velocity "
    "actuator_velocity flexedge_velocity subtree_linvel subtree_angmom"
)


def later_columns(model: mujoco.MjModel, name: str, size: int, stage: int, contacts: bool = True) -> np.ndarray:
    """Entries along the first axis of an mjData field that the stages up to `stage` leave as they were.

    Args:
        model: the nominal model; its sensors say at which stage each is read.
        name: of the field.
        size: of its first axis (a number counts as one).
        stage: one of mjtStage, the last that is computed.
        contacts: whether contacts and constraints are part of the position stage.

    Returns:
        Ascending indices: none where all of the field is computed. A field that is in no table here is one of the
        last stage.
    """
    return np.flatnonzero(_stages(model, name, size, contacts) > stage)


def _stages(model: mujoco.MjModel, name: str, size: int, contacts: bool) -> np.ndarray:
    if name == "sensordata":
        return np.repeat(model.sensor_needstage, model.sensor_dim)
    if name == "energy":  # potential, kinetic
        return np.array([_POSITION, _VELOCITY])
    if name in _OF_POSITION.split() or (contacts and name in _OF_CONTACTS.split()):
        stage = _POSITION
    else:
        stage = _VELOCITY if name in _OF_VELOCITY.split() else _ACCELERATION
    return np.full(size, stage)
