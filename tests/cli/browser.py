"""Chromium without a screen, driven over the DevTools protocol; nothing beyond Python is needed."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium():
    """The program's path, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class WebSocket:
    """As much of RFC 6455 as a local client needs: text messages, unfragmented when sent."""

    def __init__(self, url, timeout):
        host, path = url.removeprefix("ws://").split("/", 1)
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), timeout)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
                             f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        self.file = self.socket.makefile("rb")
        if b"101" not in self.file.readline():
            raise ConnectionError("the browser refused the WebSocket")
        while self.file.readline() != b"\r\n":
            pass

    def send(self, text):
        data = text.encode()
        if len(data) < 126:
            head = struct.pack("!BB", 0x81, 0x80 | len(data))
        elif len(data) < 65536:
            head = struct.pack("!BBH", 0x81, 0x80 | 126, len(data))
        else:
            head = struct.pack("!BBQ", 0x81, 0x80 | 127, len(data))
        mask = os.urandom(4)
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def receive(self):
        message = b""
        while True:
            first, second = self.file.read(2)
            length = second & 127
            if length == 126:
                length, = struct.unpack("!H", self.file.read(2))
            elif length == 127:
                length, = struct.unpack("!Q", self.file.read(8))
            message += self.file.read(length)
            if first & 0x80:
                return message.decode()

    def close(self):
        self.file.close()
        self.socket.close()


class Browser:
    """A browser with one tab. What the page logs as an error or throws is kept in `problems`."""

    def __init__(self, timeout=300):
        self.timeout = timeout
        self.profile = tempfile.mkdtemp(prefix="atom-page-")
        self.process = subprocess.Popen(
            [find_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             "--remote-debugging-port=0", f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = Path(self.profile) / "DevToolsActivePort"
        self.until(lambda: port_file.is_file() and port_file.read_text().count("\n") >= 1)
        port = port_file.read_text().splitlines()[0]
        tabs = []

        def has_tab():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                tabs.extend(t for t in json.load(answer) if t["type"] == "page")
            return tabs
        self.until(has_tab)
        self.socket = WebSocket(tabs[0]["webSocketDebuggerUrl"], timeout)
        self.number = 0
        self.problems = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def until(self, condition):
        """Waits until condition() holds."""
        end = time.monotonic() + self.timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.02)

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.receive())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message):
        details = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            thrown = details["exceptionDetails"]
            self.problems.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif message.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.problems.append(f"{details['entry']['text']} {details['entry'].get('url', '')}")
        elif message.get("method") == "Runtime.consoleAPICalled" and details["type"] == "error":
            self.problems.append(json.dumps(details["args"]))

    def evaluate(self, script):
        """The value of a JavaScript expression; promises are waited for."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True,
                           returnByValue=True)
        if "exceptionDetails" in result:
            thrown = result["exceptionDetails"]
            raise RuntimeError(thrown.get("exception", {}).get("description", thrown["text"]))
        return result["result"].get("value")

    def wait(self, script):
        """Waits until an expression is true."""
        def holds():
            try:
                return self.evaluate(script)
            except RuntimeError as problem:
                if "context" in str(problem):
                    return False  # the page is being left
                raise
        try:
            self.until(holds)
        except TimeoutError:
            raise TimeoutError(f"never true: {script}") from None

    def open(self, url):
        self.evaluate("window.isOld = true")
        self.call("Page.navigate", url=url)
        self.wait("!window.isOld && document.readyState === 'complete'")

    def screen(self, width, height, dark=False, reduced_motion=False, scale=1, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=mobile)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced_motion else ""}])

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, code=None, modifiers=0):
        """A key; modifiers: 1 Alt, 2 Ctrl, 8 Shift."""
        codes = {"Enter": 13, "Escape": 27, "ArrowUp": 38}
        event = {"key": key, "code": code or key, "modifiers": modifiers,
                 "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        if len(key) == 1 and modifiers in (0, 8):
            event["text"] = key
        elif key == "Enter":
            event["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **{k: v for k, v in event.items() if k != "text"})

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(data))
