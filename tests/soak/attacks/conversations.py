"""Attacks on conversations: formulas and searches that take for ever, files by the dozen, what others have said."""

import secrets

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.reply import Reply
from magistral_ui.export.document import Document
from magistral_ui.export.json import export_json
from tests.soak.attacks.attack import PASSWORD, Stranger, attack

FORMULAS = "\n\n".join(
    [
        f"$`{'(' * 28}x^2`$",
        "$$" + "(" * 28 + "x^2$$",
        r"$[ \{ \langle \lfloor \lvert f(x+" * 5 + "$",
        r"\[" + r"\left(" * 40 + r"x\]",
    ]
)
"""Each doubled the time of a parser with every opener."""


def file_with(answer: str, count: int = 1) -> bytes:
    """A file of so many conversations with one answer."""
    talk = Conversation().say("what?").with_reply(Reply(answer=answer, finish_reason="stop"))
    return export_json([Document(talk, f"talk {number}", None, None) for number in range(count)])


def bring(stranger: Stranger, data: bytes) -> str:
    """Import a file; what became of it."""
    told = stranger.door.act("history/bring", {"size": len(data)})["history"]
    answer = stranger.post("/magistral/import", content=data, headers={"X-Ticket": told["ticket"]["token"]})
    if answer.status_code != 200:
        return str(answer.status_code)
    failure = answer.json().get("failure")
    return str(failure["key"]) if failure else "imported"


def fetch(stranger: Stranger, format: str, conversation: str = "") -> str:
    """Export one conversation, or all."""
    told = stranger.door.act("history/save", {"format": format, "id": conversation})["history"]
    return str(stranger.door.http.get("/magistral/export", headers={"X-Ticket": told["ticket"]["token"]}).status_code)


def first_of(stranger: Stranger, data: bytes) -> str:
    """The id of a conversation that was brought in a file."""
    assert bring(stranger, data) == "imported"
    entries: list[dict[str, str]] = stranger.door.act("history/refresh", {"query": ""})["history"]["entries"]
    return entries[0]["id"]


@attack("a formula that doubles its time with each opener, in an export", per_minute=4, reaches=["200"], may=["429"])
def formula(stranger: Stranger) -> str:
    talk = stranger.once("talk", lambda: first_of(stranger, file_with(FORMULAS)))
    return fetch(stranger, "html", talk)


MARKS = [
    "`",
    "$",
    "$$",
    "\\[",
    "\\(",
    "*",
    "_",
    "**",
    "~~",
    "[",
    "![",
    "<",
    "<!--",
    "<b>",
    "|",
    "> ",
    "- ",
    "1. ",
    "#",
    "\n",
    "&",
    "\\left(",
    "{",
    "^",
]


@attack(
    "answers of marks only, in an export",
    per_minute=12,
    reaches=["200"],
    may=["429", "import_no_room", "too_many_requests"],
)
def marks(stranger: Stranger) -> str:
    """What is read in time with the square of its length, or worse, is seldom one of the marks alone."""
    pairs = (secrets.choice(MARKS) + secrets.choice(MARKS) for _ in range(3))
    told = bring(stranger, file_with("\n\n".join(pair * 20_000 for pair in pairs)))
    if told != "imported":
        return told
    entries = stranger.door.act("history/refresh", {"query": ""})["history"]["entries"]
    fetched = fetch(stranger, secrets.choice(["html", "markdown"]), entries[0]["id"])
    stranger.door.act("history/forget")
    return fetched


@attack("searches over two large files", per_minute=120, at_once=8, reaches=["found"], may=["too_many_requests"])
def search(stranger: Stranger) -> str:
    def fill() -> list[str]:
        words = "Größe und Maß der Dinge, " * 12_000
        return [bring(stranger, file_with(words, 12)) for _ in range(2)]

    assert stranger.once("files", fill) == ["imported"] * 2
    told = stranger.door.act("history/refresh", {"query": secrets.choice(["zebra", "groß", "dinge", "x"])})["history"]
    refused = told.get("refused")
    return str(refused["key"]) if refused else "found"


@attack("exports by the dozen", per_minute=60, at_once=8, reaches=["200"], may=["429"])
def exports(stranger: Stranger) -> str:
    stranger.once("talk", lambda: first_of(stranger, file_with("word " * 100_000, 4)))
    return fetch(stranger, "json")


FULL = ["import_no_room", "too_many_requests", "429"]


@attack("imports by the dozen", per_minute=60, at_once=4, reaches=["imported", *FULL[:1]], may=FULL[1:])
def imports(stranger: Stranger) -> str:
    return bring(stranger, file_with("word " * 400, 25))


@attack("files that are none", per_minute=60, reaches=["import_not_ours", "import_not_json"], may=FULL)
def senseless_files(stranger: Stranger) -> str:
    return bring(stranger, secrets.choice([b"[" * 200_000, b"{}", b"\x00" * 999, b'{"format": 1, "format": 2}']))


@attack("“Delete all my data”, again and again", per_minute=30, reaches=["forgotten"])
def forget(stranger: Stranger) -> str:
    return "forgotten" if "forgotten" in stranger.door.act("history/forget")["history"] else "kept"


@attack("who signs in after another in the same browser", per_minute=6, reaches=["nothing"], may=["429"])
def next_in_the_browser(stranger: Stranger) -> str:
    door, secret = stranger.sign_in(), "word" + secrets.token_hex(6)
    door.say(secret)
    place = door.place
    door.http.post("/logout")
    door.sign_in(stranger.name + " too", PASSWORD)
    door.place, door.tab = place, secrets.token_hex(6)  # as after a reload
    shown = [door.act("history/refresh", {"query": query}) for query in ("", secret)]
    shown.append(door.act("history/open", {"id": place["conversation"]}))
    listed = [[each["title"] for each in told["history"].get("entries") or ()] for told in shown[:2]]
    return "told" if secret in str(listed) or secret in str(shown[2]["turns"]) else "nothing"
