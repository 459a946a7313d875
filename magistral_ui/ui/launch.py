"""Serves a built page: its assets and routes, the port, and the share link; not what is on the page."""

import contextlib
import secrets
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import httpx
from gradio import networking
from gradio.exceptions import ChecksumMismatchError, ShareCertificateWriteError
from starlette.middleware import Middleware
from starlette.routing import Mount

from magistral_ui.environment import ProxyUnusable, check_proxies, without_proxies
from magistral_ui.errors import ServeError
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.actions import action_route, live_route, model_route
from magistral_ui.ui.api.chat_endpoint import ChatBlocks
from magistral_ui.ui.api.mcp_route import mcp_route
from magistral_ui.ui.asset_files import ASSETS_URL, AssetFiles
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.import_export import exchange_routes
from magistral_ui.ui.model_actions import ModelActions
from magistral_ui.ui.theme import theme
from magistral_ui.ui.translated_page import complete, texts_route
from magistral_ui.web.client_address import PROBE_HEADER
from magistral_ui.web.connections import open_to_visitors
from magistral_ui.web.exposure import Exposure, seen_by
from magistral_ui.web.gradio_events import ApiFunction
from magistral_ui.web.hf_oauth import HuggingFaceLogin
from magistral_ui.web.middleware import gradio_middleware, middleware_stack, wrap
from magistral_ui.web.passwords import Passwords
from magistral_ui.web.request_body import JsonBodies
from magistral_ui.web.security_headers import CompletedPageMiddleware
from magistral_ui.web.server_socket import WILDCARD_HOSTS, allow_many_files, bind, served_on, url_of
from magistral_ui.web.uploads import Ownership

STYLES = ("vendor/katex", "page", "answer", "transcript", "history", "panel", "touch")
DEFAULT_PORTS = range(7860, 7960)
QUEUE_POLL_SECONDS = 0.1
"""Seconds between two polls of Gradio's queue, which only programs use; Gradio's thousand polls a second take 4 % of a core."""
PROGRESS_POLL_SECONDS = 5.0
"""The same for Gradio's progress messages, of which this page has none."""
KEPT_ANALYTICS = 1
"""Calls whose durations Gradio keeps: it computes statistics of all of them after each, and nothing here asks for these."""
PROBE_ADDRESS = "192.0.2.1"
"""An address that nobody has (RFC 5737)."""
PROBE_TIMEOUT = 10.0


def head() -> str:
    """Our styles and scripts for the page's head, all from this server; translated_page.py adds the texts."""
    links = [f'<link rel="stylesheet" href="{ASSETS_URL}/{name}.css">' for name in STYLES]
    return "\n".join([*links, f'<link rel="modulepreload" href="{ASSETS_URL}/main.js">'])


def listeners(demo: gr.Blocks) -> dict[int, ApiFunction]:
    return {
        number: ApiFunction(
            name=str(each.api_name),
            values=len(each.inputs),
            triggers=frozenset(target for target, _ in each.targets if target is not None),
        )
        for number, each in demo.fns.items()
        if each.fn is not None  # what runs only in the browser cannot be called here
    }


