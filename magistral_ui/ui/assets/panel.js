// Opens and closes the settings: a column beside the conversation on wide screens, a drawer above it on narrow ones.

const WIDE = matchMedia("(min-width: 1100px)");

/** Wait for Gradio to have drawn the page, then join the button to the panel. */
export function setUpPanel() {
  const find = () => ["settings-toggle", "settings", "settings-close"].map((id) => document.getElementById(id));
  const [toggle, panel, close] = find();
  if (!toggle || !panel || !close) {
    requestAnimationFrame(setUpPanel);
    return;
  }
  const set = (open) => {
    document.body.classList.toggle("panel-open", open);
    toggle.setAttribute("aria-expanded", String(open));
    panel.inert = !open;
    panel.setAttribute("aria-hidden", String(!open));
  };
  toggle.setAttribute("aria-controls", "settings");
  toggle.addEventListener("click", () => {
    const open = !document.body.classList.contains("panel-open");
    set(open);
    if (open && !WIDE.matches) close.focus();
  });
  close.addEventListener("click", () => {
    set(false);
    toggle.focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !document.body.classList.contains("panel-open") || WIDE.matches) return;
    set(false);
    toggle.focus();
  });
  WIDE.addEventListener("change", () => set(WIDE.matches));
  set(WIDE.matches);
}
