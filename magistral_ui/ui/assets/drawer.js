// Opens and closes a panel beside the conversation: a column on wide screens, a drawer over it on narrow ones.

/**
 * Open the panel with the button `<id>-toggle`, unless it is open, and take the reader to `target` in it.
 * @param {string} id
 * @param {HTMLElement | null} target
 * @param {ScrollLogicalPosition} block
 */
export function showInDrawer(id, target, block = "start") {
  const toggle = document.getElementById(`${id}-toggle`);
  if (toggle?.getAttribute("aria-expanded") !== "true") toggle?.click();
  target?.scrollIntoView({ block });
  target?.focus({ preventScroll: true });
}

/**
 * Wait until Gradio has rendered the page, then connect the button `<id>-toggle` to the panel `<id>`. While it is open, `body` has the
 * class `shown`; on screens that match the media query `wide`, it is open at first.
 * @param {string} id
 * @param {string} shown
 * @param {string} wide
 */
export function setUpDrawer(id, shown, wide) {
  const [toggle, panel, close] = [`${id}-toggle`, id, `${id}-close`].map((each) => document.getElementById(each));
  if (!toggle || !panel || !close) {
    requestAnimationFrame(() => setUpDrawer(id, shown, wide));
    return;
  }
  const column = matchMedia(wide);
  const isOpen = () => document.body.classList.contains(shown);
  const set = (/** @type {boolean} */ open) => {
    document.body.classList.toggle(shown, open);
    toggle.setAttribute("aria-expanded", String(open));
    panel.inert = !open;
    panel.setAttribute("aria-hidden", String(!open));
  };
  const leave = () => {
    set(false);
    toggle.focus();
  };
  toggle.setAttribute("aria-controls", id);
  toggle.addEventListener("click", () => {
    set(!isOpen());
    if (isOpen() && !column.matches) close.focus();
  });
  close.addEventListener("click", leave);
  // A drawer covers the conversation that was chosen in it.
  panel.addEventListener("chosen", () => !column.matches && leave());
  // The keyboard shortcut: Escape closes a drawer.
  addEventListener(
    "keydown",
    (event) => event.key === "Escape" && !event.defaultPrevented && isOpen() && !column.matches && leave(),
  );
  column.addEventListener("change", () => set(column.matches));
  set(column.matches);
}
