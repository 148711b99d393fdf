"""What a person does on the page of `simreal view`, in a headless Chromium."""

from __future__ import annotations

import json
import time
from typing import Any

# The largest canvas is the scene's; there is another one, of no size.
_SCENE = "[...document.querySelectorAll('canvas')].sort((a, b) => b.width - a.width)[0]"
_DRAWN = f"({_SCENE} || {{width: 0}}).width > 100 && document.body.innerText.includes('World')"


def loaded(tab: Any) -> None:
    """Wait until scene and controls are there."""
    tab.wait_for(_DRAWN)


def focus_slider(tab: Any, label: str) -> None:
    """Show the sliders of the world, and put the keyboard's focus on the one with a label that begins so."""
    found = f"""(() => {{
        for (const slider of document.querySelectorAll('[role=slider]'))
            for (let i = 0, row = slider; i < 16 && row !== null; i++, row = row.parentElement)
                if (row.innerText.trim().startsWith({json.dumps(label)})) {{
                    slider.scrollIntoView({{block: 'center'}});
                    slider.focus();
                    return document.activeElement === slider;
                }}
        return false;
    }})()"""
    end = time.monotonic() + 120.0
    while not tab.evaluate(found):  # what is clicked while the page is still being built is lost
        if time.monotonic() > end:
            raise TimeoutError(f"no slider {label}")
        tab.click_text("World")
        time.sleep(1.0)


def click_robot(tab: Any) -> None:
    """Click the middle of the scene, where the robot is."""
    x, y = tab.evaluate(
        f"(() => {{ const r = {_SCENE}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
    )
    tab.click(x, y)
