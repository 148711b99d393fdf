"""Chooses how MuJoCo renders on machines without a display. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import os
import sys


def choose_gl_backend() -> None:
    """Set MUJOCO_GL to EGL, or else OSMesa, where there is no display; a value that is set already stays.

    MuJoCo reads the variable when it is imported, so this has to come before.
    """
    if sys.platform != "linux" or "mujoco" in sys.modules:
        return
    if os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return
    for backend, library in (("egl", "libEGL.so.1"), ("osmesa", "libOSMesa.so.8"), ("osmesa", "libOSMesa.so.6")):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        os.environ["MUJOCO_GL"] = backend
        return
