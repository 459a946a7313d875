"""Attacks of programs: sessions of MCP by the hundred and by others, calls that nobody reads, others' files."""

import base64
import secrets
from typing import Any

import httpx

from tests.soak.attacks.attack import PASSWORD, Stranger, attack
from tests.soak.attacks.files import attached, image

LIMITS = ["429", "503"]
JSON = {"Content-Type": "application/json"}
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}


def mcp(stranger: Stranger, method: str, params: Any, session: str = "", name: str = "") -> httpx.Response:
    """A request of a program that sends its password along, by its own name or another of this stranger's."""
    pair = base64.b64encode(f"{name or stranger.name}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}", "Accept": "application/json, text/event-stream"}
    if session:
        headers |= {"Mcp-Session-Id": session, "Mcp-Protocol-Version": "2025-06-18"}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return stranger.outside.post("/mcp", json=body, headers=headers)


@attack("sessions of MCP, by the hundred", per_minute=120, reaches=["200"], may=LIMITS)
def many_sessions(stranger: Stranger) -> str:
    return str(mcp(stranger, "initialize", HELLO).status_code)


@attack("requests of programs that are too large", per_minute=6, reaches=["413", "429"], may=["cut", "408", "503"])
def too_large(stranger: Stranger) -> str:
    """They do not say how large they are, so they are cut where too much of them has come; six take the hour's bytes."""
    pair = base64.b64encode(f"{stranger.name}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}", "Accept": "application/json, text/event-stream"}
    piece = b'{"a": "' + b"x" * 1_100_000
    pieces = (piece for _ in range(31))
    return str(stranger.outside.post("/mcp", content=pieces, headers=headers | JSON).status_code)


@attack("another program's session of MCP, used and ended", per_minute=30, reaches=["400", "403", "404"], may=LIMITS)
def anothers_session(stranger: Stranger) -> str:
    def begin() -> str:
        return mcp(stranger, "initialize", HELLO).raise_for_status().headers.get("mcp-session-id", "none")

    session, thief = stranger.once("session", begin), stranger.name + " too"
    used = mcp(stranger, "tools/list", {}, session, thief)
    if used.status_code == 200:
        return "used"
    pair = base64.b64encode(f"{thief}:{PASSWORD}".encode()).decode()
    named = {"Authorization": f"Basic {pair}", "Mcp-Session-Id": session}
    ended = stranger.outside.delete("/mcp", headers=named)
    return "ended" if ended.status_code in (200, 202, 204) else str(used.status_code)


@attack("calls that nobody reads", per_minute=30, reaches=["200"], may=LIMITS)
def unread_calls(stranger: Stranger) -> str:
    data = [{"text": "What is 123 + 456?"}, {"max_tokens": 300}]
    return str(stranger.post("/gradio_api/call/chat", json={"data": data}).status_code)


@attack("calls in the queue that nobody reads", per_minute=60, reaches=["200"], may=LIMITS)
def unread_events(stranger: Stranger) -> str:
    def number() -> int:
        known = stranger.door.http.get("/config").json()["dependencies"]
        return int(next(each["id"] for each in known if each["api_name"] == "chat"))

    body = {
        "data": [{"text": "hi"}, None],
        "fn_index": stranger.once("chat", number),
        "session_hash": stranger.door.tab,
    }
    return str(stranger.post("/gradio_api/queue/join", json=body).status_code)


@attack("a tool that is told another's file", per_minute=30, reaches=["400", "404"], may=LIMITS)
def tool_reads(stranger: Stranger) -> str:
    path = stranger.once("path", lambda: attached(stranger, image(8))[0]["path"])
    arguments = {"question": "what?", "pictures": [path]}
    call = {"name": "ask_magistral", "arguments": arguments}
    return str(mcp(stranger, "tools/call", call, name=stranger.name + " too").status_code)


@attack("calls and answers of others, by guessed ids", per_minute=60, reaches=["404"], may=LIMITS)
def others_calls(stranger: Stranger) -> str:
    return str(stranger.door.http.get(f"/gradio_api/call/chat/{secrets.token_hex(16)}").status_code)


@attack("running replies of others, by guessed ids", per_minute=60, reaches=["404"], may=LIMITS)
def others_replies(stranger: Stranger) -> str:
    headers = {"X-Generation": secrets.token_urlsafe(32), "Last-Event-ID": "0"}
    return str(stranger.door.http.get("/magistral/live", headers=headers).status_code)
