"""What servers and gateways put on the wire, byte by byte, and what a reader has to make of it; the words are our own."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wire:
    """A whole body; `failure` is the key of the sentence that it ends with, where it does not end in order."""

    name: str
    body: bytes
    answer: str = ""
    reasoning: str = ""
    finish: str = "stop"
    failure: str = ""
    content_type: str = "text/event-stream"


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta if delta is not None else {}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def text(*pieces: str) -> bytes:
    return b"".join(data(chunk({"content": piece})) for piece in pieces)


STOP = data(chunk({}, "stop"))
DONE = b"data: [DONE]\n\n"
END = STOP + DONE
ONE, TWO = text("one "), text("two")


def whole(message: Any, finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}


def indented(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def foreign(name: str, between: bytes) -> Wire:
    """Something in the middle that is no part of the reply."""
    return Wire(f"foreign: {name}", ONE + between + TWO + END, "one two")


def error(name: str, body: bytes, failure: str = "remote_error") -> Wire:
    return Wire(f"error: {name}", text("part") + body, "part", failure=failure)


FOREIGN = [
    foreign("an object that pings", data({"type": "ping"})),
    foreign("an event that pings, with an empty object", b"event: ping\ndata: {}\n\n"),
    foreign("an event that pings, with a time", b"event: ping\ndata: 2026-01-01T00:00:00Z\n\n"),
    foreign("an event whose name comes behind its data", b"data: still here\nevent: ping\n\n"),
    foreign("a name without data", b"event: heartbeat\n\n"),
    foreign("plain words", b"data: keep-alive\n\n"),
    foreign("null", b"data: null\n\n"),
    foreign("a number", b"data: 5\n\n"),
    foreign("data without anything", b"data\n\ndata:\n\n"),
    foreign("comments", b": OPENROUTER PROCESSING\n\n:\n:\n\n"),
    foreign("fields of the standard", b"id: 7\nretry: 1000\n\n"),
    foreign("a field that no standard knows", b"trace: abc\n\n"),
    foreign("choices that are null", data({"object": "chat.completion.chunk", "choices": None})),
    foreign("no choices (Azure's filter)", data({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})),
    foreign("no choices, a usage", data({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})),
    foreign("citations (Perplexity)", data({"citations": ["x"], "search_results": []})),
    foreign("sources (Open WebUI)", data({"sources": [{"document": ["x"]}]})),
    foreign("a status with a detail", data({"type": "status", "detail": "searching"})),
    foreign("a success with a code", data({"code": 200, "message": "fine"})),
    foreign("an error that is none", data({**chunk({}), "error": None})),
    foreign("another choice", data({"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]})),
    foreign("an empty delta", data(chunk({"role": "assistant", "content": ""})) + data(chunk({"content": None}))),
    foreign("blank lines", b"\n\n\r\n\n"),
]

SHAPES = [
    Wire("a byte order mark", b"\xef\xbb\xbf" + ONE + TWO + END, "one two"),
    Wire("lines that end with a carriage return", (ONE + TWO + END).replace(b"\n", b"\r"), "one two"),
    Wire("lines that end with both", (ONE + TWO + END).replace(b"\n", b"\r\n"), "one two"),
    Wire(
        "lines that end in every way",
        ONE.replace(b"\n", b"\r") + TWO.replace(b"\n", b"\r\n") + STOP + DONE.replace(b"\n", b"\r"),
        "one two",
    ),
    Wire("no blank lines between", (ONE + TWO + END).replace(b"\n\n", b"\n"), "one two"),
    Wire("no space behind the colon", (ONE + TWO + END).replace(b"data: ", b"data:"), "one two"),
    Wire("an end mark in other letters", ONE + TWO + b"data: [done]\n\n", "one two"),
    Wire("events within events", (ONE + TWO + END).replace(b"data: ", b"data: data: "), "one two"),
    Wire("a number as text", data({"choices": [{"index": "0", "delta": {"content": "one two"}}]}) + END, "one two"),
    Wire("no end mark", ONE + TWO + STOP, "one two"),
    Wire("no end of the last line", (ONE + TWO + STOP).rstrip(), "one two"),
    Wire("an end mark and no reason", ONE + TWO + DONE, "one two"),
    Wire("an event that ends it", ONE + TWO + b"event: done\ndata: \n\n", "one two"),
    Wire("nothing behind the end mark counts", ONE + TWO + END + text(" three"), "one two"),
    Wire(
        "a payload on several lines",
        b"".join(b"data: " + line + b"\n" for line in indented(chunk({"content": "one two"})).split(b"\n"))
        + b"\n"
        + END,
        "one two",
    ),
    Wire(
        "a payload on two lines, the first of which ends with a brace",
        b'data: {"choices": [{"index": 0, "delta": {"content": "one two"}\ndata: , "finish_reason": "stop"}]}\n\n'
        + DONE,
        "one two",
    ),
    Wire("an event with a name of its own", (ONE + TWO).replace(b"data", b"event: message\ndata") + END, "one two"),
    Wire(
        "JSON a line, and no events", ONE[6:-1] + TWO[6:-1] + STOP[6:-1], "one two", content_type="application/x-ndjson"
    ),
    Wire("escapes in halves", text("\ud83d") + text("\ude00!") + END, "😀!"),
    Wire(
        "characters beyond ASCII", data(chunk({"content": "x"})).replace(b'"x"', '"ñ 😀 語"'.encode()) + END, "ñ 😀 語"
    ),
    Wire("half a character for good", ONE.replace(b"one ", b"\xf0\x9f\x98 ") + TWO + END, "\ufffd two"),
    Wire("cut within a payload", ONE + TWO[:30], "one ", failure="remote_cut"),
    Wire(
        "cut within an escape", ONE + b'data: {"choices": [{"delta": {"content": "\\ud8', "one ", failure="remote_cut"
    ),
    Wire(
        "cut within a character",
        ONE + b'data: {"choices": [{"delta": {"content": "\xf0\x9f',
        "one ",
        failure="remote_cut",
    ),
    Wire("cut between two payloads", ONE + TWO, "one two", failure="remote_cut"),
    Wire("broken JSON", ONE + b"data: {not json\n\n" + TWO, "one ", failure="remote_malformed"),
    Wire("nothing but what another program reads", data({"response": "hi"}) + DONE, failure="remote_malformed"),
]

WHOLE = [
    Wire("whole, nothing but a message", b'{"message": "no"}', failure="remote_error", content_type="application/json"),
    Wire("whole, in one line", json.dumps(whole({"content": "b"})).encode(), "b", content_type="application/json"),
    Wire(
        "whole, indented",
        indented(whole({"content": "b", "reasoning_content": "a"})),
        "b",
        "a",
        content_type="application/json",
    ),
    Wire("whole, indented, as a stream", indented(whole({"content": "b", "reasoning": "a"})) + b"\n", "b", "a"),
    Wire("whole, indented, with a byte order mark", b"\xef\xbb\xbf" + indented(whole({"content": "b"})), "b"),
    Wire("whole, with the marks in it", indented(whole({"content": "<think>\na\n</think>\n\nb"})), "b", "a"),
    Wire("whole, within an event", data(whole({"content": "b", "reasoning_content": "a"})) + DONE, "b", "a"),
    Wire(
        "whole, in parts (Mistral)",
        indented(
            whole(
                {
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                        {"type": "text", "text": "b"},
                    ]
                }
            )
        ),
        "b",
        "a",
    ),
    Wire(
        "whole, a list with an error (Google)",
        b'[{\n "error": {"code": 400, "message": "no"}\n}]\n',
        failure="remote_error",
    ),
    Wire("whole, cut by a limit", indented(whole({"content": "b"}, "max_tokens")), "b", finish="length"),
    Wire("whole, and cut on its way", indented(whole({"content": "b"}))[:60], failure="remote_cut"),
    Wire(
        "the message so far beside what is new (Perplexity)",
        b"".join(
            data({"choices": [{"index": 0, "finish_reason": reason, "delta": delta, "message": {"content": so_far}}]})
            for delta, so_far, reason in (
                ({"content": "one "}, "one ", None),
                ({"content": "two"}, "one two", None),
                ({}, "one two", "stop"),
            )
        ),
        "one two",
    ),
]

ERRORS = [
    error("llama.cpp's line", b'error: {"code":500,"message":"failed to decode batch"}\n\n'),
    error("llama.cpp's line with a text", b"error: out of slots\n\n"),
    error("an object", data({"error": {"message": "no slot", "code": 500}})),
    error("a text", data({"error": "out of memory"})),
    error("vLLM's object", data({"object": "error", "message": "no", "code": 500})),
    error("a detail", data({"detail": "no"})),
    error("a detail in a list", data({"detail": [{"loc": ["body"], "msg": "no"}]})),
    error("an event of that name", b'event: error\ndata: {"message": "no"}\n\n'),
    error("an event of that name with a text", b"event: error\ndata: upstream is gone\n\n"),
    error("Anthropic's", data({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})),
    error("Cloudflare's", data({"success": False, "errors": [{"code": 7, "message": "no"}]})),
    error("a code and a message", data({"code": 502, "message": "bad gateway"})),
    error(
        "beside the choices (OpenRouter)", data(chunk({"content": ""}, "error", error={"code": 502, "message": "gone"}))
    ),
    error("MiniMax's", data({"base_resp": {"status_code": 1008, "status_msg": "no balance"}, "choices": None})),
    error("Baidu's", data({"error_code": 110, "error_msg": "no"})),
    error("Zhipu's", data({"code": 1261, "msg": "no", "success": False})),
    error("Apigee's", data({"fault": {"faultstring": "no", "detail": {"errorcode": "x"}}})),
    error("within a choice", data({"choices": [{"index": 0, "delta": {}, "error": {"message": "gone"}}]})),
    error("a reason to stop", data(chunk({}, "insufficient_system_resource")), "remote_cut"),
    error("a filter", data(chunk({}, "SAFETY")), "remote_filtered"),
    error(
        "a context that is too small",
        b'error: {"code":400,"message":"the request exceeds the available context size","n_prompt_tokens":9000,"n_ctx":4096}\n\n',
        "prompt_too_long",
    ),
]


def fields(*deltas: dict[str, Any]) -> bytes:
    return b"".join(data(chunk(delta)) for delta in deltas) + END


def thinking(said: Any) -> dict[str, Any]:
    return {"content": [{"type": "thinking", "thinking": said}]}


CALL = {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}

CARRIERS = [
    Wire(
        "an answer that begins with a mark",
        fields({"reasoning_content": "hm"}, {"content": "[THINK]"}, {"content": " opens it."}),
        "[THINK] opens it.",
        "hm",
    ),
    Wire(
        "an answer that is a pair of marks",
        fields({"reasoning": "hm"}, {"content": "<think>a</think>b"}),
        "<think>a</think>b",
        "hm",
    ),
    Wire("an answer that begins with part of a mark", fields({"reasoning": "hm"}, {"content": "<thi"}), "<thi", "hm"),
    Wire("an answer that is one mark", fields({"reasoning": "hm"}, {"content": "[THINK]"}), "[THINK]", "hm"),
    Wire(
        "thinking parts, then a mark",
        fields(thinking([{"type": "text", "text": "hm"}]), {"content": "<think> it"}),
        "<think> it",
        "hm",
    ),
    Wire("a closing mark first", fields({"reasoning_content": "hm"}, {"content": "</think>\n\nHi"}), "Hi", "hm"),
    Wire(
        "a closing mark first, in pieces",
        fields({"reasoning": "hm"}, {"content": "\n</th"}, {"content": "ink>"}, {"content": " \n"}, {"content": "Hi"}),
        "Hi",
        "hm",
    ),
    Wire("Magistral's closing mark first", fields({"reasoning": "hm"}, {"content": "[/THINK]Hi"}), "Hi", "hm"),
    Wire(
        "one closing mark, and another as text",
        fields({"reasoning": "hm"}, {"content": "</think></think> ends it"}),
        "</think> ends it",
        "hm",
    ),
    Wire(
        "a closing mark later",
        fields({"reasoning": "hm"}, {"content": "So 5.\n</think>\nIt is 5."}),
        "So 5.\n</think>\nIt is 5.",
        "hm",
    ),
    Wire(
        "reasoning goes on behind the answer",
        fields({"reasoning": "a "}, {"content": "one "}, {"reasoning": "b"}, {"content": "two"}),
        "one two",
        "a b",
    ),
    Wire(
        "reasoning comes behind the answer only",
        fields({"content": "one"}, {"reasoning": "a"}, {"content": " two"}),
        "one two",
        "a",
    ),
    Wire(
        "the same reasoning between marks",
        fields(
            {"reasoning_content": "So ", "content": "<think>So "},
            {"reasoning_content": "5.", "content": "5."},
            {"content": "</think>"},
            {"content": "Five"},
        ),
        "Five",
        "So 5.",
    ),
    Wire(
        "the same reasoning behind marks first",
        fields({"content": "<think>So 5."}, {"reasoning_content": "So 5."}, {"content": "</think>Five"}),
        "Five",
        "So 5.",
    ),
    Wire(
        "marks around a field",
        fields({"content": "<think>"}, {"reasoning_content": "So 5."}, {"content": "</think>Five"}),
        "Five",
        "So 5.",
    ),
    Wire(
        "other reasoning between marks",
        fields({"reasoning": "a"}, {"content": "<think>b</think>c"}),
        "<think>b</think>c",
        "a",
    ),
    Wire("two fields of one text", fields({"reasoning": "a", "reasoning_content": "a"}, {"content": "b"}), "b", "a"),
    Wire(
        "a field and thinking parts of one text",
        fields({"reasoning_content": "a", **thinking("a")}, {"content": "b"}),
        "b",
        "a",
    ),
    Wire(
        "details only (OpenRouter)",
        fields({"reasoning_details": [{"type": "reasoning.text", "text": "a"}]}, {"content": "b"}),
        "b",
        "a",
    ),
    Wire("thinking (others)", fields({"thinking": "a"}, {"content": "b"}), "b", "a"),
    Wire(
        "reasoning parts",
        fields({"content": [{"type": "reasoning", "text": "a"}, {"type": "output_text", "text": "b"}]}),
        "b",
        "a",
    ),
    Wire(
        "parts of unknown types",
        fields({"content": [{"type": "reference", "reference_ids": [1]}, 7, None, {"type": "text", "text": "b"}]}),
        "b",
    ),
    Wire("completions", data({"choices": [{"index": 0, "text": "b"}]}) + END, "b"),
    Wire(
        "a closing mark only",
        text("First, add. ", "So 5.", "</think>", "\n\nIt is 5.") + END,
        "It is 5.",
        "First, add. So 5.",
    ),
    Wire("a closing mark only, of Magistral", text("\nSo 5.\n", "[/THINK]", "It is 5.") + END, "It is 5.", "So 5."),
    Wire("a closing mark only, in one piece", text("So 5.\n</think>\nIt is 5.") + END, "It is 5.", "So 5."),
    Wire("a closing mark at the very beginning", text("</think>", "\n\n", "Hi") + END, "Hi"),
    Wire("a closing mark in code", text("Write `</think>` here.") + END, "Write `</think>` here."),
    Wire("a closing mark in a sentence", text("The tag </", "think> ends it.") + END, "The tag </think> ends it."),
    Wire("a closing mark in a block", text("```\n</think>\n```\n", "So.") + END, "```\n</think>\n```\nSo."),
    Wire("marks, with line breaks", text("<think>\n", "a\n", "</think>\n", "\nb") + END, "b", "a"),
    Wire("no thought between marks", text("[THINK][/THINK]", "b") + END, "b"),
    Wire("a refusal", fields({"content": None, "refusal": ""}, {"refusal": "I can"}, {"refusal": "not."}), "I cannot."),
    Wire(
        "a refusal behind words",
        fields({"content": "Part. "}, {"refusal": "I can"}, {"refusal": "not."}),
        "Part. \n\nI cannot.",
    ),
    Wire("a refusal that is whole", indented(whole({"content": None, "refusal": "No."})), "No."),
    Wire(
        "a tool's call",
        data(chunk({"content": None, **CALL})) + data(chunk({}, "tool_calls")) + DONE,
        failure="remote_called_tool",
    ),
    Wire(
        "a tool's call behind words",
        text("Wait.") + data(chunk(CALL)) + data(chunk({}, "tool_calls")),
        "Wait.",
        failure="remote_called_tool",
    ),
    Wire(
        "an old call",
        indented(whole({"content": None, "function_call": {"name": "f"}}, "function_call")),
        failure="remote_called_tool",
    ),
    Wire("a call that the server has answered itself", data(chunk(CALL)) + text("It is so.") + END, "It is so."),
    Wire("no call", fields({"content": "b", "tool_calls": []}), "b"),
]

WIRES = [*FOREIGN, *SHAPES, *WHOLE, *ERRORS, *CARRIERS]
