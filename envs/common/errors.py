"""Errors of the lowest floor that a user meets: one line that says what was wrong and what was expected."""

from __future__ import annotations


class TaskError(ValueError):
    """A task that cannot be used; the message says why in one line."""


class UnknownTaskError(TaskError):
    """A task id that does not exist; the message names the nearest one."""


class UnknownOptionError(UnknownTaskError):
    """A task option that does not exist; the message names the nearest one."""


class ModelUnavailableError(UnknownTaskError):
    """A robot model is not on this machine and cannot be fetched; the message says what to do."""


class UnknownRobotError(ModelUnavailableError):
    """There is no such robot, or it has no such model."""


class EngineError(ValueError):
    """Something that an engine cannot run as asked; one line that says what to do."""
