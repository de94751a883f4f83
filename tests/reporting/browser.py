"""A headless Chromium that tests drive: the DevTools protocol over a pair of pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe", "--force-device-scale-factor=1",
]  # fmt: skip


class Browser:
    """One browser; ends with its `with` block."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 720) -> None:
        assert CHROMIUM is not None
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        # Numbers out of the way of 3 and 4, which is where the browser looks for its pipes.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 20) for one in (theirs_in, theirs_out)]
        for one in (theirs_in, theirs_out):
            os.close(one)
        quiet = os.open(os.devnull, os.O_RDWR)
        actions = [
            (os.POSIX_SPAWN_DUP2, source, goal)
            for source, goal in zip((quiet, quiet, *high), (1, 2, 3, 4), strict=True)
        ]
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        self.process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=actions, setpgroup=0)
        for one in (*high, quiet):
            os.close(one)
        self._in, self._out = ours_in, ours_out
        self._held, self._count = b"", 0
        self.events: list[dict] = []
        self._size = (width, height)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        os.close(self._in)
        os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)

    def call(self, method: str, session: str | None = None, **parameters: object) -> dict:
        """Asks the browser for something and waits for the answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next(60)
            if found.get("id") == self._count:
                assert "error" not in found, found["error"]
                return found["result"]
            self.events.append(found)

    def _next(self, seconds: float) -> dict:
        limit = time.monotonic() + seconds
        while b"\0" not in self._held:
            assert select.select([self._in], [], [], max(0, limit - time.monotonic()))[0], "the browser is silent"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has gone"
            self._held += part
        one, _, self._held = self._held.partition(b"\0")
        return json.loads(one)

    def open(self, address: str, *, offline: bool = False, dark: bool = False) -> "Page":
        """A page, once it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        if offline:
            page.offline()
        page.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        page.resize(*self._size)
        page.call("Page.navigate", url=address)
        return page


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **parameters: object) -> dict:
        return self.browser.call(method, self.session, **parameters)

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def offline(self) -> None:
        """No request gets out from now on."""
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def run(self, code: str) -> object:
        """The value of an expression in the page; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code: str, seconds: float = 30.0) -> object:
        """Waits until an expression is true."""
        limit = time.monotonic() + seconds
        while True:
            value = self.run(code)
            if value:
                return value
            assert time.monotonic() < limit, (
                f"still not so: {code}; status: {self.run('document.body?.innerText.slice(-300)')}"
            )
            time.sleep(0.03)

    def press(self, key: str, *, shift: bool = False, alt: bool = False) -> None:
        """One key, as from a keyboard."""
        text = key if len(key) == 1 else ""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(key, 0)
        modifiers = (8 if shift else 0) | (1 if alt else 0)
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
            )

    def mouse(self, kind: str, x: float, y: float, **more: object) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width, height of an element."""
        box = self.run(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.left, b.top, b.width, b.height]; })()"
        )
        return tuple(box)

    def click_on(self, selector: str) -> None:
        left, top, width, height = self.place(selector)
        self.click(left + width / 2, top + height / 2)

    def picture(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def faults(self) -> list[str]:
        """Exceptions, messages of errors and requests that failed, so far."""
        self.run("1")
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            given = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(
                    given["exceptionDetails"].get("exception", {}).get("description", given["exceptionDetails"]["text"])
                )
            elif event["method"] == "Log.entryAdded" and given["entry"]["level"] == "error":
                found.append(given["entry"]["text"] + " " + given["entry"].get("url", ""))
            elif event["method"] == "Network.loadingFailed":
                found.append(given["errorText"])
        return found

    def asked_for(self) -> list[str]:
        """Addresses of all requests so far."""
        self.run("1")
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("sessionId") == self.session and event["method"] == "Network.requestWillBeSent"
        ]
