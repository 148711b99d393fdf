"""Running exported policies on a robot: needs NumPy and ONNX Runtime, neither torch nor MuJoCo.

`Policy` answers; `Controller` runs it on a `Robot` at its rate and protects that; `PD` makes torques of targets;
`GoalSequence` has the goals of a plan follow one another; `Estimator` reads pictures, and `SeeingPolicy` acts on that.
"""

from .control.controller import Controller
from .control.events import Event
from .control.inner import PD
from .control.limits import Limits
from .control.robot import Reading, Robot
from .files import BundleError
from .goals import GoalSequence
from .policy import Policy
from .seeing.estimator import Estimator, SeeingPolicy

__all__ = [
    "PD", "BundleError", "Controller", "Estimator", "Event", "GoalSequence", "Limits", "Policy", "Reading", "Robot",
    "SeeingPolicy",
]  # fmt: skip
