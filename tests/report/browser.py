"""A real browser without a window, driven over its own protocol: one process, loopback only, ended by its id."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Home": 36, "Tab": 9, "Enter": 13, " ": 32}


def find_browser() -> str | None:
    """The first one installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One process with one page. ``errors`` and ``requests`` are what has happened since the last ``open``."""

    def __init__(self, program: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="browser-"))
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
        port = "--remote-debugging-port=0"
        command = [program, *options, *quiet, port, f"--user-data-dir={self.folder}", "--hide-scrollbars"]
        nothing = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=nothing, stderr=nothing, start_new_session=True)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._session = ""
        try:
            self._http, self._socket = self._loop.run_until_complete(self._connect())
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    async def _connect(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
        told, deadline = self.folder / "DevToolsActivePort", time.monotonic() + 60
        while not (told.is_file() and len(told.read_text().splitlines()) == 2):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the browser did not start (exit code {self.process.poll()})")
            await asyncio.sleep(0.05)
        port, path = told.read_text().splitlines()
        http = aiohttp.ClientSession()
        return http, await http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)

    def close(self) -> None:
        """Ends the process and all that it started."""
        for thing in (getattr(self, "_socket", None), getattr(self, "_http", None)):
            if thing is not None:
                self._loop.run_until_complete(thing.close())
        self._loop.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        return self._loop.run_until_complete(asyncio.wait_for(self._answer(message), 60))

    async def _answer(self, message: dict[str, Any]) -> Any:
        await self._socket.send_json(message)
        while True:
            said = json.loads((await self._socket.receive()).data)
            if said.get("id") == message["id"]:
                if "error" in said:
                    raise RuntimeError(f"{message['method']}: {said['error']}")
                return said["result"]
            self._note(said.get("method"), said.get("params", {}))

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" or event == "Log.entryAdded":
            self.errors.append(str(params.get("args") or params.get("entry")))
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:80])

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Loads a page whole, in a window of that size."""
        self._call("Page.navigate", url="about:blank")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media="", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self.errors.clear()
        self.requests.clear()
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression on the page; promises are waited for."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 120) -> None:
        """Waits for an expression to be true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key, as a person does."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = KEYS.get(key, ord(key[0].upper()))
        for _ in range(times):
            self._call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
            self._call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def write(self, text: str) -> None:
        """Types into what has the focus."""
        for letter in text:
            self.press(letter)

    def click(self, selector: str) -> None:
        """Clicks into the middle of an element."""
        middle = "e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]"
        find = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}})"
        where = self.run(f"(() => {{ {find}; const r = {middle}; }})()")
        mouse = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, **mouse)

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot."""
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def media(self, name: str) -> None:
        """Shows the page as on paper (``print``) or on a screen."""
        self._call("Emulation.setEmulatedMedia", media=name)

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])
