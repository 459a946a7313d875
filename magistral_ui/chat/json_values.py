"""How usage, notices and failures look in JSON, for the page and for programs alike; it sends nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from magistral_ui.chat.events import Notice, Usage
from magistral_ui.errors import MagistralUIError

Json = dict[str, Any]


def usage_value(usage: Usage) -> Json:
    """Counts and seconds, including the derived ones."""
    derived = {"completion_tokens": usage.completion_tokens, "tokens_per_second": usage.tokens_per_second}
    return {**asdict(usage), **derived}


def notices_value(notices: Sequence[Notice]) -> list[Json]:
    """What a reply's reader is told beside the reply."""
    return [{"key": notice.key, "values": notice.values} for notice in notices]


def failure_value(key: str, values: Mapping[str, str | int | float]) -> Json:
    """A failure whose sentence the browser writes in its own language."""
    return {"key": key, "values": dict(values)}


def alert_value(error: MagistralUIError) -> Json:
    """The failure that `error` stands for."""
    return failure_value(error.message.key, error.message.values)
