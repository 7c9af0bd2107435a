"""Uses the console as a person does: by the words on it, with a mouse or with keys."""

import json
from pathlib import Path
from typing import Any

from tests.chromium import Browser

AXE = Path(__file__).with_name("axe") / "axe.min.js"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Space": " "}

FIND = """
    const shown = (one) => one.checkVisibility();
    const text = (one) => one.getAttribute('aria-label') ?? one.textContent.trim();
    const scope = document.querySelector('dialog[open]') ?? document;
    const found = [...scope.querySelectorAll(arguments[0])].filter((one) => shown(one) && text(one) === arguments[1]);
"""
FILL = """
    const scope = document.querySelector('dialog[open]') ?? document;
    const fields = [...scope.querySelectorAll('label.field')];
    const field = fields.find((one) => one.innerText.trim().startsWith(arguments[0]));
    const input = field ? field.querySelector('input, textarea, select')
        : scope.querySelector(`[aria-label="${arguments[0]}"]`);
    if (!input) return false;
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(input), 'value').set.call(input, arguments[1]);
    input.dispatchEvent(new Event('input', {bubbles: true}));
    input.dispatchEvent(new Event('change', {bubbles: true}));
    return true;
"""


class Pilot:
    def __init__(self, browser: Browser, base_url: str) -> None:
        self.browser = browser
        self.base_url = base_url
        self.look(1280)
        # Pages of other tests, whose servers have ended, complain as long as they are open.
        self.browser.open("about:blank")
        self.complaints()

    def look(self, width: int, scheme: str = "light", height: int = 900) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def cdp(self, command: str, **parameters: object) -> Any:
        return self.browser.post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, place: str = "") -> None:
        """As one who was sent the address."""
        self.browser.open("about:blank")
        self.browser.open(f"{self.base_url}/console{place}")
        self.settled()

    def go(self, place: str) -> None:
        """Within the page, which keeps the token."""
        self.browser.run("location.hash = arguments[0]", place.removeprefix("#"))
        self.settled()

    def settled(self) -> None:
        self.browser.wait_for("return document.querySelector('main h1, h1') && !document.querySelector('.loading')")

    def text(self) -> str:
        return str(self.browser.run("return document.body.innerText"))

    def sees(self, *texts: str) -> None:
        """Waits for all of them, as text."""
        self.browser.wait_for(f"return {json.dumps(texts)}.every((one) => document.body.innerText.includes(one))")

    def press(self, label: str, kind: str = "button, a, input[type=checkbox], input[type=radio]") -> None:
        self.browser.wait_for(
            FIND.replace("arguments[0]", json.dumps(kind)).replace("arguments[1]", json.dumps(label))
            + "return found.some((one) => !one.disabled)"
        )
        self.browser.run(FIND + "found.find((one) => !one.disabled).click()", kind, label)

    def has(self, label: str) -> bool:
        return bool(self.browser.run(FIND + "return found.length > 0", "button, a", label))

    def fill(self, label: str, value: str) -> None:
        script = FILL.replace("arguments[0]", json.dumps(label)).replace("arguments[1]", json.dumps(value))
        self.browser.wait_for(script)

    def type(self, *keys: str) -> None:
        """Real keys, for what has the focus."""
        texts = [KEYS.get(key) or key for key in keys]
        pressed = [
            {"type": kind, "value": character} for text in texts for character in text for kind in ("keyDown", "keyUp")
        ]
        self.browser.post("/actions", {"actions": [{"type": "key", "id": "keys", "actions": pressed}]})

    def faults(self) -> list[str]:
        """What axe finds on the page as it is."""
        self.browser.run(f"if (!window.axe) {{ {AXE.read_text()} }}")
        run = """
            const done = arguments[arguments.length - 1];
            const places = ({nodes}) => nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(' | ');
            axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
                done(violations.map((one) => `${one.id}: ${one.help}: ${places(one)}`)));
        """
        return list(self.browser.post("/execute/async", {"script": run, "args": []}))

    def complaints(self) -> list[str]:
        """What the browser says on its own console of the policy and of errors; refusals of the API are none."""
        entries = self.browser.post("/se/log", {"type": "browser"})
        return [one["message"] for one in entries if "Failed to load resource" not in one["message"]]
