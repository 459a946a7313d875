// Autoscroll: keeps the end of a growing reply in view, unless the reader has scrolled away.

import { make } from "./dom.js";
import { t } from "./i18n.js";

const NEAR_END_PIXELS = 80; // from the end that still count as being there
const MANUAL_SCROLL_MS = 1_000; // after a touch or a key in which scrolling is the reader's

export class Follower {
  constructor() {
    this.following = true;
    /** @type {boolean | undefined} */
    this.idle = undefined; // unknown until the first conversation is shown
    /** When the reader last used touch or the keyboard. */
    this.handled = -Infinity;
    this.top = 0;
    this.height = 0;
    this.covered = 0;
    this.waiting = false;
    this.button = make(
      "button",
      { type: "button", class: "to-latest", hidden: true, "aria-label": t("page_latest") },
      "↓",
    );
    this.button.addEventListener("click", () => this.toEnd());
    const composer = document.getElementById("composer");
    composer?.append(this.button);
    addEventListener("scroll", () => this.look(), { passive: true });
    addEventListener("resize", () => this.follow(), { passive: true });
    // Scrolling up with the wheel stops following at once, before new text can scroll the page down again.
    addEventListener("wheel", (event) => event.deltaY < 0 && this.leave(), { passive: true });
    for (const hand of ["touchmove", "keydown"])
      addEventListener(hand, () => (this.handled = performance.now()), { passive: true });
    if (composer) new ResizeObserver(([{ borderBoxSize }]) => this.cover(borderBoxSize[0].blockSize)).observe(composer);
  }

  get page() {
    return /** @type {Element} */ (document.scrollingElement);
  }

  /** Pixels to the end of the conversation. */
  get left() {
    const { scrollTop, scrollHeight, clientHeight } = this.page;
    return scrollHeight - scrollTop - clientHeight;
  }

  /**
   * In an empty conversation (`idle`), show the page from its top.
   * @param {boolean} idle
   */
  rest(idle) {
    if (idle && !this.idle) {
      this.page.scrollTop = 0;
      this.button.hidden = true;
    }
    this.idle = idle;
  }

  look() {
    if (this.idle) return;
    const { scrollTop, scrollHeight, clientHeight } = this.page;
    const up = this.top - scrollTop;
    // The browser also scrolls up if content above the viewport shrinks, but by less than a screen.
    const isByBrowser =
      scrollHeight !== this.height && up < clientHeight && !(performance.now() - this.handled < MANUAL_SCROLL_MS);
    Object.assign(this, { top: scrollTop, height: scrollHeight });
    if (this.left < NEAR_END_PIXELS) this.following = true;
    else if (up > 0 && isByBrowser) this.follow();
    else if (up > 0) this.following = false;
    this.button.hidden = this.following;
  }

  /**
   * The composer's height has changed: a notice above its box covers the end of the conversation.
   * @param {number} height
   */
  cover(height) {
    const more = height - this.covered;
    this.covered = height;
    if (this.left < NEAR_END_PIXELS + more) this.follow();
  }

  leave() {
    if (this.idle || this.page.scrollHeight <= this.page.clientHeight) return;
    this.following = false;
    this.button.hidden = false;
  }

  follow() {
    if (this.following && this.idle === false) this.scroll();
  }

  scroll() {
    if (this.waiting) return;
    this.waiting = true;
    const scroll = () => {
      this.waiting = false;
      if (this.following) this.page.scrollTop = this.page.scrollHeight;
    };
    if (document.hidden) scroll();
    else requestAnimationFrame(scroll);
  }

  /** Follow again from the next update on. */
  rejoin() {
    this.following = true;
    this.button.hidden = true;
  }

  toEnd() {
    this.rejoin();
    this.scroll();
  }
}
