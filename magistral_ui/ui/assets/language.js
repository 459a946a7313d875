// Lets the visitor choose the page's language; a cookie keeps the choice, so that the server renders the page in it.

import { make } from "./dom.js";
import { t } from "./i18n.js";

/** @import { Language } from "./types.js" */

const LANGUAGE_COOKIE = "magistral-ui-language"; // see i18n/languages.py
const YEAR = 31_536_000;

export class LanguageView {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.select = make("select", { id: "language-choice" });
    this.select.addEventListener("change", () => {
      keep(this.select.value);
      location.reload(); // the conversation, a running reply and an unsent message are restored
    });
    element.replaceChildren(make("label", { htmlFor: "language-choice" }, t("language_heading")), this.select);
  }

  /**
   * `{languages: [{tag, name, code}]}`: the available languages.
   * @param {{ languages: Language[] }} value
   */
  show({ languages }) {
    const chosen = kept();
    const option = (/** @type {Language} */ { code, name, tag }) =>
      make("option", { value: code, lang: tag, dir: "auto", selected: code === chosen }, name);
    this.select.replaceChildren(make("option", { value: "" }, t("language_of_browser")), ...languages.map(option));
  }
}

function kept() {
  const found = document.cookie.split("; ").find((each) => each.startsWith(`${LANGUAGE_COOKIE}=`));
  return found?.slice(LANGUAGE_COOKIE.length + 1) ?? "";
}

/** @param {string} code */
function keep(code) {
  const path = new URL(".", document.baseURI).pathname;
  // Inside another site's frame, as on a Space, only a partitioned cookie is kept.
  const framed = window.top !== window && location.protocol === "https:";
  const where = framed ? "SameSite=None; Secure; Partitioned" : "SameSite=Lax";
  // biome-ignore lint/suspicious/noDocumentCookie: Safari has no other way, and pages without https have none
  document.cookie = `${LANGUAGE_COOKIE}=${code}; path=${path}; max-age=${code ? YEAR : 0}; ${where}`;
}
