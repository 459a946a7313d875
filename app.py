"""Reads the settings, opens the engine, serves the page and waits; everything else is done in the package."""

import contextlib
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # Python leaves it out with -P or PYTHONSAFEPATH
    if sys.version_info < (3, 10):  # noqa: UP036  # it is started with any, and would end with a trace
        from magistral_ui.doctor.old_python import refuse

        refuse()
    if sys.argv[1:2] == ["doctor"]:  # before anything is imported that may be what is broken
        from magistral_ui.doctor.command import run

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as at Ctrl-C, what it has started is ended
        os._exit(run(sys.argv[2:]))  # a child that waits for a driver is not waited for

from magistral_ui.environment import (
    ProxyUnusable,
    check_proxies,
    is_here,
    open_streams,
    prepare_environment,
    quiet_warnings,
    tell,
    without_proxies,
)
from magistral_ui.errors import BadSetting, MagistralUIError, ServeError
from magistral_ui.i18n.texts import sentence, text
from magistral_ui.models.folder import AUTO, check_name
from magistral_ui.settings import Settings, read_settings

if TYPE_CHECKING:
    from gradio import Blocks

    from magistral_ui.engines.base import EngineStatus
    from magistral_ui.engines.remote.engine import RemoteEngine
    from magistral_ui.engines.switching.switchable import SwitchableEngine
    from magistral_ui.engines.weights.library import ModelLibrary
    from magistral_ui.engines.zerogpu.engine import ZeroGPUEngine
    from magistral_ui.sessions.visitors import Visitors
    from magistral_ui.ui.model_actions import ModelActions

METRICS_TOKEN = "MAGISTRAL_UI_METRICS_TOKEN"
"""The variable with the token for reading /metrics from elsewhere; no flag, because other users could read that."""
ENGINE_CLOSE_TIMEOUT = 1.0
SIGNAL_POLL_SECONDS = 1.0
SWITCH_INTERVAL = 1e-3 if sys.platform == "win32" else 20e-6  # Windows waits for whole milliseconds
"""Seconds after which a thread releases Python's lock (the GIL) to another that waits for it. The engine takes that lock again
for each of the hundreds of operations of a step: with Python's 5 ms, a busy page would delay everybody's replies by seconds."""


def main() -> int:
    """Serve until Ctrl-C or SIGTERM (0), or say why not (2)."""
    open_streams()
    quiet_warnings()
    listen(leave)
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        if settings.plan:
            from magistral_ui.plan_command import print_plan

            print_plan(
                settings.model if settings.engine == "local" else None,
                settings.device,
                precision=settings.precision,
                threads=settings.threads,
                kv_type=settings.kv_type,
                context=settings.context,
            )
            return 0
        if settings.model and settings.engine == "local":
            check_name(settings.model, settings.precision)
        for message in prepare_environment(os.environ):
            tell(text(message.key, **message.values), sys.stderr)
        if settings.base_url and settings.engine == "openai":
            check_proxy_for(settings.base_url)
        serve(settings)
    except MagistralUIError as error:
        tell(sentence(error.message), sys.stderr)
        return 2
    except KeyboardInterrupt:  # the second one
        pass
    return 0


