"""Prints the path of a Chromium for the browser tests, installing one if there is none; it drives no browser.

Taken in this order: $CHROMIUM, an installed headless shell, Debian's package of it (as root), an installed Chromium or Chrome,
Playwright's own or its download. The headless shell is Chromium without windows: a page takes half the processor time.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SHELL = "chromium-headless-shell"
NAMES = (SHELL, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
REMEDY = """No Chromium was found, and none could be installed. Do one of these, then try again:
  Debian:          sudo apt-get install chromium-headless-shell
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
    if not _install_package("chromium"):
        _run([sys.executable, "-m", "playwright", "install", "chromium"])
    return find()


def prefer_shell() -> str | None:
    """The path of the headless shell, installed where that can be done; None where another Chromium is asked for."""
    if "CHROMIUM" in os.environ or not (shutil.which(SHELL) or _install_package(SHELL)):
        return None
    return shutil.which(SHELL)


def _install_package(name: str) -> bool:
    """Install a package of Debian; False where this is none, or nobody who may."""
    apt = shutil.which("apt-get")
    if not apt or os.geteuid() != 0:
        return False
    install = [apt, "install", "-y", "--no-install-recommends", name]
    return _run(install) or (_run([apt, "update"]) and _run(install))


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
    if found := prefer_shell() or find() or install():
        print(found)
    else:
        sys.exit(REMEDY)
