"""Load a page in headless Chromium over the DevTools protocol, through a pair of pipes: no driver, no port."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe
"""


def find() -> str | None:
    """The browser's program, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A running browser with one page; ``events`` holds what it reported so far."""

    def __init__(self, profile: Path) -> None:
        there, self.send = os.pipe()
        self.receive, back = os.pipe()
        command = [find(), *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
        shell = f'exec "$0" "$@" 3<&{there} 4>&{back}'  # the protocol wants descriptors 3 and 4
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", shell, *command], pass_fds=(there, back), **quiet)
        os.close(there)
        os.close(back)
        self.events, self.buffer, self.ids, self.session = [], b"", itertools.count(1), None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        message = {"id": next(self.ids), "method": method, "params": parameters}
        os.write(
            self.send, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0"
        )
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Load a file in a window of ``width`` CSS pixels and wait until it is there."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def prefer(self, theme: str) -> None:
        """Let the user of the browser prefer a light or a dark theme."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def evaluate(self, expression: str):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def urls(self) -> list[str]:
        """What the page asked for."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[dict]:
        """Errors and warnings of the page, and whatever it printed."""
        methods = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event.get("method") in methods]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.send)
        os.close(self.receive)

    def _read(self, seconds: float = 60) -> dict:
        deadline = time.time() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.receive], [], [], max(0, deadline - time.time()))
            part = os.read(self.receive, 1 << 16) if ready else b""
            if not part:
                raise TimeoutError("the browser does not answer")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)
