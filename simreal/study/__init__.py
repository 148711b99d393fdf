"""Several trainings and their evaluations, described in one file and made by one command."""

from simreal.study.runner import study_command

__all__ = ["study_command"]
