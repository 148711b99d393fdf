"""Running exported policies on a robot: needs NumPy and ONNX Runtime, neither torch nor MuJoCo."""

from simreal.deploy.policy import BundleError, Policy

__all__ = ["BundleError", "Policy"]
