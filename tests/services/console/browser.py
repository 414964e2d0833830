"""Drives headless Chromium through its DevTools protocol."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

START_SECONDS = 60
WAIT_SECONDS = 20
WIDTH, HEIGHT = 390, 844


class Browser:
    """One page of a browser; collects errors of its console."""

    def __init__(self, socket: ClientConnection):
        self._socket = socket
        self._number = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that arrive meanwhile are handled."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(command))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        content = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(content["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.errors.append(f"{content['entry']['text']} {content['entry'].get('url', '')}")
        elif message.get("method") == "Runtime.consoleAPICalled" and content["type"] == "error":
            self.errors.append(str(content["args"]))

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true; fail after WAIT_SECONDS."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                if self.evaluate(condition):
                    return
            except AssertionError:  # the page is being replaced
                pass
            time.sleep(0.05)
        raise AssertionError(f"never true: {condition}; {self.errors}")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, **text)


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile folder of its own, and end it."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [program, *options, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(profile)},
    )
    try:
        port = _port(profile, process)
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list").json()
        url = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
        with connect(url, max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.kill()
        process.wait()


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    """Return the port that the browser wrote into its profile."""
    path = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if path.is_file() and (lines := path.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError(f"the browser did not start (exit status {process.poll()})")
