// Ties what the page stores in this browser to the login: whoever signs in next does not find it. Imported before all else.

const OURS = "magistral-ui-";
const TAG = "magistral-ui-login"; // in both storages: by which login what lies there came
const PLACE = "magistral-ui-place"; // see ui/page.py; without names, it is all that leads back to what was said

/** What stands for the login's name, "" without names, undefined where there is no login; see ui/translated_page.py. */
const login = document.documentElement.dataset.login;
const named = Boolean(login);
const line = new BroadcastChannel(TAG);
const PAUSE = 5_000; // ms between two questions whether the login still holds
let leaving = false;
let looked = -PAUSE;

/** Whether this page is on its way out: then nothing more is put down. */
export const left = () => leaving;

/** `localStorage` and `sessionStorage`, as far as this browser lets the page have them. */
function* storages() {
  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      yield/** @type {Storage} */ (window[/** @type {keyof Window} */ (name)]);
    } catch {
      // Switched off: nothing lies there.
    }
  }
}

/**
 * @param {Storage} storage
 * @param {string | null} keeping
 */
function clear(storage, keeping) {
  for (const key of Object.keys(storage)) if (key.startsWith(OURS) && key !== keeping) storage.removeItem(key);
}

function clearAll() {
  for (const storage of storages()) clear(storage, named ? null : PLACE);
}

/** Clears what another login has left here; what is older than names belongs to the first one who signs in. */
function clearOtherLogins() {
  for (const storage of storages()) {
    const before = storage.getItem(TAG);
    if (before !== null && before !== (login ?? "")) clear(storage, null);
    try {
      if (login) storage.setItem(TAG, login);
    } catch {
      clear(storage, PLACE); // full; what cannot be told apart is not left to the next one
    }
  }
}

/**
 * Show nothing more, and come back as whoever is in now; without `keeping`, nothing of this one is left in the browser.
 * @param {boolean} keeping
 */
function leave(keeping) {
  if (leaving) return;
  leaving = true;
  document.documentElement.style.visibility = "hidden";
  if (!keeping) {
    clearAll();
    addEventListener("pagehide", clearAll); // after whatever else is stored then
  }
  location.replace(new URL(".", document.baseURI).href);
}

/** The server no longer accepts this login. Unsent words come back once the same person has signed in again. */
export function loginExpired() {
  if (leaving) return;
  dispatchEvent(new Event("login-over"));
  leave(true);
}

/**
 * Whoever comes back to the page sees it only if they are still in. Nobody asks while nobody is there: that would keep the login.
 * @param {Event} event
 */
async function look({ type }) {
  const lately = performance.now() - looked < PAUSE && type !== "visibilitychange";
  if (document.hidden || leaving || lately) return;
  looked = performance.now();
  const answer = await fetch("magistral/model", { cache: "no-store" }).catch(() => null); // without its app, a page has other worries
  if (answer?.status === 401) loginExpired();
}

/** Sign out: here, in the browser's other tabs, and on the server, which ends what is still on its way. */
export async function signOut() {
  await fetch("logout", { method: "POST", redirect: "manual" });
  line.postMessage(null);
  leave(false);
}

line.addEventListener("message", ({ data }) => data !== (login ?? "") && leave(false));
clearOtherLogins();
if (login !== undefined) {
  line.postMessage(login);
  for (const kind of ["visibilitychange", "focus", "pointerdown", "keydown"])
    addEventListener(kind, look, { passive: true });
  addEventListener("pagehide", () => (document.documentElement.style.visibility = "hidden"));
  // A page that the browser has kept would show what was said to whoever goes back.
  addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
}
