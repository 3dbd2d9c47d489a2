"""A real headless Chromium, spoken to over its debugging pipe: what a page looks like, says and loads.

Pages under test forbid scripts; the debugger's questions are not subject to that.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)


@dataclass
class Tab:
    """One tab. `complaints`: what the console said, warnings and refused loads included."""

    process: subprocess.Popen[bytes]
    requests: Any
    answers: Any
    session: str = ""
    complaints: list[str] = field(default_factory=list)
    loaded: bool = False
    _last: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.requests.write(json.dumps(message).encode() + b"\0")
        self.requests.flush()
        while (answer := self._next()).get("id") != self._last:
            self._note(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, url: str, width: int, dark: bool = False) -> None:
        """Loads `url` in a window `width` CSS pixels wide, and waits for all of it."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.loaded = False
        self.call("Page.navigate", url=url)
        while not self.loaded:
            self._note(self._next())

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        whole = {**self.call("Page.getLayoutMetrics")["cssContentSize"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser is gone"
            data += byte
        return dict(json.loads(data))

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        self.loaded |= method == "Page.loadEventFired"
        if method == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(parameters))


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, with its profile in the folder `profile`. Needs `BINARY`."""
    assert BINARY
    theirs_in, ours_out = _pipe()
    ours_in, theirs_out = _pipe()
    process = subprocess.Popen(
        ["bash", "-c", 'exec "$@" 3<&"$IN" 4>&"$OUT"', "bash", BINARY, *_FLAGS, f"--user-data-dir={profile}"],
        env={**os.environ, "IN": str(theirs_in), "OUT": str(theirs_out)},
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    with os.fdopen(ours_out, "wb") as requests, os.fdopen(ours_in, "rb") as answers:
        try:
            tab = Tab(process=process, requests=requests, answers=answers)
            target = tab.call("Target.createTarget", url="about:blank")["targetId"]
            tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Log", "Runtime"):
                tab.call(f"{domain}.enable")
            yield tab
        finally:
            process.terminate()
            process.wait(timeout=20)


def _pipe() -> tuple[int, int]:
    """A pipe clear of the numbers 3 and 4, at which the browser looks for its own."""
    low = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return read, write
