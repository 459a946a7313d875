"""A prompt as the messages of a chat completion, in the shape that a server takes; it sends nothing."""

from collections.abc import Callable
from typing import Any

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import AssistantTurn, Prompt, Resume, SystemPart, UserTurn, user_parts
from magistral_ui.engines.remote.dialects import Dialect

MessageJson = dict[str, Any]
Marks = tuple[str, str]


def messages_of(
    prompt: Prompt, dialect: Dialect, marks: Marks, url_of: Callable[[ImageFile], str]
) -> list[MessageJson]:
    """All messages, system prompt first; user turns in a row become one, since templates may refuse several."""
    messages = system_messages(prompt.system, dialect, marks)
    users: list[UserTurn] = []
    for turn in prompt.turns:
        if isinstance(turn, UserTurn):
            users.append(turn)
        elif assistant := assistant_message(turn, dialect, marks):
            messages += [user_message(users, url_of), assistant]
            users = []
    if users:
        messages.append(user_message(users, url_of))
    if prompt.resume is not None:
        messages.append(resumed_message(prompt.resume, dialect, marks))
    return messages


def system_messages(parts: tuple[SystemPart, ...], dialect: Dialect, marks: Marks) -> list[MessageJson]:
    """The system prompt in the dialect's shape; no message where it is empty."""
    if not parts:
        return []
    if dialect.system == "chunks" and any(part.reasoning for part in parts):
        content: Any = [_thinking(part.text) if part.reasoning else _text(part.text) for part in parts]
    elif dialect.system == "plain":
        content = "".join(part.text for part in parts)
    else:
        content = "".join(f"{marks[0]}{part.text}{marks[1]}" if part.reasoning else part.text for part in parts)
    return [{"role": "system", "content": content}]


def user_message(turns: list[UserTurn], url_of: Callable[[ImageFile], str]) -> MessageJson:
    """One message of one or several turns, in the order in which every engine has it."""
    parts: list[MessageJson] = [
        _text(part) if isinstance(part, str) else {"type": "image_url", "image_url": {"url": url_of(part)}}
        for part in user_parts(turns)
    ]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {"role": "user", "content": parts[0]["text"]}
    return {"role": "user", "content": parts or ""}


def assistant_message(turn: AssistantTurn, dialect: Dialect, marks: Marks) -> MessageJson | None:
    """An earlier reply; None where nothing of it is left to send, since servers refuse an empty one."""
    message: MessageJson = {"role": "assistant", "content": turn.answer}
    if turn.reasoning and dialect.history == "reasoning_content":
        message["reasoning_content"] = turn.reasoning
    elif turn.reasoning and dialect.history == "nested":
        message["content"] = _nested(turn.reasoning, turn.answer, closed=True)
    elif turn.reasoning and dialect.history == "inline":
        message["content"] = f"{marks[0]}{turn.reasoning}{marks[1]}{turn.answer}"
    elif not turn.answer.strip():
        return None
    return message


def resumed_message(resume: Resume, dialect: Dialect, marks: Marks) -> MessageJson:
    """The beginning of the reply, to go on from; which fields go with it is in `resumed_fields`."""
    message: MessageJson = {"role": "assistant", "content": resume.answer}
    if dialect.resume == "prefix":
        reasoned = resume.reasoning is not None
        content = _nested(resume.reasoning or "", resume.answer, closed=resume.closed) if reasoned else resume.answer
        return {**message, "content": content, "prefix": True}
    if resume.reasoning is None:
        return message
    if dialect.resume == "named":
        if dialect.history == "reasoning_content":
            return {**message, "reasoning_content": resume.reasoning}
        closing = marks[1] if resume.closed else ""
        return {**message, "content": f"{marks[0]}{resume.reasoning}{closing}{resume.answer}"}
    if dialect.system == "chunks":
        chunks = [_thinking(resume.reasoning, closed=resume.closed)]
        return {**message, "content": [*chunks, _text(resume.answer)] if resume.answer else chunks}
    closing = marks[1] if resume.closed else ""
    return {**message, "content": f"{marks[0]}{resume.reasoning}{closing}{resume.answer}"}


def resumed_fields(resume: Resume, dialect: Dialect) -> dict[str, object]:
    """The fields of the request that make the server go on with the last message instead of answering it."""
    if dialect.resume == "prefix":
        return {}
    named = "reasoning_content" if resume.reasoning is not None and not resume.closed else "content"
    in_field = dialect.resume == "named" and dialect.history == "reasoning_content"
    return {"continue_final_message": named if in_field else True, "add_generation_prompt": False}


def _text(text: str) -> MessageJson:
    return {"type": "text", "text": text}


def _thinking(text: str, *, closed: bool = True) -> MessageJson:
    return {"type": "thinking", "thinking": text, "closed": closed}


def _nested(reasoning: str, answer: str, *, closed: bool) -> list[MessageJson]:
    """Mistral's own shape, in which the thinking is a list of texts."""
    thinking = {"type": "thinking", "thinking": [_text(reasoning)], "closed": closed}
    return [thinking, _text(answer)] if answer else [thinking]
