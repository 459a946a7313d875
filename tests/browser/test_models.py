"""The owner's models in a real browser: the list, the offer, the questions; the server's answers are scripted here."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from magistral_ui.chat.events import Answer
from magistral_ui.engines.base import Loading, Unloaded
from tests.browser.axe import violations_in_both_themes
from tests.browser.model_answers import models_answer
from tests.browser.steps import box, card, visit
from tests.scripted_engine import INFO, ScriptedEngine

GB = 10**9


def way(repository: str, precision: str, download: float, engine: str = "transformers") -> dict[str, Any]:
    sizes = {"download": int(download * GB), "memory": 7 * GB}
    return {"repository": repository, "precision": precision, "engine": engine, "fits": True, **sizes}


def entry(key: str, name: str, **values: Any) -> dict[str, Any]:
    choice = {
        "precision": "nf4",
        "engine": "transformers",
        "weights": 7 * GB,
        "needs": 9 * GB,
        "context": 21_338,
        "pace": 34.0,
        "measured": False,
    }
    return {
        "key": key,
        "name": name,
        "repository": f"mistralai/{key}",
        "license": "Apache-2.0",
        "parameters": 8_918_026_240,
        "vision": True,
        "languages": ["en"],
        "benchmarks": {"aime25": 78.7, "gpqa_diamond": 66.8},
        "state": "absent",
        "on_disk": 0,
        "download": 18 * GB,
        "done": 0,
        "total": 18 * GB,
        "seconds_left": None,
        "seconds": None,
        "fits": True,
        "refusal": None,
        "failure": None,
        "best": False,
        "choices": [choice],
        "ways": [way(f"mistralai/{key}", "nf4", 18)],
        "original": None,
        **values,
    }


def models() -> dict[str, Any]:
    refusal = {"key": "model_needs_memory", "values": {"needed": 18, "free": 12}}
    listed = [
        entry("magistral-small-2509", "Magistral Small 1.2", fits=False, refusal=refusal, choices=[]),
        entry("ministral-3-8b", "Ministral 3 8B", best=True),
        entry("ministral-3-3b", "Ministral 3 3B", state="complete", on_disk=8 * GB),
        entry("demo", "Demo", state="local", choices=[], benchmarks={}, repository="", parameters=0),
    ]
    return models_answer(listed, device="NVIDIA RTX 4070", memory={"free": 11 * GB, "total": 12 * GB})


class Backend:
    """Answers the page's questions about models with a value that the test changes."""

    def __init__(self, page: Any) -> None:
        self.value = models()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.on: dict[str, Callable[[dict[str, Any]], None]] = {}
        page.route("**/magistral/act/models/*", self._answer)

    def model(self, key: str) -> dict[str, Any]:
        return next(each for each in self.value["models"] if each["key"] == key)

    def sent(self, name: str) -> list[dict[str, Any]]:
        return [data for asked, data in self.asked if asked == name]

    def _answer(self, route: Any) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        data = json.loads(route.request.post_data)["data"]
        self.asked.append((name, data))
        if name in self.on:
            self.on[name](data)
        value = copy.deepcopy(self.value)
        self.value["asks"] = None
        route.fulfill(json={"models": value})


@pytest.fixture
def backend(page: Any) -> Backend:
    return Backend(page)


def url_of(serve: Any) -> str:
    return str(serve(ScriptedEngine([Answer("yes")])))


def test_the_list_says_what_runs_here_how_well_and_why_not(page: Any, serve: Any, backend: Backend) -> None:
    visit(page, url_of(serve))
    names = page.locator(".model-entry h4")
    expect(names).to_have_text(["Demo model", "Ministral 3 8B", "Ministral 3 3B", "Magistral Small 1.2"])
    best = card(page, "Ministral 3 8B")
    for text in ("Best fit", "4-bit (nf4) · 9 GB of memory · about 34 tokens/s", "18 GB to download", "AIME25 78.7%"):
        expect(best).to_contain_text(text)
    expect(card(page, "Ministral 3 3B")).to_contain_text("8 GB on disk")
    refused = card(page, "Magistral Small 1.2")
    expect(refused).to_contain_text("Needs 18 GB of free memory; there are 12 GB.")
    expect(refused.get_by_role("button")).to_have_count(0)
    best.get_by_text("Options and details").click()
    assert violations_in_both_themes(page) == []
    page.set_viewport_size({"width": 320, "height": 700})
    page.locator("#settings-toggle").click()
    expect(page.locator("#models")).to_be_visible()
    assert page.evaluate("document.getElementById('settings').scrollWidth <= 320")
    assert violations_in_both_themes(page) == []
    page.locator("#settings-close").click()
    expect(page.locator(".model-offer")).to_be_in_viewport()


