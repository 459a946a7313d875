"""Reads why a server refused a request from a response body of any shape; it does not decide what to do about it."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any

import httpx2

MAX_DETAIL_LENGTH = 300
"""Characters of a server's own message to show."""
MAX_BODY_CHARACTERS = 20_000
"""Characters of a body to read: some servers echo the whole request."""
MESSAGE_FIELDS = (
    "message",
    "error",
    "detail",
    "msg",
    "errors",
    "error_description",
    "error_message",
    "reason",
    "description",
    "title",
    "error_msg",
    "status_msg",
    "base_resp",
    "Message",
    "fault",
    "faultstring",
    "err",
    "errmsg",
    "exception",
    "type",
    "code",
)
"""Fields that may contain an error's message; the most informative come first."""
MAX_ERROR_DEPTH, MAX_ERRORS = 6, 20
"""Nesting levels of an error to read, and errors in one list."""
MIN_CONTEXT = 256
"""Tokens below which a number in a sentence is not a context length."""
REQUIRED_FIELDS = frozenset({"model", "messages", "prompt", "stream"})
"""Fields that every request needs, so none of them may be left out."""

TITLE = re.compile(r"<title[^>]*>(.*?)</title>|<h1[^>]*>(.*?)</h1>", re.I | re.S)
NUMBER = re.compile(r"(?<![\w.-])(\d{1,3}(?:[,_]\d{3})+|\d+)(?:\.0+)?(?![\w-]|\.\d)", re.A)
CODES = re.compile(r"(?:error code|status(?: code)?|['\"]?code['\"]?)\W{0,4}\d{3}\b", re.I)
TOO_LONG = re.compile(
    r"context[ _]?(?:length|size|window|limit)|model(?:'s|s)? context|(?:available|whole|full) context|context overflow"
    r"|max(?:imum)?[ _](?:model |context |sequence |prompt |input )*(?:seq_|model_|sequence_|input_)*(?:len|length)\b"
    r"|max_(?:input|total|num)_tokens|inputs`? tokens \+|too many (?:input |prompt )?tokens|keep from the initial prompt"
    r"|(?:prompt|input|message|request|conversation)s? (?:is |are )?too long"
    r"|too large for model|too long for (?:the |this )?model|(?:length|tokens?) (?:is|are) \d+ while (?:the )?limit"
    r"|(?:token|prompt|context|sequence|input)s?\b[^.]{0,80}\bexceed|exceed\w*\b[^.]{0,60}\b(?:token|context|prompt|sequence|input)"
    r"|(?:must have|tokens? must be) (?:less than|at most|<=?) \d+|longer than the (?:model|context|maximum)"
    r"|exceeds? n_ctx|greater than max_seq_len"
    r"|\b(?:context|ctx|window)(?: (?:size|is|of|only|holds?|allows?|has|takes|at most|up to))*[ :=(]{1,3}\d+(?:,\d|\d\d)"
    r"|(?:prompt|input|message|request|conversation|sequence)s? (?:\w+ ){0,3}(?:is|are|was|were) too long"
    # Chinese providers: the context length, or that the input exceeds it.
    r"|上下文(?:长度|窗口)|(?:输入|提示词|prompt|tokens?)\W*\w{0,12}(?:超长|过长|超过|超出)",
    re.I,
)
OTHER_LIMIT = re.compile(r"per (?:minute|hour|day|second)|\b[TR]P[MD]\b|rate.?limit|quota", re.I)
OF_THE_REPLY = re.compile(
    r"max_?(?:completion|new|output|gen|generated)?_?tokens|max (?:new |output |completion )?tokens|maximum tokens"
    r"|(?:completion|output|generated|new) tokens|tokens of output|in the (?:completion|output)"
    r"|for the (?:completion|output)|n(?:um)?_predict",
    re.I,
)
NO_ROOM_AT_ALL = re.compile(r"must be at least 1\b.{0,40}-\d+", re.I | re.S)
LIMIT = re.compile(
    r"(?:maximum|\bmax_\w+|limit|context|\bctx|window|allows|最大|长度|上限|at most"
    r"|up to|supports|(?:less|lower|fewer) than|equal to|<=?|exceed\w*|afford)"
    r"\D{0,60}?(\d{1,3}(?:[,_]\d{3})+|\d{3,})(?![A-Za-z0-9_-]|\.\d)",
    re.I,
)
BELOW = re.compile(r"(?:less|lower|fewer) than(?! or equal)\D{0,20}\d|\(exclusive\)", re.I)
UNKNOWN = re.compile(
    r"extra_forbidden|extra (?:input|field|param|argument|key)|unrecogni[sz]ed|unknown|unexpected|unsupported|"
    r"not? (?:a )?(?:support|permit|allow|recogni|valid (?:param|field|arg))|cannot find field|additional propert"
    r"|no such (?:param|field)",
    re.I,
)
EXPECTED = re.compile(
    r"expected one of|(?<!in)valid (?:field|param|key|arg)|(?<!un)supported (?:field|param|key)|\ballowed (?:field|param)",
    re.I,
)
REPLACEMENT = re.compile(r"\buse\W+(\w+)\W+instead|did you mean\W+(\w+)|instead,? use\W+(\w+)", re.I)
EITHER = re.compile(r"\bboth\b|\btogether\b|mutually exclusive|only one of", re.I)


