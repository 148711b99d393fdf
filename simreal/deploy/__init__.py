"""Running exported policies on a robot: needs NumPy and ONNX Runtime, neither torch nor MuJoCo.

`Policy` answers; `Controller` runs it on a `Robot` at its rate and protects that; `PD` makes torques of targets;
`GoalSequence` has the goals of a plan follow one another.
"""

from .bundle_reader import BundleError
from .control.controller import Controller
from .control.events import Event
from .control.inner import PD
from .control.limits import Limits
from .control.robot import Reading, Robot
from .goals import GoalSequence
from .policy import Policy

__all__ = ["PD", "BundleError", "Controller", "Event", "GoalSequence", "Limits", "Policy", "Reading", "Robot"]
