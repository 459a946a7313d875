// Binds what the page stores in this browser to the login, so that the next person cannot see it. Imported first.

const OURS = "magistral-ui-";
const TAG = "magistral-ui-login"; // in both storages: by which login what lies there came
const PLACE = "magistral-ui-place"; // see ui/page.py; without names, it is all that leads back to what was said

/** A hash that identifies the login; "" without names, undefined without a login; see ui/translated_page.py. */
const login = document.documentElement.dataset.login;
const named = Boolean(login);
const line = new BroadcastChannel(TAG);
const CHECK_INTERVAL_MS = 5_000; // between two checks whether the login is still valid
let leaving = false;
let looked = -CHECK_INTERVAL_MS;

/** Whether this page is being left: then nothing more is stored. */
export const left = () => leaving;

/** `localStorage` and `sessionStorage`, if the browser allows them. */
function* storages() {
  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      yield/** @type {Storage} */ (window[/** @type {keyof Window} */ (name)]);
    } catch {
      // Disabled, so nothing is stored there.
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

/** Clear what another login has left; what was stored before there were names belongs to the first person who signs in. */
function clearOtherLogins() {
  for (const storage of storages()) {
    const before = storage.getItem(TAG);
    if (before !== null && before !== (login ?? "")) clear(storage, null);
    try {
      if (login) storage.setItem(TAG, login);
    } catch {
      clear(storage, PLACE); // storage is full; what cannot be marked must not be left to the next person
    }
  }
}

/**
 * Hide the page and reload it with the current login; without `keeping`, clear everything stored in the browser.
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

/** The server no longer accepts this login. An unsent message is restored once the same person has signed in again. */
export function loginExpired() {
  if (leaving) return;
  dispatchEvent(new Event("login-over"));
  leave(true);
}

/**
 * Check the login when someone comes back to the page, but not in the meantime: that would keep the login alive.
 * @param {Event} event
 */
async function look({ type }) {
  const lately = performance.now() - looked < CHECK_INTERVAL_MS && type !== "visibilitychange";
  if (document.hidden || leaving || lately) return;
  looked = performance.now();
  const answer = await fetch("magistral/model", { cache: "no-store" }).catch(() => null); // the server is unreachable, which is shown elsewhere
  if (answer?.status === 401) loginExpired();
}

/** Sign out: here, in the browser's other tabs, and on the server, which ends running responses. */
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
  // A page in the back/forward cache would show the conversation to whoever goes back.
  addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
}
