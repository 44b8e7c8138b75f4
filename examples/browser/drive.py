"""Opens a page in a headless Chromium, types, reads and takes pictures.

python drive.py http://127.0.0.1:8000/ --screenshot page.png
"""

import argparse
import base64
import json
import os
import select
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory


SECONDS = 120.0  # that an answer may take; two busy cores need some for the first
KEYS = {"Tab": (9, ""), "Enter": (13, "\r")}


class Page:
    """A page in a Chromium of its own, which reaches no other machine. It is closed behind a `with`.

    Args:
        program: The browser.

    Raises:
        RuntimeError: from all methods, if the browser ends, or a script fails.
        TimeoutError: if there is no answer in time.
    """

    def __init__(self, program: str):
        self.profile = TemporaryDirectory(ignore_cleanup_errors=True)
        words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={self.profile.name}"]
        words += ["--window-size=860,1240", "--hide-scrollbars", "--remote-debugging-pipe", "about:blank"]
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        actions = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0) for descriptor in (1, 2)]
        # The DevTools protocol, without a library: JSON that ends with a zero byte, on descriptors 3 and 4.
        actions += [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
        self.pid = os.posix_spawn(program, words, os.environ, file_actions=actions)
        os.close(theirs_in)
        os.close(theirs_out)
        self.read, self.count, self.session = b"", 0, {}
        (target,) = (one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = {"sessionId": attached["sessionId"]}

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *error: object) -> None:
        self.session = {}
        self.send("Browser.close")
        os.waitpid(self.pid, 0)
        os.close(self.to)
        os.close(self.back)
        self.profile.cleanup()

    def send(self, method: str, **parameters: object) -> dict:
        """The answer to a command of the DevTools protocol."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters, **self.session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while (answer := self._receive(end)).get("id") != self.count:
            pass  # an event
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _receive(self, end: float) -> dict:
        while b"\0" not in self.read:
            if not select.select([self.back], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no answer in {SECONDS:.0f} seconds")
            read = os.read(self.back, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            self.read += read
        message, _, self.read = self.read.partition(b"\0")
        return json.loads(message)

    def run(self, script: str):
        """The value of an expression in the page; of a promise, what it is kept with."""
        done = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"]["exception"].get("description", "the script failed"))
        return done["result"].get("value")

    def wait(self, condition: str):
        """The value of an expression in the page once it is true, at the latest after `SECONDS`."""
        look = "const value = {0}; if (value) done(value); else if (performance.now() > end) fail(Error({1})); "
        look = look.format(condition, json.dumps(f"never: {condition}")) + "else setTimeout(look, 20);"
        end = f"performance.now() + {900 * SECONDS}"
        return self.run(f"new Promise((done, fail) => {{ const end = {end}; (function look() {{ {look} }})(); }})")

    def open(self, url: str) -> None:
        """Opens an address, and waits until its scripts run."""
        self.send("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def press(self, key: str) -> None:
        """Presses and releases Tab or Enter."""
        number, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=number, **typed)

    def type(self, text: str) -> None:
        """Replaces the text of the box that has the focus."""
        self.send("Input.dispatchKeyEvent", type="keyDown", commands=["selectAll"])
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Saves the window as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


def main() -> None:
    """Takes a picture of the page behind an answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--screenshot", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    program = shutil.which("chromium") or parser.error("chromium is not installed")
    with Page(program) as page:
        page.open(args.url)
        page.wait("document.querySelector('#similarities table')")
        first = page.run("document.querySelector('#last').textContent")
        for key in ("Tab", "Tab", "Enter"):  # a second answer, as the first takes longer
            page.press(key)
        page.wait(f"document.querySelector('#last').textContent !== {json.dumps(first)}")
        page.screenshot(args.screenshot)


if __name__ == "__main__":
    main()
