"""Runs axe-core on an open page, in the light and the dark theme; it does not know what is open there."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SCHEMES = ("light", "dark")
# Only what is wrong is reported: with all that is right, a report is megabytes long and takes longer than the rules.
RUN = """async (rules) => {
  const found = await axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
  return found.violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)} ${failureSummary}`));
}"""


def violations(page: Any) -> list[str]:
    """What axe-core finds in the page as it is, one line for each place."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    return list(page.evaluate(RUN, RULES))


def violations_in_both_themes(page: Any) -> list[str]:
    """The same in the light and in the dark theme, into which the page changes while it is open."""
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        expect(page.locator("body.dark")).to_have_count(int(scheme == "dark"))
        found += [f"{scheme}: {each}" for each in violations(page)]
    return found
