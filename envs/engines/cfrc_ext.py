"""Makes MuJoCo compute the external forces on bodies, `cfrc_ext`, at the end of every physics step.

MuJoCo computes `cfrc_ext` (contacts above all) only when asked to, by `mj_rnePostConstraint`. A sensor that needs
it asks, but under the Runge-Kutta integrator sensors see the first of the four stages of a step, whereas everything
else that a step leaves behind (xpos, cvel, qfrc_actuator, ...) belongs to the last one, and so does the `cfrc_ext` of
Gymnasium, which calls the function after stepping. The two differ by the size of the forces themselves.

`mujoco.batch.Batch` calls nothing after a step, but an engine plugin's `advance` callback runs there: in C, on the
batch's threads. Its signature is that of `mj_rnePostConstraint` with an instance id appended, which a C function
ignores. So the plugin below has no code of its own: it is a table with pointers to functions of libmujoco. It changes
no state and no dynamics, and costs about 2 % of a step of Gymnasium's Ant.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

import mujoco

_NAME = "simreal.body_forces"
_plain: WeakKeyDictionary[mujoco.MjModel, mujoco.MjModel] = WeakKeyDictionary()
_CALLBACKS = ("nstate", "nsensordata", "init", "destroy", "copy", "reset", "compute", "advance")


class _Plugin(ctypes.Structure):
    """`mjpPlugin` of mujoco/mjplugin.h. What follows `advance` is optional and stays null."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("nattribute", ctypes.c_int),
        ("attributes", ctypes.c_void_p),
        ("capabilityflags", ctypes.c_int),
        ("needstage", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in _CALLBACKS),
        ("rest", ctypes.c_void_p * 64),
    )


@cache
def _libmujoco() -> ctypes.CDLL:
    """The library that the mujoco package has loaded."""
    folder = Path(mujoco.__file__).parent
    found = sorted(p for pattern in ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll") for p in folder.glob(pattern))
    if not found:
        raise ImportError(f"libmujoco is not in {folder}, where the mujoco package keeps it")
    return ctypes.CDLL(str(found[0]))


@cache
def _register() -> _Plugin:
    """Register the plugin with MuJoCo, once per process. The table has to outlive the models that use it."""
    library = _libmujoco()
    pointer = lambda name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value  # noqa: E731
    # Callbacks that MuJoCo requires: nstate is the size of state component 0, that is of none: 0; init may return
    # anything that is not negative, and reset has nothing to do: both ask for the version.
    plugin = _Plugin(
        name=_NAME.encode(),
        nstate=pointer("mj_stateSize"),
        init=pointer("mj_version"),
        reset=pointer("mj_version"),
        advance=pointer("mj_rnePostConstraint"),
    )
    if library.mjp_registerPlugin(ctypes.byref(plugin)) < 0:
        raise ImportError(f"MuJoCo {mujoco.mj_versionString()} does not accept the plugin {_NAME}")
    return plugin


def compute_body_forces(spec: mujoco.MjSpec) -> None:
    """Have models compiled from `spec` keep `cfrc_ext` (and cacc, cfrc_int) current with the other derived fields.

    It is the force at the last evaluation of the dynamics in a step. `forward` does not compute it: after a reset the
    field holds what an earlier step left.
    """
    _register()
    spec.activate_plugin(_NAME)
    spec.add_plugin(name="body_forces", plugin_name=_NAME)


def note_plain(model: mujoco.MjModel, plain: mujoco.MjModel) -> None:
    """Note that `plain` is the same model without the plugin, for engines that compute `cfrc_ext` themselves."""
    _plain[model] = plain


def without_plugin(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model that `note_plain` noted for `model`; without one, `model` itself."""
    return _plain.get(model, model)
