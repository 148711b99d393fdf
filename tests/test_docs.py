"""The commands in docs/ run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from robots import skip_if_missing
from simreal.describe import quantity_tables

DOCS = Path(__file__).resolve().parent.parent / "docs"
# A block that names a file (```python cartpole.py) is that file; the others in bash and python are run.
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


# deploy.md needs a robot: tests/test_export.py runs its code with one made up.
@pytest.mark.parametrize("page", sorted({path.name for path in DOCS.glob("*.md")} - {"deploy.md"}))
def test_commands_in_docs_run(page: str, tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    blocks = _BLOCK.findall((DOCS / page).read_text())
    assert {"bash", "python"} & {language for language, file, _ in blocks if not file}, f"{page} shows no command"
    for language, file, code in blocks:
        if file:
            (tmp_path / file).write_text(code)
            continue
        if language not in ("bash", "python"):
            continue
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            skip_if_missing(done.stderr)
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stderr}"


def test_the_tables_of_quantities_are_those_of_the_registry() -> None:
    _, _, section = (DOCS / "randomize.md").read_text().partition("## Every quantity\n")
    # To mend it: replace everything from **Physics** on by the output of this function.
    assert section[section.index("**Physics**") :] == quantity_tables().lstrip()
