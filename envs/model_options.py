"""Options of models with which no engine can run them: said in one line, before anything is made."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco

_ENABLE = mujoco.mjtEnableBit
_KEPT_ELSEWHERE = {  # flags whose bookkeeping is not part of a simulation's state: it cannot be reset or resumed
    "sleep": int(_ENABLE.mjENBL_SLEEP),
    "ipc": int(_ENABLE.mjENBL_IPC),
}
_CALLBACKS = ("act_bias", "act_dyn", "act_gain", "contactfilter", "control", "passive", "sensor", "time")


def model_problems(model: mujoco.MjModel) -> Iterator[str]:
    """What keeps a model from being run, and what to switch off."""
    for flag, bit in _KEPT_ELSEWHERE.items():
        if model.opt.enableflags & bit:
            yield (
                f'the flag {flag}="enable" keeps more than a simulation\'s state, which cannot be reset: switch it off '
                f'(<option><flag {flag}="disable"/></option>)'
            )


def callback_problems() -> Iterator[str]:
    """Functions of Python that MuJoCo is to call in every simulation, which it cannot do on threads of its own."""
    for name in _CALLBACKS:
        if getattr(mujoco, f"get_mjcb_{name}")() is not None:
            yield (
                f"a callback is installed with mujoco.set_mjcb_{name}, which batched simulations cannot call: take it "
                f"back (mujoco.set_mjcb_{name}(None)) and write what it does in the task's hooks"
            )
