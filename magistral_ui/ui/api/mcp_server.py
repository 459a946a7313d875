"""The MCP tool `ask_magistral`: one question with images, its answer and reasoning apart; needs requirements-mcp.txt.

A call is a visitor like any call of /chat, with the same limits, and nothing of it is stored.
"""

import asyncio
import time
from contextlib import aclosing
from functools import partial
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    Annotations,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.types import ASGIApp

from magistral_ui import __version__
from magistral_ui.chat.events import Json
from magistral_ui.engines.generation import RunningReply
from magistral_ui.errors import MagistralUIError
from magistral_ui.i18n.texts import sentence, text
from magistral_ui.sessions.live_view import LiveView
from magistral_ui.sessions.session import Session
from magistral_ui.sessions.visitors import Visitors
from magistral_ui.ui.api.mcp_route import SESSION, McpSessions, RunningCall
from magistral_ui.ui.api.models import FinishedReply, ToolRequest, description_of, read_request
from magistral_ui.ui.api.requests import client_of_request, follow_reply, read_tool, wait_for_model, whole_value
from magistral_ui.web.request_body import MAX_MCP_BYTES

TOOL_NAME, TOOL_TITLE = "ask_magistral", "Ask Magistral"
PROGRESS_INTERVAL = 1.0
"""Seconds between two progress notifications: clients abandon a tool that is silent for long."""

Context = ServerRequestContext[Any, Any]


async def serve(visitors: Visitors, sessions: McpSessions, opened: "asyncio.Future[ASGIApp]") -> None:
    """Run the MCP server until cancelled; `opened` receives the app that answers its requests."""
    manager = StreamableHTTPSessionManager(
        server(visitors, sessions), stateless=True, max_request_body_size=MAX_MCP_BYTES
    )
    async with manager.run():
        opened.set_result(StreamableHTTPASGIApp(manager))
        await asyncio.Event().wait()


def server(visitors: Visitors, sessions: McpSessions) -> Server[Any]:
    asker = McpHandlers(visitors, sessions)
    return Server(
        "magistral-ui",
        version=__version__,
        title=text("page_title"),
        on_list_tools=asker.list_tools,
        on_call_tool=asker.call_tool,
    )


class McpHandlers:
    """The server's callbacks."""

    def __init__(self, visitors: Visitors, sessions: McpSessions) -> None:
        self._visitors, self._sessions = visitors, sessions

    async def list_tools(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:  # noqa: ARG002
        tool = Tool(
            name=TOOL_NAME,
            title=TOOL_TITLE,
            description=description_of(ToolRequest),
            input_schema=ToolRequest.model_json_schema(),
            output_schema=FinishedReply.model_json_schema(),
            annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        )
        return ListToolsResult(tools=[tool])

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Ask the question. Errors that the client can correct become a result; disconnecting stops the reply."""
        if params.name != TOOL_NAME:
            raise MCPError(INVALID_PARAMS, text("program_no_tool", name=params.name[:100]))
        guest = self._visitors.temporary_session(client_of_request(context.request))
        session = context.request.headers.get(SESSION) if context.request is not None else None
        try:
            with self._sessions.call(session, context.request_id) as call:
                return await self._ask(context, params.arguments or {}, guest, call)
        except MagistralUIError as error:
            return CallToolResult(content=[TextContent(text=sentence(error.message))], is_error=True)
        finally:
            guest.close()

    async def _ask(self, context: Context, arguments: Json, session: Session, call: RunningCall) -> CallToolResult:
        engine = self._visitors.engine
        progress = ProgressNotifier(context)
        request = read_request(ToolRequest, arguments)
        async for _ in wait_for_model(engine):
            if call.cancelled:
                return CallToolResult(content=[])
            await progress.tell(text("program_loading"))
        running = await self._begin(context, request, session)
        call.generation = running.generation
        if call.cancelled:
            running.generation.stop()
        async with aclosing(follow_reply(running)) as views:
            async for view in views:
                await progress.tell(_progress(view))
                if await _is_gone(context):
                    running.generation.stop()
        return result(whole_value(view, running, session), with_reasoning=request.include_reasoning)

    async def _begin(self, context: Context, request: ToolRequest, session: Session) -> RunningReply:
        """Begin the reply in a thread; with images, once it is the client's turn."""

        def begin() -> RunningReply:
            return read_tool(self._visitors.engine, self._visitors.limits, request).ask(session)

        if not request.pictures:
            return await asyncio.to_thread(begin)
        client = client_of_request(context.request)
        return await self._visitors.images.run(
            client, len(request.pictures), begin, disconnected=partial(_is_gone, context)
        )


class ProgressNotifier:
    """Reports the progress of a reply to a client that requested it."""

    def __init__(self, context: Context) -> None:
        self._context, self._began, self._due = context, time.monotonic(), 0.0

    async def tell(self, message: str) -> None:
        """Report `message`, at most once per interval. The protocol requires a value that only grows: the seconds."""
        seconds = time.monotonic() - self._began
        if seconds >= self._due:
            self._due = seconds + PROGRESS_INTERVAL
            await self._context.session.report_progress(round(seconds, 3), None, message)


def result(reply: Json, *, with_reasoning: bool) -> CallToolResult:
    """The answer and, separately, the reasoning: as text for people, and as a field of the structured reply."""
    answer = reply["answer"] if reply["answer"].strip() else text("turn_no_answer")
    content: list[ContentBlock] = [TextContent(text=answer)]
    if not with_reasoning:
        reply = {**reply, "reasoning": ""}
    elif reply["reasoning"]:
        content.append(TextContent(text=reply["reasoning"], annotations=Annotations(audience=["user"], priority=0.1)))
    return CallToolResult(content=content, structured_content=reply)


def _progress(view: LiveView) -> str:
    draft = view.draft
    match view.state:
        case "queued":
            return text("turn_queued", position=draft.queue_position or 0)
        case "waiting":
            return text("turn_waiting", seconds=round(draft.retry_seconds))
        case "thinking":
            return text("program_thinking", count=view.usage.reasoning_tokens)
        case "answering" | "ended":
            return text("program_answering", count=view.usage.answer_tokens)
        case "reading" if draft.prefilling and draft.prefilling.total:
            return text("turn_reading", percent=100 * draft.prefilling.done // draft.prefilling.total)
    return text("turn_starting")


async def _is_gone(context: Context) -> bool:
    """Whether the client has disconnected: a stream of this server cannot be resumed."""
    return context.request is not None and await context.request.is_disconnected()
