"""As much of W3C WebDriver as the browser tests need, over urllib: nothing to install."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"enter": "\ue007", "shift": "\ue008", "escape": "\ue00c", "tab": "\ue004", "alt": "\ue00a", "down": "\ue015"}
# The second is what Ubuntu's snap calls it.
DRIVER = shutil.which("chromedriver") or shutil.which("chromium.chromedriver") or "chromedriver"


class WebDriverError(Exception):
    pass


class Browser:
    """One headless Chromium under its own chromedriver."""

    def __init__(self, width=1280, height=860, arguments=()):
        self.process = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            self.base = f"http://127.0.0.1:{self._port()}"
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-GB",
                         "--hide-scrollbars", f"--window-size={width},{height}", *arguments]
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {
                "browserName": "chrome", "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"}}}})
            self.session = f"/session/{session['sessionId']}"
        except BaseException:
            self.process.kill()
            raise

    def _port(self):
        for line in self.process.stdout:
            if match := re.search(r"successfully on port (\d+)", line):
                return int(match.group(1))
        raise WebDriverError("chromedriver did not start")

    def _call(self, method, path, body=None):
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise WebDriverError(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def call(self, method, path, body=None):
        return self._call(method, self.session + path, body)

    def close(self):
        try:
            self.call("DELETE", "")
        except (OSError, WebDriverError):
            pass
        self.process.terminate()
        self.process.wait(10)

    def first_window(self):
        return Window(self, self.call("GET", "/window"))

    def new_window(self):
        return Window(self, self.call("POST", "/window/new", {"type": "window"})["handle"])

    def console_errors(self):
        """What the pages complained about since the last call; a lost connection is no complaint."""
        entries = self.call("POST", "/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] == "SEVERE" and "WebSocket connection" not in e["message"]]


class Window:
    def __init__(self, browser, handle):
        self.browser = browser
        self.handle = handle

    def call(self, method, path, body=None):
        if getattr(self.browser, "current", None) != self.handle:
            self.browser.call("POST", "/window", {"handle": self.handle})
            self.browser.current = self.handle
        return self.browser.call(method, path, body)

    def cdp(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def script(self, source, *arguments):
        return self.call("POST", "/execute/sync", {"script": source, "args": list(arguments)})

    def asynchronous(self, source, *arguments):
        """Runs `source`, whose last argument is the function to call with the result."""
        return self.call("POST", "/execute/async", {"script": source, "args": list(arguments)})

    def find(self, selector):
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.call("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector, text, clear=False):
        element = self.find(selector)
        if clear:
            self.call("POST", f"/element/{element}/clear")
        self.call("POST", f"/element/{element}/value", {"text": text})

    def press(self, *names):
        """Presses keys together, wherever the focus is."""
        keys = [KEYS.get(name, name) for name in names]
        down = [{"type": "keyDown", "value": key} for key in keys]
        up = [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": down + up}]})

    def text(self, selector):
        return self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def wait(self, what, condition, seconds=15, *arguments):
        """Waits until the JavaScript expression `condition` is true and returns its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.script(f"return {condition}", *arguments)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what} ({condition})")
            time.sleep(0.05)

    def resize(self, width, height, scale=1, mobile=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def colour_scheme(self, scheme):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))
