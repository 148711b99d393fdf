"""Makes the update again that ended in NaN or infinity, from the state that the run kept.

    python -m simreal.training.replay_failure RUN/failure/step_N.safetensors

prints what is no longer finite after the update.
"""

from __future__ import annotations

import sys
from pathlib import Path

from envs.common.safe_yaml import FileError, parse_yaml
from simreal.common.errors import UserError
from simreal.training.checkpoint import FAILURES, load_checkpoint
from simreal.training.run_config import parse_config
from simreal.training.trainer import Trainer


def repeat_update(path: Path) -> list[str]:
    """Make the update that a file in RUN/failure comes before, and return what is not finite then."""
    content = load_checkpoint(path)
    try:
        document = parse_yaml(str(content["config"]))
    except (KeyError, FileError):
        raise UserError(f"{path}: holds no configuration") from None
    config = parse_config(document, str(path))
    alone = config.train.model_copy(update={"keep": "last"})  # the run's best policy is none of this
    trainer = Trainer(config.model_copy(update={"train": alone}), path.parent.parent)
    trainer.load(content)
    if not trainer.due:
        raise UserError(f"{path}: no update comes next; expected a file from RUN/{FAILURES}")
    return trainer.learn()


def main() -> None:
    """Entry point. Exit status 0 if the numbers were lost again, 1 if not, 2 for a wrong file."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m simreal.training.replay_failure RUN/failure/step_N.safetensors")
    try:
        broken = repeat_update(Path(sys.argv[1]))
    except UserError as error:
        print(f"simreal: {error}", file=sys.stderr)
        sys.exit(2)
    print("; ".join(broken) if broken else "every number is finite: it does not happen again on this machine")
    sys.exit(0 if broken else 1)


if __name__ == "__main__":
    main()
