// Keeps the newest words in sight, unless the reader has scrolled away from them.

import { make } from "./dom.js";
import { t } from "./strings.js";

const NEAR = 80; // pixels from the end that still count as being there

export class Follower {
  constructor() {
    this.following = true;
    this.button = make("button", { type: "button", class: "to-latest", hidden: true, "aria-label": t("page_latest") }, "↓");
    this.button.addEventListener("click", () => this.toEnd());
    document.getElementById("composer")?.append(this.button);
    addEventListener("scroll", () => this.look(), { passive: true });
    addEventListener("resize", () => this.follow(), { passive: true });
    // A reader who turns the wheel up leaves at once, before the next words could pull the page down again.
    addEventListener("wheel", (event) => event.deltaY < 0 && this.leave(), { passive: true });
  }

  get page() {
    return document.scrollingElement;
  }

  /** Nothing has been said yet: what the page shows instead is read from its beginning. */
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
    const up = scrollTop < (this.top ?? 0);
    this.top = scrollTop;
    if (scrollHeight - scrollTop - clientHeight < NEAR) this.following = true;
    else if (up) this.following = false;
    this.button.hidden = this.following;
  }

  leave() {
    if (this.idle || this.page.scrollHeight <= this.page.clientHeight) return;
    this.following = false;
    this.button.hidden = false;
  }

  follow() {
    if (this.following && !this.idle) this.scroll();
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

  /** Follow again from the next words on. */
  rejoin() {
    this.following = true;
    this.button.hidden = true;
  }

  toEnd() {
    this.rejoin();
    this.scroll();
  }
}
