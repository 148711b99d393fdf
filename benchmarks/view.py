"""What `simreal view` costs: processor time of a control step, of a picture, for several browsers; latency of a slider.

    python -m benchmarks.view [TASK|RUN|BUNDLE] [--steps 100] [--clients 5] [--browsers 1] [--json FILE]

Steps and pictures are made one after the other, as fast as they come, and the processor time of this process is
counted: simulation, drawing, messages to `clients`, connections of another process that take everything and draw
nothing. So other work on the machine matters little. The latency of a slider is from a key pressed in a headless
Chromium to the changed field of the model, by one clock, while the page plays in real time beside `browsers` tabs that
draw by software on the same processors: it is that of a slow machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import viser
from websockets.sync.client import connect

from simreal.common.json_io import to_json
from simreal.vision.live.page import Page
from simreal.vision.live.source import find_source

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from chromium import Chromium, find_chromium
from view_page import focus_slider, loaded

_SLIDER, _FIELD = "body_mass", "body_mass"
_PRESSES = 10


def listen(port: int, count: int) -> None:
    """Connect so many times, take every message, and print how many bytes came when it is told to end."""
    counted = [0]

    def take() -> None:
        protocol: Any = f"viser-v{viser.__version__}"
        with connect(f"ws://127.0.0.1:{port}", max_size=None, subprotocols=[protocol]) as socket:
            for message in socket:
                counted[0] += len(message)

    for _ in range(count):
        threading.Thread(target=take, daemon=True).start()
    print("listening", flush=True)
    sys.stdin.readline()
    print(counted[0], flush=True)


def costs(page: Page, steps: int, port: int, clients: int) -> dict[str, float]:
    """Milliseconds of processor time for a control step alone, and for a picture with its messages to so many."""
    command = [sys.executable, "-m", "benchmarks.view", "--listen", str(port), "--clients", str(clients)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        time.sleep(3.0)  # meshes have arrived
        began = time.process_time()
        for _ in range(steps):
            page.player.step()
        stepped = time.process_time() - began
        sent, began = page.drawing.sent, time.process_time()
        for _ in range(steps):
            page.player.step()
            page.drawing.show()
            time.sleep(0.02)  # messages go out
        both = time.process_time() - began
        heard, _ = listening.communicate("\n")
    return {
        "step_ms": 1000 * stepped / steps,
        "picture_ms": 1000 * (both - stepped) / steps,
        "poses_per_picture": (page.drawing.sent - sent) / steps,
        "kB_received": int(heard) / 1000,
    }


def latencies(page: Page, tab: Any) -> list[float]:
    """Seconds from a key press in the browser to the model, for each press."""
    field = page.player.environment.engine.field(_FIELD)
    found = []
    for _ in range(_PRESSES):
        before, pressed = field.clone(), time.time()
        tab.key("ArrowRight", 39)
        while bool((field == before).all()) and time.time() < pressed + 10.0:
            time.sleep(0.0002)
        found.append(time.time() - pressed)
        time.sleep(0.3)
    return found


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.view", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("target", nargs="?", default="Go1Velocity-v0")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--browsers", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--listen", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.listen is not None:
        listen(arguments.listen, arguments.clients)
        return
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    page = Page(server, find_source(arguments.target, "random", None, {}), 7, Path())
    figures: dict[str, Any] = {"target": arguments.target}
    for count in sorted({0, 1, arguments.clients}):
        figures[f"clients_{count}"] = costs(page, arguments.steps, server.get_port(), count)
        print(f"{count} clients: {figures[f'clients_{count}']}", flush=True)
    if arguments.browsers and find_chromium() is not None:
        figures["slider_latency_s"] = _in_browsers(page, server.get_port(), arguments.browsers)
        print(f"latency of a slider: {figures['slider_latency_s']}")
    if arguments.json is not None:
        arguments.json.write_text(to_json(figures))
    server.stop()


def _in_browsers(page: Page, port: int, count: int) -> dict[str, Any]:
    """The latency of a slider in one of so many tabs."""
    thread = threading.Thread(target=page.loop.run)
    thread.start()
    try:
        with Chromium((1000, 560)) as browser:
            tabs = [browser.open(f"http://127.0.0.1:{port}") for _ in range(count)]
            for tab in tabs:
                loaded(tab)
            focus_slider(tabs[0], _SLIDER)
            pictures, began = page.loop.pictures, time.monotonic()
            seen = sorted(latencies(page, tabs[0]))
            rate = (page.loop.pictures - pictures) / (time.monotonic() - began)
    finally:
        page.loop.stop()
        thread.join()
    return {"median": median(seen), "most": seen[-1], "presses": len(seen), "tabs": count, "pictures_per_s": rate}


if __name__ == "__main__":
    main()
