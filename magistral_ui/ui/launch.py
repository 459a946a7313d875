"""Serves a built page: our assets, the doors that a request passes, and the port; not what is on the page."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from magistral_ui.proxies import alone
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.actions import action_route
from magistral_ui.ui.api.chat_endpoint import ChatBlocks
from magistral_ui.ui.api.mcp_route import mcp_route
from magistral_ui.ui.chat import Chat
from magistral_ui.ui.import_export import exchange_routes
from magistral_ui.ui.routes import live_route, model_route
from magistral_ui.ui.theme import theme
from magistral_ui.ui.translated_page import TranslatedPageMiddleware, texts_route
from magistral_ui.web.byte_quota import ByteQuota
from magistral_ui.web.client_address import ClientAddressMiddleware
from magistral_ui.web.connections import allow_many_files, watch_connections
from magistral_ui.web.duplicate_headers import DuplicateHeadersMiddleware
from magistral_ui.web.exposure import Exposure
from magistral_ui.web.forwarded_headers import ForwardedHeadersMiddleware
from magistral_ui.web.gradio_events import GradioEventsMiddleware, Listener
from magistral_ui.web.health import HealthMiddleware
from magistral_ui.web.host_check import HostCheckMiddleware
from magistral_ui.web.login import Identity, LoginMiddleware
from magistral_ui.web.metrics import Metrics
from magistral_ui.web.ownership import Ownership
from magistral_ui.web.passwords import Passwords
from magistral_ui.web.rate_limit import RateLimitMiddleware
from magistral_ui.web.root_path import RestorePrefixMiddleware, StripPrefixMiddleware
from magistral_ui.web.route_allowlist import RouteAllowlistMiddleware
from magistral_ui.web.security_headers import SecurityHeadersMiddleware
from magistral_ui.web.server_socket import WILDCARD_HOSTS, served_on, take, url_of
from magistral_ui.web.share_tunnel import learn_hops, open_tunnel
from magistral_ui.web.startup_gate import StartupGate
from magistral_ui.web.uploads import UploadsMiddleware

ASSETS = Path(str(resources.files("magistral_ui.ui") / "assets"))
DEFAULT_PORTS = range(7860, 7960)
QUEUE_POLL_SECONDS = 0.1
"""Seconds between two looks of Gradio's queue, which only programs use: looking a thousand times each takes 4 % of a core."""
PROGRESS_POLL_SECONDS = 5.0
"""The same for Gradio's messages of progress, of which this page has none."""
KEPT_ANALYTICS = 1
"""Calls of which Gradio keeps how long they took: it reckons that anew after each, of all, and nothing here asks for it."""
MAX_EVENT_BYTES = 2_000_000
"""Bytes of an event beside the text of a message, which may take six for a character."""
MAX_EVENT_VALUES, MAX_TURN_VALUES = 10_000, 40
"""Values in an event, and in each turn of a history that it brings."""


def head() -> str:
    """What the page's head needs of ours: styles and scripts, all from this server; the texts come with translated_page.py."""
    return "\n".join(
        (
            '<link rel="stylesheet" href="magistral/vendor/katex.css">',
            '<link rel="stylesheet" href="magistral/page.css">',
            '<link rel="stylesheet" href="magistral/transcript.css">',
            '<link rel="stylesheet" href="magistral/history.css">',
            '<link rel="stylesheet" href="magistral/panel.css">',
            '<link rel="stylesheet" href="magistral/touch.css">',
            '<link rel="modulepreload" href="magistral/main.js">',
        )
    )


