"""Build the API reference from the docstrings: what users may call, one page for each public module.

    python docs/reference.py [FOLDER]     # default: build/reference, which git ignores

Warnings are errors, and so is a public name without a docstring or one that is missing on its page.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.render

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = ("simreal", "simreal.deploy", "simreal.gym.sb3", "simreal.testing")


def public_modules() -> list[ModuleType]:
    """The modules whose names users may rely on."""
    return [importlib.import_module(name) for name in PUBLIC if importlib.util.find_spec(name) is not None]


def names_of(module: ModuleType) -> list[str]:
    """The public names of a module: its `__all__`, or what it defines itself without a leading underscore."""
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return list(getattr(module, "__all__", [name for name in defined if not name.startswith("_")]))


def undocumented(module: ModuleType) -> list[str]:
    """Public functions and classes of a module, and public methods defined in those classes, without a docstring."""
    missing = [] if module.__doc__ else [module.__name__]
    for name in names_of(module):
        value = getattr(module, name)
        if not callable(value):
            continue
        where = f"{module.__name__}.{name}"
        missing += [] if inspect.getdoc(value) else [where]
        for key, member in vars(value).items() if inspect.isclass(value) else ():
            asked = inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
            if asked and not key.startswith("_") and not inspect.getdoc(getattr(value, key)):
                missing.append(f"{where}.{key}")
    return missing


def build(folder: Path) -> list[str]:
    """Write the pages into a folder; returns public names that are on no page. Raises Warning."""
    modules = public_modules()
    pdoc.render.configure(docformat="google", footer_text="simreal", show_source=False)
    specs = [spec for module in modules for spec in (module.__name__, rf"!{re.escape(module.__name__)}\.")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*specs, output_directory=folder)
    lost = []
    for module in modules:
        page = (folder / (module.__name__.replace(".", "/") + ".html")).read_text()
        shown = set(re.findall(r'id="([\w.]+)"', page))
        lost += [f"{module.__name__}.{name}" for name in names_of(module) if name not in shown | {"deploy", "testing"}]
    return lost


def main() -> int:
    """Build, and say what is wrong."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "reference"
    wrong = [f"{name}: no docstring" for module in public_modules() for name in undocumented(module)]
    wrong += [f"{name}: on no page" for name in build(folder)]
    print("\n".join([*wrong, f"{folder / 'index.html'}: written"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
