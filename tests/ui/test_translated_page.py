"""The page over HTTP: it comes in the visitor's language from its first byte, with that language's texts alone."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from magistral_ui.i18n import languages
from magistral_ui.i18n import texts as i18n
from magistral_ui.i18n.languages import LANGUAGES, Language
from magistral_ui.i18n.texts import for_pages, text
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.asset_files import ASSETS_URL
from magistral_ui.ui.launch import close, launch
from magistral_ui.ui.page import build_page
from tests.loopback import free_port
from tests.scripted_engine import ScriptedEngine

TEXTS = re.compile(r'data-texts="(magistral/texts/[\w-]+\.js)"')


@pytest.fixture(scope="module")
def there() -> dict[str, Language]:
    """English, and a language that is read from the other side, whether its texts are there yet or not."""
    return {code: LANGUAGES[code] for code in ("en", "ar", "zh")}


@pytest.fixture(scope="module")
def client(there: dict[str, Language]) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(languages, "offered", lambda: there)
        engine = ScriptedEngine([])
        visitors = Visitors(engine)
        demo = build_page(engine, visitors)
        url = launch(demo, visitors, port=free_port())
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client
        close(demo)
        visitors.close()
        engine.close()


def page(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.get("/", headers={name.replace("_", "-"): value for name, value in headers.items()})


def texts(client: httpx.Client, opened: httpx.Response) -> Any:
    found = TEXTS.search(opened.text)
    assert found
    module = client.get("/" + found[1])
    assert module.headers["content-type"].startswith("text/javascript")
    assert "immutable" in module.headers["cache-control"]
    return json.loads(module.text.split("export const texts = ")[1].rstrip(";\n"))


@pytest.mark.parametrize(
    ("headers", "opening"),
    [
        ({"accept_language": "ar-EG"}, '<html lang="ar" dir="rtl"'),
        ({"accept_language": "zh-TW"}, '<html lang="zh-CN" dir="ltr"'),
        ({"accept_language": "ar", "cookie": "a=b; magistral-ui-language=en"}, '<html lang="en" dir="ltr"'),
        ({"accept_language": "xx", "cookie": 'magistral-ui-language="><script>'}, '<html lang="en" dir="ltr"'),
    ],
)
def test_the_page_says_its_language_and_direction(client: httpx.Client, headers: dict[str, str], opening: str) -> None:
    opened = page(client, **headers)
    assert opening in opened.text
    assert opened.headers["content-language"] == opening.split('"')[1]
    assert {"Accept-Language", "Cookie"} <= set(re.split(r",\s*", opened.headers["vary"]))
    assert int(opened.headers.get("content-length", len(opened.content))) >= len(opened.content) or (
        "content-encoding" in opened.headers
    )


def test_the_page_names_its_files_by_their_version_only(client: httpx.Client) -> None:
    named = set(re.findall(r"magistral/[\w./-]+\.(?:js|css)", page(client).text))
    assert f"{ASSETS_URL}/main.js" in named
    for name in named:
        assert name.startswith((f"{ASSETS_URL}/", "magistral/texts/"))
        assert "immutable" in client.get(f"/{name}").headers["cache-control"]


def test_only_the_visitors_texts_travel_and_none_of_the_command_line(client: httpx.Client) -> None:
    for code in ("en", "ar"):
        opened = page(client, accept_language=code)
        assert texts(client, opened) == for_pages(code)
        assert f"magistral/texts/{code}-" in opened.text
        assert opened.text.count("magistral/texts/") == 2  # named once, fetched ahead once
    assert "flag_host" not in for_pages("en")
    assert text("error_picture_broken")[5:30] not in page(client).text


def test_the_labels_of_gradios_components_come_in_the_page_itself(client: httpx.Client) -> None:
    opened = page(client).text
    labels = json.loads(re.search(r"i18n_translations = \{ en: (\{.*?\}) \};", opened)[1])  # type: ignore[index]
    asked = set(re.findall(r'translation_metadata\\*", \\*"key\\*": \\*"(\w+)', opened))
    assert {"page_settings", "model_heading"} <= asked <= set(labels)
    assert labels["page_settings"] == text("page_settings")


def test_texts_of_older_pages_are_answered_but_not_kept_and_others_are_not_there(client: httpx.Client) -> None:
    old = client.get("/magistral/texts/en-000000000000.js")
    assert old.status_code == 200
    assert old.headers["cache-control"] == "no-store"
    for wrong in ("xx-1", "..%2Fen", "en.json", ""):
        assert client.get(f"/magistral/texts/{wrong}.js").status_code == 404


def test_a_text_cannot_leave_the_script_that_carries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from magistral_ui.ui import translated_page

    monkeypatch.setattr(i18n, "translated", lambda code: {"page_title": "</script><b>"})
    i18n.strings.cache_clear()
    translated_page._first.cache_clear()
    translated_page._module.cache_clear()
    translated_page._name.cache_clear()
    try:
        assert "</script><b>" not in translated_page._first("en")
        assert "\\u003c/script>" in translated_page._first("en")
    finally:
        i18n.strings.cache_clear()
        translated_page._first.cache_clear()
        translated_page._module.cache_clear()
        translated_page._name.cache_clear()