def listen(ask: Callable[..., None]) -> None:
    """Call `ask` at Ctrl-C and at SIGTERM, instead of raising KeyboardInterrupt: what is imported may swallow that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)


def leave(*_: object) -> None:
    os._exit(0)


def is_lent_a_gpu(environment: Mapping[str, str]) -> bool:
    """Whether this is a ZeroGPU Space; the spaces package asks the same."""
    return environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def open_engine(settings: Settings) -> "SwitchableEngine | RemoteEngine | ZeroGPUEngine":
    """The chosen engine, not started yet; a remote one never imports torch."""
    if settings.engine == "openai" and settings.base_url:
        from magistral_ui.engines.remote.engine import RemoteEngine
        from magistral_ui.engines.remote.server_address import address_of

        return RemoteEngine(
            address_of(settings.base_url, os.environ),
            model=settings.model,
            dialect=settings.dialect,
            context_length=settings.context,
        )
    if is_lent_a_gpu(os.environ):
        import spaces

        from magistral_ui.engines.zerogpu.engine import ZeroGPUEngine

        return ZeroGPUEngine(
            settings.model, decorate=spaces.GPU, context_length=settings.context, revision=settings.revision
        )
    from magistral_ui.engines.base import ModelRequest
    from magistral_ui.engines.switching.open_engine import check_settings
    from magistral_ui.engines.switching.switchable import SwitchableEngine

    request = ModelRequest(
        settings.model or default_model(),
        device=settings.device,
        precision=settings.precision,
        context_length=settings.context,
        threads=settings.threads,
        revision=settings.revision,
        save_quantized=settings.save_quantized,
        kv_type=settings.kv_type,
    )
    check_settings(request)
    return SwitchableEngine(request, settings.idle_minutes)


def default_model() -> str | None:
    """What runs if no model is named: on a Space with a GPU, whose owner asked for it, the best one is downloaded."""
    if not os.environ.get("SPACE_ID"):
        return None
    from magistral_ui.engines.weights.gpu_diagnosis import find_graphics_cards

    return AUTO if any(card.driver for card in find_graphics_cards()) else None


def check_proxy_for(url: str) -> None:
    try:
        if not is_here(urlsplit(url).hostname or ""):
            check_proxies()
    except ProxyUnusable as error:
        raise BadSetting("proxy_unusable", name=error.name) from error


def check_address(settings: Settings) -> None:
    """Raise PortInUse or ServeError at once if the address or the port cannot be listened on. The page binds them later."""
    from magistral_ui.web.server_socket import bind

    for listener in bind(settings.host, (settings.port or 0,)):
        listener.close()


def import_gradio() -> None:
    """Import Gradio, the largest library, which creates HTTP clients when it is imported. ServeError if that fails."""
    try:
        with without_proxies():
            import gradio  # noqa: F401
    except (ImportError, KeyError, OSError, ValueError) as error:
        raise ServeError("libraries_failed", reason=f"{type(error).__name__}: {str(error)[:200]}") from error


def data_folder(settings: Settings) -> Path:
    """Where conversations are kept. BadSetting if the user has no home folder and no other was named."""
    from platformdirs import user_data_path

    folder = Path(settings.data_dir) if settings.data_dir else user_data_path("magistral-ui", appauthor=False)
    if str(folder).startswith("~") and not settings.data_dir:
        reason = os.strerror(errno.ENOENT)
        raise BadSetting("folder_unusable", name="MAGISTRAL_UI_DATA_DIR", folder=str(folder), reason=reason)
    return folder


def serve(settings: Settings) -> None:
    """Open the page first, then load the model; return at the first signal to end, raise KeyboardInterrupt at the second."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.disable()  # searching what the libraries create for garbage takes a quarter of the startup time, and frees nothing
    check_address(settings)
    here = settings.engine == "local" and not is_lent_a_gpu(os.environ)
    opened = open_engine(settings) if here else None  # what it lacks is said at once, too
    import_gradio()
    # Imported late, so that --help and wrong flags are answered at once.
    from magistral_ui.json_log import start_json_log
    from magistral_ui.sessions.history.database import History
    from magistral_ui.sessions.public_engine import PublicEngine
    from magistral_ui.sessions.visitors import Visitors
    from magistral_ui.ui.launch import launch
    from magistral_ui.ui.page import build_page
    from magistral_ui.web.access import admins_of, announcement, check_admins, limits_of, passwords_of
    from magistral_ui.web.exposure import exposure_of
    from magistral_ui.web.hf_oauth import hugging_face_login

    exposure = exposure_of(settings.host, settings.share, os.environ, settings.trusted_proxies)
    limits = limits_of(settings.limits, exposure)
    admins = admins_of(settings.admin)
    identity = hugging_face_login(settings.auth, exposure, os.environ, admins)
    passwords, made = passwords_of(settings.auth, exposure, settings.no_password)
    if exposure.shared and identity is None:
        check_admins(settings.admin, passwords)
    engine = opened or open_engine(settings)
    if settings.engine == "local" and not here:
        engine.start()  # the weights are placed when the page is launched
    over = threading.Event()

    def ask(*_: object) -> None:
        if over.is_set():
            raise KeyboardInterrupt
        over.set()

    listen(ask)
    known = PublicEngine(engine, limits) if exposure.shared else engine
    visitors = Visitors(known, limits, History(data_folder(settings), settings.keep_days))
    models = model_actions_of(engine, shared=exposure.shared)
    page = build_page(known, visitors, login=passwords is not None, hugging_face=identity is not None)
    try:
        token = os.environ.get(METRICS_TOKEN, "")
        where: dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            "exposure": exposure,
            "models": models,
            "admins": admins,
        }
        url = launch(page, visitors, passwords=passwords, token=token, identity=identity, **where)
        gc.freeze()
        gc.enable()
        if exposure.shared:
            start_json_log()
        tell("\n".join(announcement(url, exposure, limits, passwords, made)))
        engine.start()
        wait(over, engine.status)
    finally:
        try:
            if limits.closing_seconds and (count := len(visitors.admission.running())):
                tell(text("app_finishing", count=count, seconds=limits.closing_seconds))
            visitors.admission.drain(limits.closing_seconds)
        finally:  # also at a second signal
            models.close()
            end(page, visitors, engine)


def model_actions_of(engine: "SwitchableEngine | RemoteEngine | ZeroGPUEngine", *, shared: bool) -> "ModelActions":
    """What the page's owner can do with models; only the local engine can switch."""
    from magistral_ui.engines.switching.switchable import SwitchableEngine
    from magistral_ui.ui.model_actions import ModelActions

    if not isinstance(engine, SwitchableEngine):
        from magistral_ui.engines.remote.engine import RemoteEngine

        why_not = "models_elsewhere" if isinstance(engine, RemoteEngine) else "models_on_zerogpu"
        return ModelActions(shared=shared, why_not=why_not)

    def open_library() -> "ModelLibrary":
        from magistral_ui.engines.weights.library import ModelLibrary

        return ModelLibrary(engine.repositories_in_use)

    return ModelActions(engine, open_library, shared=shared)


def wait(over: threading.Event, status: "Callable[[], EngineStatus]") -> None:
    """Wait until it is `over`. Once the model is ready, what is in memory stays, and is exempt from garbage collection.

    Collecting among all that the libraries have created would stop everything for a third of a second, again and again.
    """
    from magistral_ui.engines.base import Ready

    # On Windows, a signal is noticed only between two waits.
    while not (over.wait(SIGNAL_POLL_SECONDS) or isinstance(status(), Ready)):
        pass
    if not over.is_set():
        gc.collect()
        gc.freeze()
    while not over.wait(SIGNAL_POLL_SECONDS):
        pass


def end(page: "Blocks", visitors: "Visitors", engine: "SwitchableEngine | RemoteEngine | ZeroGPUEngine") -> None:
    from magistral_ui.ui.launch import close

    close(page)
    visitors.close()
    # Loading a model cannot be interrupted, so it is not waited for.
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(timeout=ENGINE_CLOSE_TIMEOUT)


if __name__ == "__main__":
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # its reader may be gone
            stream.flush()
    os._exit(code)  # all is closed; to end torch, perhaps in the middle of loading, would take seconds more
