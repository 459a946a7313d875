"""Serves the page's own scripts and styles below a path that changes with them, so that no browser mixes two versions.

Modules import each other by relative addresses: one that a browser has kept from before an update would break the page.
"""

import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ASSETS = Path(str(resources.files("magistral_ui.ui") / "assets"))
CACHE_FOREVER = "public, max-age=31536000, immutable"
DIGEST = re.compile(r"[0-9a-f]{12}")


@cache
def page_path() -> str:
    """The path of the files as they are now, relative to the page."""
    found = hashlib.sha256()
    for file in sorted(each for each in ASSETS.rglob("*") if each.is_file()):
        found.update(f"{file.relative_to(ASSETS).as_posix()}\0{file.stat().st_size}\0".encode())
        found.update(file.read_bytes())
    return f"magistral/{found.hexdigest()[:12]}"


def page_files_mount() -> Mount:
    return Mount("/magistral", PageFiles(directory=ASSETS))


class PageFiles(StaticFiles):
    """The files at `page_path`, which browsers keep, and at all other versions and at none, which they ask for again.

    A page from before an update gets the new files where it loads more of them.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        version, *inner = Path(path).parts or ("",)
        is_versioned = bool(inner) and DIGEST.fullmatch(version) is not None
        response = await super().get_response(str(Path(*inner)) if is_versioned else path, scope)
        is_current = is_versioned and page_path().endswith(f"/{version}")
        response.headers["Cache-Control"] = CACHE_FOREVER if is_current else "no-cache"
        return response
