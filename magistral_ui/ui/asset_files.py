"""Serves the page's own scripts, styles and fonts, at an address that changes with their content.

A browser keeps a file without `Cache-Control` for a tenth of its age: at a fixed address, a page would run old scripts beside
new ones for days after an update.
"""

import hashlib
from importlib import resources
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ASSETS = Path(str(resources.files("magistral_ui.ui") / "assets"))
CACHE_FOREVER = "public, max-age=31536000, immutable"


def version_of(folder: Path) -> str:
    content = hashlib.sha256()
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        content.update(f"{file.relative_to(folder).as_posix()}\n".encode())
        content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:12]


VERSION_PREFIX = "assets-"
VERSION = f"{VERSION_PREFIX}{version_of(ASSETS)}"
ASSETS_URL = f"magistral/{VERSION}"
"""Where the page finds its files, relative to its own address."""


class AssetFiles(StaticFiles):
    """The files with any version before them, or none: a page from before an update gets today's, and keeps none of them."""

    def __init__(self) -> None:
        super().__init__(directory=ASSETS)

    async def get_response(self, path: str, scope: Scope) -> Response:
        version, _, name = Path(path).as_posix().partition("/")
        has_version = version.startswith(VERSION_PREFIX)
        response = await super().get_response(name if has_version else path, scope)
        response.headers["Cache-Control"] = CACHE_FOREVER if version == VERSION else "no-cache"
        return response