@dataclass(frozen=True, slots=True)
class ServerRefusal:
    """What a server said when it refused a request; 0 or empty if it did not say."""

    detail: str = ""
    tokens: int = 0
    """The prompt's tokens, as the server counted them."""
    limit: int = 0
    """How many tokens it accepts, of the prompt and the reply together or of the prompt alone."""
    too_long: bool = False
    """Whether the prompt does not fit, however short the reply is."""
    reply_bounded: bool = False
    """Whether it only refused the requested length of the reply."""
    max_tokens: int = 0
    """How many tokens it would accept instead."""
    fields: tuple[str, ...] = ()
    """The fields of the request that it named."""
    unknown: bool = False
    """Whether it does not know these fields; otherwise, it rejects their values."""
    replacement: str = ""
    """The name that it expects instead."""
    either: bool = False
    """Whether it would accept one of the fields, but not all of them."""


def read_refusal(status: int, value: Any, text: str, sent: Mapping[str, Any]) -> ServerRefusal:
    """The refusal in a body: `value` is its JSON, if any, `text` its text, `sent` the request."""
    detail = error_detail(value, text)
    body = _body(value)
    codes = (body[name] for name in ("type", "code") if isinstance(body.get(name), str))
    message = " ".join((detail, *codes))[:MAX_BODY_CHARACTERS]
    if not 400 <= status < 600 or status in (401, 403, 404, 408, 429):
        return ServerRefusal(detail)
    known = body.get("n_prompt_tokens"), body.get("n_ctx")
    if isinstance(known[0], int) and isinstance(known[1], int):
        return ServerRefusal(detail, known[0], known[1], too_long=True)
    fields = tuple(_named_by_structure(value, sent)) or tuple(_named_by_text(message, sent))
    if (refusal := _about_the_reply(detail, message, sent) or _about_the_prompt(detail, message)) is not None:
        return refusal
    unknown = bool(UNKNOWN.search(message))
    if not unknown and any(name in MAX_TOKENS_FIELDS for name in fields):
        return ServerRefusal(detail, reply_bounded=True)
    return ServerRefusal(
        detail,
        fields=fields if status in (400, 422, 500, 501) else (),
        unknown=unknown,
        replacement=next((each for found in REPLACEMENT.findall(message) for each in found if each), "")
        if fields
        else "",
        either=bool(EITHER.search(message)),
    )


def value_and_text(response: httpx2.Response) -> tuple[Any, str]:
    """A response's body as JSON, or None if it is not JSON, and as text."""
    text = response.text
    try:
        return json.loads(text), text
    except (ValueError, RecursionError):
        return None, text


def error_detail(value: Any, text: str) -> str:
    """A body's own words: from JSON of any shape, the title of an HTML page, or plain text."""
    if value is not None:
        detail = error_message(value)
    elif text.lstrip()[:1] == "<":
        found = TITLE.search(text[:MAX_BODY_CHARACTERS])
        detail = unescape(next(filter(None, found.groups()), "")) if found else ""
    else:
        detail = "" if text.strip() == "null" else text
    detail = " ".join(detail[:MAX_BODY_CHARACTERS].split())
    return detail if len(detail) <= MAX_DETAIL_LENGTH else f"{detail[: MAX_DETAIL_LENGTH - 1].rstrip()}…"


