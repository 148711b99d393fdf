"""Chooses how MuJoCo renders on machines without a display. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import os
import sys

_LIBRARIES = (("egl", "libEGL.so.1"), ("osmesa", "libOSMesa.so.8"), ("osmesa", "libOSMesa.so.6"))
_KNOWN = ("egl", "osmesa", "glfw", "glx", "enable", "enabled", "on", "true", "1")
_OFF = ("disable", "disabled", "off", "false", "0")

problem = ""  # what is wrong with the backend that MUJOCO_GL names, in words


def choose_gl_backend() -> None:
    """Set MUJOCO_GL to EGL, or else OSMesa, where there is no display; a value that is set already stays, unless MuJoCo
    cannot even be imported with it: then rendering is off, and `problem` says why.

    MuJoCo reads the variable when it is imported, so this has to come before.
    """
    if sys.platform != "linux" or "mujoco" in sys.modules:
        return
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted:
        _check(wanted)
        return
    if os.environ.get("DISPLAY"):
        return
    for backend, library in _LIBRARIES:
        if _loads(library):
            os.environ["MUJOCO_GL"] = backend
            return


def _check(wanted: str) -> None:
    """Switch rendering off where MuJoCo 4.0.0 would raise on import: an unknown backend, or one without its library."""
    global problem
    own = [library for backend, library in _LIBRARIES if backend == wanted]
    if wanted in _OFF or (wanted in _KNOWN and (not own or any(map(_loads, own)))):
        return
    why = f"{own[0]} is not installed" if own else "there is no such backend"
    problem = f"MUJOCO_GL is {wanted!r}, and {why}"
    os.environ["MUJOCO_GL"] = _OFF[0]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
