"""Running exported policies on a robot: needs NumPy and ONNX Runtime, neither torch nor MuJoCo."""

from .bundle_reader import BundleError
from .control.events import Event
from .control.robot import Reading, Robot
from .policy import Policy

__all__ = ["BundleError", "Event", "Policy", "Reading", "Robot"]