def error_message(value: Any, depth: int = 0) -> str:
    """The words in an error of any shape: a text, an object that holds them under one of many names, or a list of such.

    Below the top level (`depth` 0), an object may also name the fields that are wrong.
    """
    if isinstance(value, str):
        return value
    if depth > MAX_ERROR_DEPTH:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (error_message(each, depth + 1) for each in value[:MAX_ERRORS])))
    if not isinstance(value, Mapping):
        return ""
    message = next((detail for key in MESSAGE_FIELDS if (detail := error_message(value.get(key), depth + 1))), "")
    if not message and depth:  # its keys may be field names
        message = "; ".join(
            f"{key}: {detail}" for key, each in value.items() if (detail := error_message(each, depth + 1))
        )
    place = value.get("loc")
    where = ".".join(str(each) for each in place) if isinstance(place, list) else ""
    return f"{where}: {message}" if where and message else message


def _body(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    inner = value.get("error")
    return inner if isinstance(inner, Mapping) else value


def _numbers(text: str, pattern: re.Pattern[str] = NUMBER) -> list[int]:
    return [int(re.sub(r"\D", "", each)) for each in pattern.findall(CODES.sub(" ", text))]


def _about_the_reply(detail: str, message: str, sent: Mapping[str, Any]) -> ServerRefusal | None:
    """The refusal if only the reply would be too long: its numbers reveal the prompt, the limit and their sum."""
    asked = next((n for name in MAX_TOKENS_FIELDS if isinstance(n := sent.get(name), int)), None)
    if (
        asked is None
        or not OF_THE_REPLY.search(message)
        or NO_ROOM_AT_ALL.search(message)
        or OTHER_LIMIT.search(message)
    ):
        return None
    numbers = [number for number in _numbers(message) if number != asked]
    prompt = next((each for each in numbers if each > 1 and each + asked in numbers), 0)
    rest = [each for each in numbers if each not in (prompt, prompt + asked)]
    limits = [each for each in _numbers(message, LIMIT) if each in rest] or [each for each in rest if each < asked]
    limit = max(limits, default=0)
    if not limit:
        return ServerRefusal(detail, reply_bounded=True) if asked in _numbers(message) else None
    prompt = prompt or next((each for each in sorted(rest) if 1 < each != limit), 0)
    if prompt >= limit:
        return ServerRefusal(detail, prompt, limit, too_long=True)
    # "lower than 4096" excludes 4096; if the prompt was counted, only what is left after it can be requested.
    max_tokens = limit - prompt - (1 if BELOW.search(message) else 0)
    if max_tokens >= asked:
        return None
    return ServerRefusal(detail, prompt, limit if prompt else 0, reply_bounded=True, max_tokens=max_tokens)


MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens", "n_predict")


def _about_the_prompt(detail: str, message: str) -> ServerRefusal | None:
    if NO_ROOM_AT_ALL.search(message):
        return ServerRefusal(detail, too_long=True)
    if not TOO_LONG.search(message) or OTHER_LIMIT.search(message):
        return None
    numbers = [number for number in _numbers(message) if number > 1]
    limits = [each for each in _numbers(message, LIMIT) if each >= MIN_CONTEXT]
    large = sorted(number for number in numbers if number >= MIN_CONTEXT)
    # The limit is a number that is called a limit and is smaller than another one, or the smaller of two.
    limit = next((each for each in limits if not large or each < large[-1]), 0)
    if not limit and len(large) > 1 and large[0] < large[-1]:
        limit = large[0]
    if limit:
        return ServerRefusal(detail, next((each for each in large if each > limit), 0), limit, too_long=True)
    return ServerRefusal(detail, 0, large[0] if len(set(large)) == 1 and limits else 0, too_long=True)


def _named_by_structure(value: Any, sent: Mapping[str, Any]) -> Iterable[str]:
    """Fields named in the places meant for this: OpenAI's `param`, FastAPI's `loc`."""
    body = _body(value)
    places = [body.get("param")]
    for holder in (body, value if isinstance(value, Mapping) else {}):
        for key in ("detail", "message", "errors"):
            inner = holder.get(key)
            inner = inner.get("detail") if isinstance(inner, Mapping) else inner
            for each in inner if isinstance(inner, list) else ():
                place = each.get("loc") if isinstance(each, Mapping) else None
                places.append(next((p for p in place if p in sent), None) if isinstance(place, list) else None)
    return dict.fromkeys(p for p in places if isinstance(p, str) and p in sent and p not in REQUIRED_FIELDS)


def _named_by_text(message: str, sent: Mapping[str, Any]) -> Iterable[str]:
    """Fields named in the error's detail, except those listed as the ones it would accept."""
    message = EXPECTED.split(message, maxsplit=1)[0]
    return [
        name for name in sent if name not in REQUIRED_FIELDS and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message)
    ]
