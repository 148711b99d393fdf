"""Running exported policies on a robot: needs NumPy and ONNX Runtime, neither torch nor MuJoCo."""

from .bundle import BundleError
from .policy import Policy

__all__ = ["BundleError", "Policy"]
