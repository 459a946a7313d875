"""Serves the page in the visitor's language: Gradio renders one page for everybody, which is completed on its way out.

The page says its language and direction from its first byte and carries the labels; all other texts are one file of the
visitor's language only, which the browser fetches beside Gradio's scripts and keeps until a text changes.
"""

import hashlib
import json
import re
from functools import cache

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from magistral_ui.i18n.languages import LANGUAGES
from magistral_ui.i18n.texts import for_pages
from magistral_ui.ui.asset_files import CACHE_FOREVER
from magistral_ui.ui.panels import labels
from magistral_ui.web.client_address import visitors_language
from magistral_ui.web.login_watch import TAB

OPENING = re.compile(rb'<html\s+lang="en"')
# Only the browser knows the page's URL for sure: a proxy may have changed host and path.
OWN_ADDRESS = 'new URL(".", document.baseURI).href'
WRITTEN_ADDRESS, MANIFEST = re.compile(rb'const root = "[^"]*";'), b'<link rel="manifest" href="/manifest.json" />'
# Gradio shows the browser's language and writes it on the page; both have to be the visitor's choice. Labels are looked up in
# English where Gradio's own words for a language do not have them, and some languages Gradio does not know at all.
# And Gradio 6.31's first loader counts its seconds in every frame for as long as the page is open, though nobody sees them: no
# event of this page shows progress of Gradio's.
HEAD_TEMPLATE = """<link rel="modulepreload" href="%(texts)s">
<script>
{
  const page = document.documentElement;
  Object.defineProperty(navigator, "language", { value: "%(tag)s", configurable: true });
  new MutationObserver(() => page.lang === "%(tag)s" || (page.lang = "%(tag)s")).observe(page, { attributeFilter: ["lang"] });
  const frame = window.requestAnimationFrame.bind(window), counting = /performance\\.now\\(\\)-\\w+\\(\\w+\\)\\)\\/1e3/;
  window.requestAnimationFrame = (job) => (counting.test(job) ? 0 : frame(job));
  if (window.gradio_config) {
    window.gradio_config.i18n_translations = { en: %(labels)s };
    window.gradio_config.root = %(address)s.slice(0, -1);
  }
}
</script>
"""


def texts_route() -> Route:
    return Route("/magistral/texts/{name}.js", _texts)


def complete(scope: Scope, headers: MutableHeaders, body: bytes) -> bytes:
    """The page in the language of the visitor who asks, with what the login needs to know of the tab."""
    language, tab = visitors_language(scope), scope.get(TAB)
    opening = f'<html lang="{language.tag}" dir="{language.direction}" data-texts="{_address(language.code)}"'
    if tab is not None:
        opening += f' data-login="{tab}"'
    headers["Content-Language"] = language.tag
    headers.add_vary_header("Accept-Language, Cookie")
    body = OPENING.sub(opening.encode(), body, count=1)
    body = WRITTEN_ADDRESS.sub(f"const root = {OWN_ADDRESS};".encode(), body, count=1).replace(MANIFEST, b"", 1)
    return body.replace(b"</head>", _first(language.code).encode() + b"</head>", 1)


async def _texts(request: Request) -> Response:
    name = str(request.path_params["name"])
    code = name.split("-")[0]
    if code not in LANGUAGES:
        return Response(status_code=404)
    # A page from before an update asks for older texts by their name; it gets the new ones, uncached.
    kept = CACHE_FOREVER if name == _name(code) else "no-store"
    return Response(_module(code), media_type="text/javascript", headers={"Cache-Control": kept})


@cache
def _module(code: str) -> str:
    texts = json.dumps(for_pages(code), ensure_ascii=False, separators=(",", ":"))
    return f'export const language = "{LANGUAGES[code].tag}";\nexport const texts = {texts};\n'


@cache
def _name(code: str) -> str:
    return f"{code}-{hashlib.sha256(_module(code).encode()).hexdigest()[:12]}"


def _address(code: str) -> str:
    return f"magistral/texts/{_name(code)}.js"


@cache
def _first(code: str) -> str:
    # A "</script>" in a text must not end the script element.
    data = json.dumps(labels(code), ensure_ascii=False).replace("<", "\\u003c")
    return HEAD_TEMPLATE % {"texts": _address(code), "tag": LANGUAGES[code].tag, "labels": data, "address": OWN_ADDRESS}