def test_the_offer_downloads_pauses_and_switches_when_all_is_there(page: Any, serve: Any, backend: Backend) -> None:
    best = backend.model("ministral-3-8b")

    def begin(_: dict[str, Any]) -> None:
        best.update(state="downloading", done=3 * GB, seconds_left=240)
        backend.value["offer"] = None

    backend.on["download"] = begin
    backend.on["pause"] = lambda _: best.update(state="paused", seconds_left=None)
    visit(page, url_of(serve))
    offer = page.locator(".model-offer")
    expect(offer).to_contain_text("This machine can run Ministral 3 8B")
    expect(offer).to_contain_text("4-bit (nf4) · 9 GB of memory · about 34 tokens/s")
    expect(offer).to_contain_text("18 GB to download · 200 GB free on disk")
    offer.get_by_role("button", name="Download and use").click()
    expect(offer).to_contain_text("3 GB of 18 GB · about 4 minutes left")
    offer.get_by_role("button", name="Pause").click()
    expect(offer).to_contain_text("Paused")
    page.reload()
    offer.get_by_role("button", name="Resume").click()
    expect(offer.get_by_role("button", name="Pause")).to_be_visible()
    backend.on["switch"] = lambda data: backend.value["current"].update(key=data["key"])
    best.update(state="complete", on_disk=18 * GB)
    expect(offer).to_be_hidden()
    assert backend.sent("switch") == [{"key": "ministral-3-8b"}]
    assert backend.sent("download") == [{"key": "ministral-3-8b"}] * 2
    expect(card(page, "Ministral 3 8B")).to_contain_text("In use")


def test_a_failure_is_told_where_it_was_begun_and_the_offer_comes_back(page: Any, serve: Any, backend: Backend) -> None:
    failure = {"key": "connection_lost", "values": {"model": "Ministral 3 8B"}}
    best = backend.model("ministral-3-8b")
    backend.on["download"] = lambda _: best.update(state="partial", done=3 * GB, failure=failure)
    visit(page, url_of(serve))
    offer = page.locator(".model-offer")
    offer.get_by_role("button", name="Download and use").click()
    expect(offer.get_by_role("alert")).to_contain_text("What has been downloaded is kept")
    expect(card(page, "Ministral 3 8B").get_by_role("alert")).to_contain_text("The connection was lost")
    expect(offer.get_by_role("button", name="Download and use")).to_be_enabled()
    assert backend.sent("switch") == []


def test_a_dismissed_offer_stays_away_in_this_browser(page: Any, serve: Any, backend: Backend) -> None:
    visit(page, url_of(serve))
    page.locator(".model-offer").get_by_role("button", name="Options and details").click()
    expect(card(page, "Ministral 3 8B").get_by_text("Options and details")).to_be_focused()
    expect(card(page, "Ministral 3 8B").get_by_role("group", name="Ways to run it")).to_be_in_viewport()
    page.locator(".model-offer").get_by_role("button", name="Dismiss").click()
    expect(box(page)).to_be_focused()
    page.reload()
    expect(card(page, "Ministral 3 8B")).to_be_attached()
    expect(page.locator(".model-offer:not([hidden])")).to_have_count(0)


