"""Finds, in a child process, which libraries are installed, fit the requirements, and can be imported."""

import platform
import re
import sys
from collections.abc import Collection, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path
from typing import Any

from magistral_ui.environment import without_proxies
from magistral_ui.errors import first_line

ROOT = Path(__file__).parents[2]
FILES = ("requirements-gguf.txt", "requirements-torch.txt", "requirements-mcp.txt")
DISTRIBUTION = "magistral-ui"
EXTRAS = ("mcp", "kernels")
"""What may be missing."""
MODULES = {"pillow": "PIL", "markdown-it-py": "markdown_it", "linkify-it-py": "linkify_it"}
"""Names by which libraries are imported, where these are not their own."""


def package_facts(skipped: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """All libraries with their versions, then one after another what happens when it is imported; not of those `skipped`."""
    installed = _installed()
    listed = {each["name"]: each | _around(each["name"], installed) for each in sorted(_listed(), key=_requirements)}
    yield {"packages": listed}
    for name, each in listed.items():
        if not each["version"] or name in skipped:
            continue
        yield {"stage": name}
        yield {name: {"error": _import_error(name)}}
    yield {"stage": ""}


def _installed() -> dict[str, list[str]]:
    """Versions by name: several where an update was interrupted."""
    found: dict[str, list[str]] = {}
    places: set[str] = set()
    for each in distributions():
        name, place = each.metadata["Name"], str(getattr(each, "_path", each))
        if name and place not in places:  # a folder may be twice on the path
            places.add(place)
            found.setdefault(_plain(name), []).append(each.version)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _around(name: str, installed: dict[str, list[str]]) -> dict[str, str]:
    """A second version of a library, and the first of its own requirements that is not there."""
    versions = installed.get(_plain(name), [])
    also = ", ".join(dict.fromkeys(versions)) if len(versions) > 1 else ""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return {"also": also}
    for line in (requires(name) or ()) if versions else ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = installed.get(_plain(wanted.name), [""])[0]
        if not found or not wanted.specifier.contains(found, prereleases=True):
            return {"also": also, "lacks": f"{wanted.name}{wanted.specifier}", "instead": found}
    return {"also": also}


def _requirements(listed: dict[str, Any]) -> int:
    """How many libraries it needs: those that need none come first, since all others may fail because of them."""
    return len(requires(listed["name"]) or ()) if listed["version"] else 0


def _listed() -> Iterator[dict[str, Any]]:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # the first of many that are missing
        yield from _listed_simply()
        return
    for line in dict.fromkeys((*_lines(), *EXTRAS)):
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = _version(wanted.name)
        specifier = "" if wanted.name in EXTRAS else str(wanted.specifier)
        fits = not found or wanted.specifier.contains(found, prereleases=True)
        yield {"name": wanted.name, "version": found, "wanted": specifier, "fits": fits}


def _listed_simply() -> Iterator[dict[str, Any]]:
    """The same without knowing which versions a requirement allows; those for some systems only are left out."""
    for line in _lines():
        if ";" not in line and (name := re.match(r"[\w.-]+", line)) and name[0] not in EXTRAS:
            wanted = re.sub(r"^\[[^]]*\]", "", line[name.end() :])
            yield {"name": name[0], "version": _version(name[0]), "wanted": wanted}


def _version(name: str) -> str:
    """The installed version; empty if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _lines() -> list[str]:
    """The requirements: of the files beside the app, or of the installed package."""
    lines = []
    for file in (ROOT / name for name in FILES):
        if file.is_file():
            lines += [re.split(r"\s+#", line)[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    if not lines:
        try:
            lines = requires(DISTRIBUTION) or []
        except PackageNotFoundError:
            return []
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _import_error(name: str) -> str:
    """Why a library cannot be imported; empty if it can."""
    module = MODULES.get(name, name.replace("-", "_"))
    try:
        with without_proxies():  # as the app does: a proxy that cannot be used is the finding of `hub`
            import_module(module)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {first_line(error)}"  # type: ignore[arg-type]  # SystemExit has a text, too
    return ""


def python_version() -> str:
    return f"{platform.python_implementation()} {sys.version.split()[0]}"