def middleware_stack(
    demo: ChatBlocks,
    visitors: Visitors,
    exposure: Exposure,
    passwords: Passwords | None,
    token: str = "",
    identity: Identity | None = None,
) -> list[Middleware]:
    """What a request passes, from the outside to Gradio; with the `token`, /metrics is read from elsewhere, too."""
    limits, claims, framed = visitors.limits, Ownership(), exposure.reach == "space"
    hourly = ByteQuota(limits)
    passed = [
        Middleware(ForwardedHeadersMiddleware, exposure=exposure),
        Middleware(StripPrefixMiddleware, exposure=exposure),
        Middleware(SecurityHeadersMiddleware, framed=framed),
        Middleware(HealthMiddleware, visitors=visitors, metrics=Metrics(visitors), exposure=exposure, token=token),
        Middleware(DuplicateHeadersMiddleware),
        Middleware(HostCheckMiddleware, exposure=exposure),
        Middleware(ClientAddressMiddleware, exposure=exposure),
        Middleware(RateLimitMiddleware, limits=limits),
    ]
    if passwords is not None:
        passed.append(Middleware(LoginMiddleware, passwords=passwords, limits=limits, framed=framed, identity=identity))
    return [
        *passed,
        Middleware(RouteAllowlistMiddleware),
        Middleware(UploadsMiddleware, claims=claims, limits=limits, folder=Path(get_upload_folder()), hourly=hourly),
        Middleware(
            GradioEventsMiddleware,
            listeners=listeners(demo),
            claims=claims,
            calls=demo.calls,
            folder=get_upload_folder(),
            most=MAX_EVENT_BYTES + 6 * limits.text_length,
            values=MAX_EVENT_VALUES + MAX_TURN_VALUES * limits.messages,
            hourly=hourly,
        ),
        Middleware(RestorePrefixMiddleware),
    ]


def listeners(demo: gr.Blocks) -> dict[int, Listener]:
    """What each of Gradio's functions is sent."""
    return {
        number: Listener(
            name=str(each.api_name),
            values=len(each.inputs),
            triggers=frozenset(target for target, _ in each.targets if target is not None),
        )
        for number, each in demo.fns.items()
        if each.fn is not None  # what runs in the browser only is nobody's to call here
    }


def launch_options(
    visitors: Visitors,
    middleware: Sequence[Middleware] = (),
) -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` that make Gradio safe and quiet, and serve what is ours."""
    return {
        "theme": theme(),
        "head": head(),
        "app_kwargs": {
            "middleware": list(middleware),
            "routes": [
                action_route(Chat(visitors.engine, visitors)),
                live_route(visitors),
                model_route(visitors.engine),
                mcp_route(visitors),
                *exchange_routes(visitors),
                texts_route(),
                Mount("/magistral", StaticFiles(directory=ASSETS)),
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
        # Gradio would ask itself for the page first, and not serve where a busy machine takes three seconds to answer.
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
    identity: Identity | None = None,
) -> str:
    """Serve `demo`, built for these `visitors`, without blocking, and return its address.

    Only who knows one of the `passwords`, or is known by their `identity`, comes in; without any, everybody whom the `exposure`
    lets reach the page. Without a port, the first free one from 7860 on is used. Raises PortInUse where `port` is taken,
    ServeError where `host` cannot be listened on or there is no share link.
    """
    sockets = take(host, (port,) if port is not None else DEFAULT_PORTS)
    port = sockets[0].getsockname()[1]
    exposure = exposure or Exposure(host=host)
    allow_many_files()
    demo._queue.sleep_when_free = QUEUE_POLL_SECONDS
    demo._queue.progress_update_sleep_when_free = PROGRESS_POLL_SECONDS
    demo._queue.ANALYTICS_MAX_EVENTS = KEPT_ANALYTICS
    shutter = StartupGate()
    with served_on(sockets), alone():  # Gradio asks the page that it serves to begin
        demo.launch(
            **launch_options(visitors, [Middleware(TranslatedPageMiddleware), shutter.middleware]),
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
        )
    shutter.open(demo.app, middleware_stack(demo, visitors, exposure, passwords, token, identity))
    unread = visitors.limits.unread_seconds
    watch_connections(demo.server, is_proxy=exposure.proxies.trusts, unread_seconds=unread)
    if exposure.reach == "tunnel":
        exposure.url = open_tunnel(WILDCARD_HOSTS.get(host, host), port, demo.share_token)
        exposure.names.add(urlsplit(exposure.url).hostname or "")
        if exposure.named_proxies is None:
            learn_hops(exposure)
    return f"{exposure.url}/" if exposure.url else url_of(host, port)


def close(demo: gr.Blocks) -> None:
    """Stop serving."""
    demo.close(verbose=False)
