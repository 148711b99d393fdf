"""What a run leaves behind when its numbers are lost: the state before the update that lost them.

    python -m simreal.failure RUN/failure/step_N.pt

makes that update again and prints what is no longer finite.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from randomization.untrusted import FileError, parse_yaml
from simreal.errors import UserError
from simreal.files import cannot_write, write_text

FOLDER = "failure"


def save_failed_update(run: Path, checkpoint: Path, broken: list[str]) -> Path:
    """Put a checkpoint of the state before the failed update into RUN/failure, with a note. Raises UserError."""
    kept = run / FOLDER / checkpoint.name
    try:
        kept.parent.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)
        try:
            os.link(checkpoint, kept)  # needs no space
        except OSError:
            shutil.copyfile(checkpoint, kept)
    except OSError as error:
        raise cannot_write(kept, error) from None
    write_text(
        kept.parent / "README.txt",
        f"{kept.name} is the state before an update after which {', '.join(broken)}.\n"
        f"To make that update again: python -m simreal.failure {kept}\n",
    )
    return kept


def repeat_update(path: Path) -> list[str]:
    """Make the update that a file in RUN/failure comes before, and return what is not finite then."""
    from simreal.checkpoint import load_checkpoint
    from simreal.config import parse_config
    from simreal.train import Trainer

    content = load_checkpoint(path)
    try:
        document = parse_yaml(str(content["config"]))
    except (KeyError, FileError):
        raise UserError(f"{path}: holds no configuration") from None
    trainer = Trainer(parse_config(document, str(path)), path.parent.parent)
    trainer.load(content)
    if not trainer.learner.ready():
        raise UserError(f"{path}: no update comes next; expected a file from RUN/{FOLDER}")
    return trainer.learn()


def main() -> None:
    """Entry point. Exit status 0 if the numbers were lost again, 1 if not, 2 for a wrong file."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m simreal.failure RUN/failure/step_N.pt")
    try:
        broken = repeat_update(Path(sys.argv[1]))
    except UserError as error:
        print(f"simreal: {error}", file=sys.stderr)
        sys.exit(2)
    print("; ".join(broken) if broken else "every number is finite: it does not happen again on this machine")
    sys.exit(0 if broken else 1)


if __name__ == "__main__":
    main()
