"""Which wrapper of Gymnasium's is waiting for a call: nothing else tells an environment what wraps it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any


def callers(method: Callable[..., Any], environment: Any) -> Iterator[Any]:
    """The wrappers around `environment` whose `method`, such as `TimeLimit.reset`, is running: innermost first."""
    code, frame = method.__code__, sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            wrapper = frame.f_locals["self"]
            if wrapper.unwrapped is environment:
                yield wrapper
        frame = frame.f_back
