"""Prints the path of a Chromium for the browser tests, installing one if there is none; it drives no browser.

Taken in this order: $CHROMIUM, an installed Chromium or Chrome, Playwright's own, Debian's package (as root),
Playwright's download.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
REMEDY = """No Chromium was found, and none could be installed. Do one of these, then try again:
  Debian, Ubuntu:  sudo apt-get install chromium
  others:          .venv/bin/python -m playwright install chromium
  installed where nobody looks:  CHROMIUM=/path/to/chrome make test"""


def find() -> str | None:
    """The path of a Chromium that is there already."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    return installed or (str(MAC) if MAC.exists() else None) or _playwrights()


def install() -> str | None:
    """The path of a Chromium that was just installed."""
    apt = shutil.which("apt-get")
    if apt and os.geteuid() == 0:
        install = [apt, "install", "-y", "--no-install-recommends", "chromium"]
        if _run(install) or (_run([apt, "update"]) and _run(install)):
            return find()
    _run([sys.executable, "-m", "playwright", "install", "chromium"])
    return find()


def _playwrights() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def _run(command: list[str]) -> bool:
    print(" ".join(command), file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, stdout=sys.stderr).returncode == 0


if __name__ == "__main__":
    if found := find() or install():
        print(found)
    else:
        sys.exit(REMEDY)