def launch_options(visitors: Visitors) -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` that make Gradio safe and quiet, and add our other routes."""
    return {
        "theme": theme(),
        "head": head(),
        "app_kwargs": {
            "middleware": [Middleware(CompletedPageMiddleware, complete=complete)],
            "routes": [
                mcp_route(visitors),
                *exchange_routes(visitors),
                texts_route(),
                Mount("/magistral", AssetFiles()),
            ],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        "footer_links": [],
        "ssr_mode": False,
        "share": False,
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": visitors.limits.picture_bytes,
        "state_session_capacity": 200,
        "pwa": False,
        # Gradio would ask itself for the page first, and not serve if a busy machine takes three seconds to answer.
        "_frontend": False,
        "quiet": True,
    }


def launch(
    demo: ChatBlocks,
    visitors: Visitors,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    exposure: Exposure | None = None,
    passwords: Passwords | None = None,
    token: str = "",
    identity: HuggingFaceLogin | None = None,
    models: ModelActions | None = None,
    admins: frozenset[str] = frozenset(),
) -> str:
    """Serve `demo`, built for these `visitors`, without blocking, and return its address.

    With `passwords`, only who knows one of them, or is known by their `identity`, can use the page; without, everybody who can
    reach it. Without a port, the first free one from 7860 on is used. Raises PortInUse if `port` is taken, ServeError if
    `host` cannot be listened on or the share link fails.
    """
    sockets = bind(host, (port,) if port is not None else DEFAULT_PORTS)
    port = sockets[0].getsockname()[1]
    exposure = exposure or Exposure(host=host)
    allow_many_files()
    demo._queue.sleep_when_free = QUEUE_POLL_SECONDS
    demo._queue.progress_update_sleep_when_free = PROGRESS_POLL_SECONDS
    demo._queue.ANALYTICS_MAX_EVENTS = KEPT_ANALYTICS
    with served_on(sockets), without_proxies():  # Gradio sends a request to the page to start its events
        demo.launch(**launch_options(visitors), server_name=host, server_port=port, prevent_thread_lock=True)
    ownership, bodies = Ownership(), JsonBodies(visitors.limits)
    actions = action_route(Chat(visitors.engine, visitors), bodies, ownership, models)
    routes = [actions, live_route(visitors), model_route(visitors.engine)]
    stack = [
        *middleware_stack(visitors, exposure, routes, passwords, identity, token, admins),
        *gradio_middleware(visitors.limits, listeners(demo), demo.calls, ownership, bodies),
    ]
    unread = visitors.limits.unread_seconds
    open_to_visitors(demo.server, wrap(demo.app, stack), is_proxy=exposure.proxies.trusts, unread_seconds=unread)
    if exposure.reach == "tunnel":
        exposure.url = open_tunnel(WILDCARD_HOSTS.get(host, host), port, demo.share_token)
        exposure.names.add(urlsplit(exposure.url).hostname or "")
        if exposure.named_proxies is None:
            learn_hops(exposure)
    return f"{exposure.url}/" if exposure.url else url_of(host, port)


def open_tunnel(host: str, port: int, token: str) -> str:
    """Open Gradio's share link, and return its address. ServeError, with the reason, if that fails.

    Not `launch(share=True)`: the page that Gradio serves then loads its scripts from another server.
    """
    try:
        check_proxies()
        address = networking.setup_tunnel(host, port, token, None, None)
    except ProxyUnusable as error:
        raise ServeError("proxy_unusable", name=error.name) from error
    except (
        RuntimeError,
        OSError,
        ValueError,
        httpx.HTTPError,
        ChecksumMismatchError,
        ShareCertificateWriteError,
    ) as error:
        raise ServeError("share_failed", reason=_reason(error)) from error
    return "https://" + address.partition("://")[2] if "://" in address else f"https://{address}"


def learn_hops(exposure: Exposure) -> None:
    """Find out what the share link's proxies write, by a request through the link with a forged X-Forwarded-For.

    They append to it on the way. If the request does not arrive, only the one proxy that is certain is trusted.
    """
    exposure.probe, exposure.probed = secrets.token_urlsafe(32), ""
    headers = {PROBE_HEADER: exposure.probe, "X-Forwarded-For": PROBE_ADDRESS}
    with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
        httpx.get(f"{exposure.url}/healthz", headers=headers, timeout=PROBE_TIMEOUT)
    exposure.probe = ""
    hops = [hop.strip() for hop in exposure.probed.split(",")]
    written = hops[hops.index(PROBE_ADDRESS) + 1 :] if PROBE_ADDRESS in hops else hops
    exposure.named_proxies = seen_by(exposure.proxies.peers, written)


def _reason(error: Exception) -> str:
    """The reason on one line; Gradio hides it in the cause of a general error."""
    reasons = [" ".join(str(each).split()) for each in (error, error.__cause__) if each is not None]
    return ": ".join(line for line in reasons if line)[:200] or type(error).__name__


def close(demo: gr.Blocks) -> None:
    demo.close(verbose=False)
