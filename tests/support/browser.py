"""A headless Chromium, driven by the Chrome DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import asyncio
import base64
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp

from .loop import Loop
from .waiting import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# In a container it may have no namespaces of its own; and it shall ask nobody on the internet anything.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
    *(
        "--no-proxy-server",
        "--mute-audio",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        "--remote-allow-origins=*",
    ),
)
_VIRTUAL_KEYS = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
_SHIFT = 8
WIDTH, HEIGHT = 1280, 900  # of a tab


def _lines(path: Path, number: int) -> list[str]:
    """The lines of a file as soon as it has so many; until then none."""
    lines = path.read_text(encoding="utf-8").split() if path.exists() else []
    return lines if len(lines) == number else []


class Browser:
    """A Chromium process with tabs that share nothing.

    Args:
        loop: in which its messages are read.
        profile: an empty folder.
    """

    def __init__(self, loop: Loop, profile: Path) -> None:
        assert CHROMIUM is not None
        self._loop = loop
        words = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        where = profile / "DevToolsActivePort"
        port, path = eventually(lambda: _lines(where, 2), "Chromium opens its port")
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}
        loop.run(self._connect(f"ws://127.0.0.1:{port}{path}"))

    async def _connect(self, url: str) -> None:
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(url, max_msg_size=2**27)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif (tab := self._tabs.get(said.get("sessionId", ""))) is not None:
                tab.events.append((said["method"], said["params"]))

    async def _call(self, method: str, session: str | None, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        await self._socket.send_json(message)
        said = await answer
        assert "error" not in said, f"{method}: {said['error']}"
        result: dict[str, Any] = said["result"]
        return result

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        result: dict[str, Any] = self._loop.run(self._call(method, session, params))
        return result

    def tab(self, width: int = WIDTH, height: int = HEIGHT) -> "Tab":
        """A new tab with storage of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
        tab.resize(width, height)
        return tab

    def close(self) -> None:
        """End the process."""
        self._loop.run(self._close())
        self._process.terminate()
        self._process.wait(30)

    async def _close(self) -> None:
        self._reading.cancel()
        await self._socket.close()
        await self._http.close()


class Tab:
    """One tab, and all that the browser has said of it."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser, self._session, self._context = browser, session, context
        self.events: list[tuple[str, dict[str, Any]]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        return self._browser.call(method, self._session, **params)

    def renew(self) -> None:
        """As a new tab, at a part of its cost: where one origin was opened, and no script or header was added."""
        if self.run("location.protocol") == "http:":
            self.run("sessionStorage.clear()")
            self.run("localStorage.clear()")
        self.emulate()
        self.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        self.call("Accessibility.disable")
        self.resize(WIDTH, HEIGHT)
        self.open("about:blank#")
        self.call("Page.resetNavigationHistory")
        self.events.clear()

    def close(self) -> None:
        """Forget the tab and its storage."""
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        eventually(lambda: self.run("document.readyState === 'complete' && location.href !== 'about:blank'"))

    def run(self, script: str) -> Any:
        """The value of an expression in the page, or of the promise that it is."""
        said = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """What can be seen of an element."""
        text: str = self.run(f"document.querySelector({selector!r})?.innerText ?? ''")
        return text

    def wait_for(self, text: str, selector: str = "body") -> None:
        """Until an element shows a text."""
        eventually(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page's window, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def emulate(self, **features: str) -> None:
        """Set what the user prefers, such as prefers_color_scheme="dark"."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def press(self, key: str, shift: bool = False) -> None:
        """Press a key and let it go."""
        event = {"key": key, "code": key, "windowsVirtualKeyCode": _VIRTUAL_KEYS[key], "modifiers": _SHIFT * shift}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        """Put text into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def requested(self) -> list[str]:
        """The URLs that the page has asked for."""
        return [params["request"]["url"] for method, params in self.events if method == "Network.requestWillBeSent"]

    def errors(self) -> list[Any]:
        """Exceptions, and errors and warnings of the console."""
        found = [params for method, params in self.events if method == "Runtime.exceptionThrown"]
        logged = [params["entry"] for method, params in self.events if method == "Log.entryAdded"]
        said = [params for method, params in self.events if method == "Runtime.consoleAPICalled"]
        found += [entry for entry in logged if entry["level"] in ("error", "warning")]
        return found + [call for call in said if call["type"] in ("error", "warning", "assert")]
