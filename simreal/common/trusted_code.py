"""Code that a configuration, a run or a bundle names: `task: module:Class` makes Python import a module.

What you write in a configuration of your own, or on the command line, is imported; modules of the current folder are
found too. A run or a bundle may come from someone else, so what it names is imported only if

- it is an id: simreal's, or one that an installed package announces as an entry point of `simreal.tasks`;
- or a `module:Class` from a package that announces tasks, or from a module that this process has imported already;
- or the same name stands on the command line (`--task`);
- or this user has made that very run or bundle on this machine, for that task and from the current folder
  (`simreal.common.made_here`): the code is then the user's own, and has run before.

Of tasks, only a subclass of `simreal.Task` is called. A learner or a quantity is named by an id only: simreal's, or one
that an installed package announces as an entry point of `simreal.learners` or `simreal.quantities`. Then its module is
imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from envs.platform.entry_points import entry_points
from envs.registry import ENTRY_POINTS
from simreal.common.errors import UserError
from simreal.common.made_here import remember, was_made_here

_trusted: set[str] = set()  # names of tasks that the user has written in this process


def use_current_folder() -> None:
    """Let Python find modules of the current folder, after everything that is installed."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())


def trust(task: str) -> None:
    """From now on let this process import the module that a task's name says, of the current folder too."""
    use_current_folder()
    _trusted.add(task)


def module_of(task: Any) -> str | None:
    """The module that a task's name makes Python import; None for an id."""
    if not isinstance(task, str):
        return None
    module = task.removeprefix("gymnasium:").rpartition(":")[0]
    return module or None


def check_code(task: Any, source: str, named: str | None = None, made: Path | None = None) -> None:
    """Refuse to import what a run or bundle names, unless that is safe or wanted; see above.

    Args:
        task: as the run or bundle has it.
        source: the file, for the message.
        named: what the user says on the command line; None for nothing.
        made: the directory of the run or bundle, where there is one.

    Raises:
        UserError: naming what to add to the command.
    """
    if named is not None and named != task:
        raise UserError(f"--task {named}: {source} is about task {task!r}")
    module = module_of(task)
    wanted = named is not None or task in _trusted
    if module is None or wanted or module in sys.modules or _announces_tasks(module):
        return
    if made is not None and was_made_here(made, task):
        use_current_folder()
        return
    raise UserError(
        f"{source}: its task is code of module {module!r}, which no installed package announces; "
        f"if that code is yours or you trust it, add --task {task}"
    )


def naming(task: str, made: Path | None = None) -> str:
    """What a command has to add to be let import a task's code: " --task module:Class", or nothing; `made`: the run
    that the command is about."""
    module = module_of(task)
    if module is None or _announces_tasks(module) or (made is not None and was_made_here(made, task)):
        return ""
    return f" --task {task}"


def remember_made(made: Path, task: str) -> None:
    """Note a run or bundle whose task is code that no package announces, so that later commands do not ask for it."""
    if naming(task, made):
        remember(made, task)


def _announces_tasks(module: str) -> bool:
    """Whether the package that a module belongs to announces tasks of simreal's."""
    package = module.partition(".")[0]
    return any(entry.module.partition(".")[0] == package for entry in entry_points(ENTRY_POINTS))
