"""A headless Chromium, driven by its DevTools protocol over a pipe: no driver, no port, no package.

Where there is none, a test that wants one ends as skipped, and `tests/conftest.py` says so at the end of the run; where
the environment has DEMAND_BROWSER, as in CI, it fails.

python -m tests.support.browser report.html report.png --width 1200 --dark
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
NONE_FOUND = (
    "No Chromium found: put one on PATH (Debian, Ubuntu: apt-get install chromium; Google Chrome will do, too),"
    " or name it in CHROME_BIN."
)
OPTIONS = (
    *("--headless", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
"""These keep it to the page: nothing is fetched, nothing asked."""
START = """
import fcntl, os, sys
files = [fcntl.fcntl(int(file), fcntl.F_DUPFD_CLOEXEC, 10) for file in sys.argv[1:3]]
for file, place in zip(files, (3, 4)):
    os.dup2(file, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""A Chromium reads its commands from file 3, and writes its answers to file 4."""
PHONE = 400
SECONDS = 300
"""Whatever a test does with it takes less."""
DEMANDED = "DEMAND_BROWSER"
"""The variable of the environment that makes a test fail, not skip, where there is no Chromium."""


class BrowserError(Exception):
    """There is no Chromium, or it refused a command."""


def find() -> str:
    """The command of a Chromium: what CHROME_BIN names, or the first on PATH."""
    if asked := os.environ.get("CHROME_BIN"):
        return asked
    for name in NAMES:
        if command := shutil.which(name):
            return command
    raise BrowserError(NONE_FOUND)


@dataclass
class Page:
    """One page in a browser that shows nothing else.

    Attributes:
        complaints: What it wrote to its console, and every exception and violation.
        requests: The addresses of all that it fetched.
    """

    _commands: IO[bytes]
    _answers: IO[bytes]
    _log: Path
    _session: str = ""
    _number: int = 0
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def attach(self) -> None:
        """Open a tab, and listen to it."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self.ask("Browser.close")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command, and wait for its answer; the events until then are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        session = {"sessionId": self._session} if self._session else {}
        with contextlib.suppress(BrokenPipeError):  # it has ended, and the answer will say so
            self._commands.write(json.dumps(message | session).encode() + b"\0")
            self._commands.flush()
        while (answer := self._read()).get("id") != self._number:
            pass
        if "error" in answer:
            raise BrowserError(answer["error"]["message"])
        return dict(answer["result"])

    def open(self, path: Path, width: int = PHONE, height: int = 900, *, dark: bool = False, media: str = "") -> None:
        """Load a file, and wait until it is drawn.

        Args:
            path: the file.
            width: of the window, in CSS pixels.
            height: of the window.
            dark: whether the user prefers dark colours.
            media: "print" for paper; the screen otherwise.
        """
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        phone = {"mobile": width <= PHONE, "deviceScaleFactor": 1}
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, **phone)
        self.ask("Page.navigate", url=path.resolve().as_uri())
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, expression: str) -> Any:
        """What a JavaScript expression gives, awaited if it is a promise."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, height: int | None = None) -> bytes:
        """The page as a PNG, from its top: all of it, or so many pixels."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        return base64.b64decode(self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"])

    def _read(self) -> dict[str, Any]:
        raw = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                said = self._log.read_text(errors="replace").strip()
                msg = f"The browser ended. It said: {said[-1000:]}"
                raise BrowserError(msg)
            raw += byte
        message = json.loads(raw)
        match message.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(message["params"]))
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return dict(message)


def available() -> str:
    """The command of a Chromium; without one the test ends here, as skipped unless a browser is demanded."""
    try:
        return find()
    except BrowserError as error:
        if os.environ.get(DEMANDED):
            raise
        pytest.skip(str(error))


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """Start one with a profile of its own, and end it.

    Yields:
        An empty page.

    Raises:
        BrowserError: There is none, and one is demanded.
    """
    command = available()
    with tempfile.TemporaryDirectory(prefix="tap-mde-kbs-browser-", ignore_cleanup_errors=True) as profile:
        for_it, commands = os.pipe()
        answers, from_it = os.pipe()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        log = Path(profile) / "log"
        launcher = [sys.executable, "-c", START, str(for_it), str(from_it)]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [*launcher, command, *OPTIONS, *sandbox, f"--user-data-dir={profile}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "HOME": profile},
                pass_fds=(for_it, from_it),
            ) as process,
        ):
            os.close(for_it)
            os.close(from_it)
            with open(commands, "wb") as writing, open(answers, "rb") as reading:  # noqa: PTH123 - file descriptors
                page = Page(writing, reading, log)
                hangs = threading.Timer(SECONDS, process.kill)
                hangs.start()
                try:
                    page.attach()
                    yield page
                finally:
                    hangs.cancel()
                    with contextlib.suppress(BrowserError, OSError):
                        page.close()
                    process.kill()


def main() -> None:
    """Take a screenshot."""
    parser = argparse.ArgumentParser(description="Take a screenshot of a page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path, help="a PNG; or a PDF, as the page is printed")
    parser.add_argument("--width", type=int, default=PHONE)
    parser.add_argument("--height", type=int, help="of the picture; all of the page without it")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    with browser() as page:
        page.open(options.page, options.width, dark=options.dark)
        picture = page.pdf() if options.picture.suffix == ".pdf" else page.screenshot(options.height)
        options.picture.write_bytes(picture)


if __name__ == "__main__":
    main()
