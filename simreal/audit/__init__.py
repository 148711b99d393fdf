"""What is wrong on a robot: its log against the contract of the policy that ran on it; `audit` is the way in."""

from .audit import Audit, audit
from .findings import Finding

__all__ = ["Audit", "Finding", "audit"]