def test_switching_asks_what_becomes_of_running_replies(page: Any, serve: Any, backend: Backend) -> None:
    def switch(data: dict[str, Any]) -> None:
        backend.value.update(asks=None if data.get("running") else "running", running=2)

    backend.on["switch"] = switch
    visit(page, url_of(serve))
    use = card(page, "Ministral 3 3B").get_by_role("button", name="Use")
    card(page, "Ministral 3 3B").get_by_text("Options and details").click()
    card(page, "Ministral 3 3B").get_by_label("Context").select_option("8192")
    use.click()
    dialog = page.get_by_role("dialog", name="2 replies are still being written.")
    expect(dialog).to_be_visible()
    assert violations_in_both_themes(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    use.click()
    with page.expect_response("**/models/switch"):
        dialog.get_by_role("button", name="Stop and continue").click()
    expect(dialog).to_have_count(0)
    asked = {"key": "ministral-3-3b", "precision": None, "context": 8_192}
    assert backend.sent("switch") == [asked, asked, {**asked, "running": "stop"}]


def test_removing_is_confirmed_and_a_refusal_stays_readable(page: Any, serve: Any, backend: Backend) -> None:
    visit(page, url_of(serve))
    small = card(page, "Ministral 3 3B")
    small.get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Remove Ministral 3 3B from this computer?")
    dialog.get_by_role("button", name="Cancel").click()
    assert backend.sent("remove") == []
    backend.on["remove"] = lambda _: backend.value.update(failure={"key": "model_in_use", "values": {}})
    small.get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    alert = page.locator("#models").get_by_role("alert")
    expect(alert).to_contain_text("This model is in use.")
    alert.get_by_role("button", name="Dismiss").click()
    expect(alert).to_be_hidden()
    backend.on["idle"] = lambda data: backend.value.update(idle_minutes=data["minutes"])
    page.locator("#models-idle").select_option("30")
    expect(page.locator("#models-idle")).to_have_value("30")
    assert backend.sent("remove") == [{"key": "ministral-3-3b"}]


def test_whoever_is_no_owner_sees_nothing_and_asks_once(page: Any, serve: Any, backend: Backend) -> None:
    backend.value = {"owner": False}
    visit(page, url_of(serve))
    page.locator("#settings-toggle").click()
    page.locator("#settings-toggle").click()
    expect(page.locator("#settings")).to_be_visible()
    expect(page.locator("#models .model-entry, .model-offer")).to_have_count(0)
    assert [name for name, _ in backend.asked] == ["list"]


@pytest.mark.parametrize(("owner", "switchable"), [(True, True), (True, False), (False, False)])
def test_the_name_in_the_top_bar_leads_to_the_models(
    page: Any, serve: Any, backend: Backend, owner: bool, switchable: bool
) -> None:
    """Only who can start the app again is told how to do so with another model."""
    why_not = {"key": "models_on_zerogpu", "values": {}}
    backend.value = models() if switchable else {"owner": owner, "switchable": False, "why_not": why_not, "models": []}
    page.set_viewport_size({"width": 800, "height": 700})
    visit(page, serve([Answer("Hello")]))
    expect(page.locator("#settings")).not_to_be_in_viewport()
    if owner:
        expect(page.locator("#models h3")).to_be_attached()
    page.locator("#model-name").get_by_role("button").press("Enter")
    expect(page.locator("#models h3" if owner else "#model dl")).to_be_focused()
    expect(page.locator("#models h3" if owner else "#model dl")).to_be_in_viewport()
    expect(page.locator("#model .for-owner").first).to_be_visible(visible=switchable)


def test_an_unloaded_model_can_be_written_to_and_the_composer_says_what_happens(page: Any, serve: Any) -> None:
    visit(page, serve(ScriptedEngine([Answer("yes")], status=Unloaded(INFO))))
    expect(box(page)).to_be_enabled()
    expect(box(page)).to_have_attribute(
        "placeholder", "The model was unloaded to free memory. Your next message loads it again."
    )


def test_the_composer_is_given_back_once_a_model_that_is_being_freed_is_unloaded(page: Any, serve: Any) -> None:
    engine = ScriptedEngine([Answer("yes")], status=Loading("starting"))
    page.goto(serve(engine))
    expect(page.locator("#model-banner .loading")).to_be_visible()
    expect(box(page)).to_be_disabled()
    engine.set_status(Unloaded(INFO))
    expect(box(page)).to_be_enabled()
    expect(page.locator("#model-banner .loading")).to_have_count(0)
