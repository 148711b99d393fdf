"""A headless Chromium, spoken to by its DevTools protocol: pages are opened, clicked and looked at as by a person."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The program, where there is one."""
    return next((found for name in NAMES if (found := shutil.which(name)) is not None), None)


class Chromium:
    """A browser of its own, without a window; WebGL is drawn by software.

    Args:
        size: of pages, pixels.
    """

    def __init__(self, size: tuple[int, int] = (1000, 640)) -> None:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError("no Chromium")
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        flags = (
            "--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={self._folder.name}",
            "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-first-run",
            "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
            "--disable-backgrounding-occluded-windows", f"--window-size={size[0]},{size[1]}", "about:blank",
        )  # fmt: skip
        self._process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._tabs: list[Tab] = []
        noted = Path(self._folder.name) / "DevToolsActivePort"
        for _ in range(300):
            if noted.is_file() and "\n" in noted.read_text():
                break
            time.sleep(0.1)
        self._port = int(noted.read_text().split("\n")[0])

    def open(self, url: str) -> Tab:
        """A new tab with a page."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?{url}", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            self._tabs.append(Tab(json.load(answer)["webSocketDebuggerUrl"]))
        return self._tabs[-1]

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for tab in self._tabs:
            tab.close()
        self._process.terminate()
        self._process.wait(timeout=30)
        self._folder.cleanup()


class Tab:
    """A page of a browser."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=None, open_timeout=30)
        self._number = 0
        self.call("Page.enable")
        self.call("Runtime.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol; returns its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=180))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression comes to; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"].get("exception", found["exceptionDetails"])))
        return found["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 60.0) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.1)
        raise TimeoutError(f"never true: {expression}")

    def click(self, x: float, y: float) -> None:
        """Press and release the left button of the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click_text(self, text: str) -> None:
        """Click, with the mouse, on the last element that shows just this text, once there is one."""
        x, y = self.wait_for(
            f"""(() => {{
                const all = [...document.querySelectorAll('button, label, span, p, div')].filter(
                    e => e.textContent.trim() === {json.dumps(text)} && e.getClientRects().length > 0);
                if (!all.length) return null;
                all[all.length - 1].scrollIntoView({{block: 'center'}});
                const r = all[all.length - 1].getBoundingClientRect();
                return [r.x + r.width / 2, r.y + r.height / 2];
            }})()"""
        )
        self.click(x, y)

    def key(self, name: str, code: int) -> None:
        """Press a key, as ("ArrowRight", 39)."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, kind: str = "png", **more: Any) -> None:
        """Write a picture of the page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format=kind, **more)["data"]))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()
