"""Running exported policies on a robot: needs NumPy and ONNX Runtime, neither torch nor MuJoCo."""

from .bundle_reader import BundleError
from .policy import Policy

__all__ = ["BundleError", "Policy"]
