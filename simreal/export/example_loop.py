"""Writes `example_loop.py` beside a bundle's files: a control loop with the names and sizes of its contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simreal.deploy.bundle_reader import CONTRACT
from simreal.deploy.pictures import PIXELS

NAME = "example_loop.py"
_MOST_NAMES = 24

_LOOP = '''"""A control loop for {task}, to be filled in: what `measure` reads and what `send` does are your robot's.

Written by simreal. It runs as it stands, with zeros in place of a robot, and needs NumPy and ONNX Runtime alone.
"""

import sys
import time
from pathlib import Path

import numpy as np

from simreal.deploy import Policy  # or the folder simreal/deploy, copied to the robot under any name

policy = Policy.load(Path(__file__).parent)  # checks every file, and the answers on this machine
{sent}

def measure() -> dict[str, np.ndarray]:
    """What is observed now, in the units and frames of the contract."""
    return {{
{observation}
    }}


def send(targets: dict[str, np.ndarray]) -> None:
    """Tell the actuators their targets, which are scaled, limited and smoothed as in training."""
{action}
    print({{name: values.round(3).tolist() for name, values in targets.items()}})


steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5
policy.reset({reset})  # an episode begins
due = time.monotonic()
for _ in range(steps):
    action = policy(measure())  # [{size}], in -1 to 1
{tell}
    due += {period}  # s, as in training: a policy run at another rate is another policy
    time.sleep(max(0.0, due - time.monotonic()))
'''


_REMEMBERING = """    targets = policy.targets(action)
    send(targets)
    sent.update(targets)"""


def example_loop(contract: Mapping[str, Any]) -> str:
    """The text of a loop for a contract, a program that runs as it stands."""
    sizes = {f"{part['name']} as it was sent last": (part["name"], _sent(part)) for part in contract["action"]}
    remembered = {p["name"]: sizes[p["description"]] for p in contract["observation"] if p["description"] in sizes}
    observation = [_component(part, remembered.get(part["name"])) for part in contract["observation"]]
    if "pictures" in contract:
        observation.append(_picture(contract["pictures"]))
    starts = ", ".join(f"{name!r}: np.zeros({size})" for name, size in dict(remembered.values()).items())
    untold = [part for part in contract["action"] if _starts_untold(part)]
    held = ", ".join(f"{part['name']!r}: np.zeros({_sent(part)})" for part in untold)
    return _LOOP.format(
        task=_plain(str(contract["task"])),
        sent=f"sent = {{{starts}}}  # what was sent last; when an episode begins, what the robot holds\n"
        if starts
        else "",
        tell=_REMEMBERING if starts else "    send(policy.targets(action))",
        observation="\n".join(observation),
        action="\n".join(_target(part) for part in contract["action"]),
        reset=f"targets={{{held}}}" if untold else "",
        size=contract["action"][-1]["index"][1],
        period=f"{contract['control_period_s']!r}",
    )


def kept_or_new(folder: Path, contract: Mapping[str, Any]) -> bytes:
    """The loop for a contract, beside the bundle in `folder`; what its user has made of the one that is there, written
    for the contract that is there, is left as it is. Raises OSError."""
    present, new = folder / NAME, example_loop(contract).encode()
    if not present.is_file():
        return new
    text = present.read_bytes()
    try:
        untouched = text == example_loop(json.loads((folder / CONTRACT).read_bytes())).encode()
    except (ValueError, KeyError, TypeError, IndexError):  # a contract that somebody has changed as well
        untouched = False
    return new if untouched else text


def _component(part: Mapping[str, Any], remembered: tuple[str, int] | None) -> str:
    """A line of `measure`; `remembered`: the action component whose last targets it is."""
    size, about = part["shape"][0], [part["unit"], f"frame {part['frame']}", part["description"]]
    if any(part.get("relative_to") or ()):
        about.append(f"what is measured less {part['relative_to']}")
    if part["derived_from"]:
        about.append(f"computed from {', '.join(part['derived_from'])}")
    if not part["measured"]:
        about.append("known, not measured")
    value = f"np.zeros({size})" if remembered is None else f"sent[{remembered[0]!r}]"
    return f"        {part['name']!r}: {value},  # {_said(about, part['elements'])}"


def _picture(entry: Mapping[str, Any]) -> str:
    """The line of `measure` for the present picture."""
    about = [f"camera {entry['camera']}", "bytes", f"colours {entry['colours']}", f"{entry['rate_hz']:g} Hz"]
    return f"        {PIXELS!r}: np.zeros({tuple(entry['shape'])}, dtype=np.uint8),  # {_said(about, [])}"


def _target(part: Mapping[str, Any]) -> str:
    inverse = part.get("inverse")
    about = [inverse["unit"] if inverse else part["unit"], part["description"], part["afterwards"]]
    names = part["actuators"] or part["joints"] or part["elements"]
    return f"    assert targets[{part['name']!r}].shape == ({_sent(part)},)  # {_said(about, names)}"


def _sent(part: Mapping[str, Any]) -> int:
    inverse = part.get("inverse")
    return len(inverse["links"]) if inverse else part["shape"][0]


def _starts_untold(part: Mapping[str, Any]) -> bool:
    """Whether only the robot knows from where its commands start."""
    return part["initial_target"] is None and (part["smoothing"] < 1.0 or part.get("relative") == "target")


def _said(about: list[str], names: list[str]) -> str:
    listed = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return _plain("; ".join(text for text in [*about, listed] if text))


def _plain(text: str) -> str:
    """A text within a line and within quotation marks of a program."""
    return "".join(c if c.isprintable() else " " for c in text).replace("\\", "/").replace('"""', "'''")
