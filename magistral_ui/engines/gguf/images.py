"""Writes the prompt of a sequence with images for llama.cpp's `/completion`, and says how many tokens llama.cpp makes of it.

With images, llama.cpp takes a prompt only as text, in which a random marker stands for each image (b11549: an array of ids
cannot refer to any). So each text between two control tokens is cut into tokens by llama.cpp, which is asked beforehand how.
Its tokens differ from ours in three cases:

- Its expression for words lacks combining marks, so that Hindi, Bengali, Tamil, Thai and vowelled Arabic are cut into more.
- A control token's name in a person's text would act as that token, so it is broken by a space of no width.
- The model may write a text in other tokens than any tokenizer would; sent again, it is cut as usual.

Then the text is the same, and `ServerPrompt.tokens` is what llama.cpp reads of it, but the ids are not ours.
"""

import base64
import http.client
import json
import re
import threading
from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from cachetools import LRUCache

from magistral_ui.chat.images import ImageFile
from magistral_ui.client import NO_CLIENT, serving
from magistral_ui.engines.base import Measure

if TYPE_CHECKING:  # mistral-common takes a while to import
    from magistral_ui.engines.local.image_input import ImageSpan
    from magistral_ui.engines.local.sequence import Sequence
    from magistral_ui.engines.local.tokenizer import EncodedPrompt, Tokenizer

IMAGE_CACHE_BYTES = 128 * 2**20
"""For the scaled images of all visitors; the largest takes 4 MiB at most, if it is a photo."""
CACHED_TOKENS = 1_000_000
"""Total tokens of the texts of all visitors of which it is remembered how llama.cpp cuts them."""
TIMEOUT = 30.0
"""Seconds for the child to answer how it cuts a text, a matter of milliseconds."""
BRACKETED = re.compile(r"[\[<][^\[\]<>]*[\]>]")
"""What names of control tokens look like, nearly always: a text is searched for all of them in one pass."""
BREAK = "\u200b"
"""A space of no width, which breaks a control token's name in a text."""


class Server(Protocol):
    """What is needed of a running server: its address, its key, and what `/props` answered."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def props(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class ServerPrompt:
    """A sequence's prompt in the form that `/completion` accepts."""

    value: list[int] | dict[str, Any]
    """The `prompt` of the request."""
    tokens: int
    """How many tokens llama.cpp reads; as many as the sequence has if `exact`."""
    exact: bool
    """Whether they are the sequence's own tokens, id by id."""


class PromptWriter:
    """Writes prompts for one running server; thread-safe. Remembers, per visitor, scaled images and how texts are cut.

    All methods but `forget` may ask the server, and raise OSError if it is gone; scaling an image raises ImageRefused.
    What is not remembered takes its time: scaling a photo half a second, cutting a text a millisecond. So `prepare` belongs in
    the thread that submits a request. `prompt_of` then waits for nothing but the text that was written since.
    """

    def __init__(self, tokenizer: "Tokenizer", server: Server) -> None:
        self._tokenizer, self._server = tokenizer, server
        self._marker = str(server.props.get("media_marker", ""))
        self._control = tokenizer.control_texts
        self._names = frozenset(filter(None, (*self._control, self._marker)))
        odd = sorted((name for name in self._names if not BRACKETED.fullmatch(name)), key=len, reverse=True)
        self._nameable = re.compile("|".join((BRACKETED.pattern, *map(re.escape, odd))))
        self._images: LRUCache[tuple[str, str], str] = LRUCache(IMAGE_CACHE_BYTES, len)
        self._cut: LRUCache[tuple[str, str], list[int]] = LRUCache(CACHED_TOKENS, lambda ids: len(ids) + 1)
        self._lock = threading.Lock()
        self._begins: bool | None = None

    def prepare(self, prompt: "EncodedPrompt", visitor: str) -> int:
        """Scale the images and cut the texts of a prompt; returns how many more tokens llama.cpp reads than the prompt has."""
        for span in prompt.image_spans:
            self._image(span.input.image, visitor)
        return self._difference(prompt.ids, prompt.image_spans, visitor)[0] if prompt.image_spans else 0

    def prompt_of(self, sequence: "Sequence") -> ServerPrompt:
        """All tokens of the sequence so far, the written ones included: as ids if there are no images among them."""
        tokens, spans = sequence.tokens, sequence.prompt.image_spans
        if not spans:
            return ServerPrompt(list(tokens), len(tokens), exact=True)
        texts = [self._text(part) for _, part in _parts(tokens, spans)]
        if self._server_begins:
            texts[0] = texts[0].removeprefix(self._control[tokens[0]])
        more, exact = self._difference(tokens, spans, sequence.visitor)
        images = [self._image(span.input.image, sequence.visitor) for span in spans]
        value = {"prompt_string": self._marker.join(texts), "multimodal_data": images}
        return ServerPrompt(value, len(tokens) + more, exact)

    def measure(
        self, measure: Measure, prompt: "EncodedPrompt", visitor: str, reasoning: Mapping[int, str] | None = None
    ) -> Measure:
        """`measure` of our tokenizer, corrected to what llama.cpp reads; `reasoning` are the texts behind its own, by message."""
        if not prompt.image_spans:
            return measure
        counts = self._reasoning_counts(reasoning or {}, visitor)
        system, per_message = measure.system, dict(measure.per_message)
        more = reused = 0
        for at, run, cut in self._cut_runs(prompt.ids, prompt.image_spans, visitor):
            longer = len(cut) - len(run)
            more += longer
            reused += longer if at + len(run) <= measure.reused else 0
            system += longer if at < prompt.system else 0
            for message, start in prompt.starts.items():
                if start <= at < start + prompt.per_message[message]:
                    per_message[message] += longer
        return replace(
            measure,
            total=measure.total + more,
            system=system,
            per_message=per_message,
            reasoning=measure.reasoning | counts,
            reused=measure.reused + reused,
        )

    def forget(self, visitor: str) -> None:
        """Drop what is remembered of a visitor."""
        caches: tuple[LRUCache[Any, Any], ...] = (self._images, self._cut)
        with self._lock:
            for cache in caches:
                for key in [key for key in cache if key[0] == visitor]:
                    del cache[key]

    def _reasoning_counts(self, reasoning: Mapping[int, str], visitor: str) -> dict[int, int]:
        """Tokens that llama.cpp makes of each text, and the two marks around it."""
        cuts = self._cut_by_server([self._with_broken_names(text) for text in reasoning.values()], visitor)
        return {message: len(cut) + 2 for message, cut in zip(reasoning, cuts, strict=True)}

    def _difference(
        self, tokens: abc.Sequence[int], spans: "abc.Sequence[ImageSpan]", visitor: str
    ) -> tuple[int, bool]:
        """How many more tokens llama.cpp makes of the texts, and whether all its tokens are ours."""
        runs = self._cut_runs(tokens, spans, visitor)
        return sum(len(cut) - len(run) for _, run, cut in runs), all(run == cut for _, run, cut in runs)

    def _cut_runs(
        self, tokens: abc.Sequence[int], spans: "abc.Sequence[ImageSpan]", visitor: str
    ) -> list[tuple[int, list[int], list[int]]]:
        """Each text: where its tokens begin, which they are, and which ones llama.cpp makes of it."""
        places, runs = [], []
        for start, part in _parts(tokens, spans):
            for at, run in self._runs(part):
                if not self._is_control(run[0]):
                    places.append(start + at)
                    runs.append(run)
        cuts = self._cut_by_server([self._spelled(run) for run in runs], visitor)
        return list(zip(places, runs, cuts, strict=True))

    def _text(self, ids: Iterable[int]) -> str:
        """`ids` as text of which llama.cpp makes the same control tokens, and no others."""
        return "".join(self._spelled(run) for _, run in self._runs(ids))

    def _spelled(self, run: list[int]) -> str:
        if self._is_control(run[0]):
            return self._control[run[0]]
        text = b"".join(map(self._tokenizer.token_bytes, run)).decode("utf-8", "replace")
        return self._with_broken_names(text)

    def _with_broken_names(self, text: str) -> str:
        return self._nameable.sub(lambda found: self._broken(found[0]), text)

    def _broken(self, name: str) -> str:
        return name[0] + BREAK + name[1:] if name in self._names else name

    def _runs(self, ids: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
        """Each control token alone, and the other tokens between two of them together, with where they begin.

        llama.cpp cuts each of these apart from the others.
        """
        run: list[int] = []
        at = 0
        for at, token in enumerate(ids):
            if not self._is_control(token):
                run.append(token)
                continue
            if run:
                yield at - len(run), run
            yield at, [token]
            run = []
        if run:
            yield at + 1 - len(run), run

    def _is_control(self, token: int) -> bool:
        return token < len(self._control)

    def _image(self, image: ImageFile, visitor: str) -> str:
        """The image in base64, scaled to the model's grid; the first time takes a good part of a second for a photo."""
        key = (visitor, image.digest)
        with self._lock:
            found = self._images.get(key)
        if found is None:
            grid = self._tokenizer.image_grid
            with serving(NO_CLIENT):  # the visitor's turn and rate limit were settled before
                size = image.width, image.height
                data, _ = image.fitted(grid.pixels(*size), enlarged=grid.enlarged(*size))
            found = base64.b64encode(data).decode("ascii")
            self._keep(self._images, key, found)
        return found

    def _cut_by_server(self, texts: list[str], visitor: str) -> list[list[int]]:
        """The ids that llama.cpp makes of each text."""
        with self._lock:
            known = {text: ids for text in texts if (ids := self._cut.get((visitor, text))) is not None}
        unknown = list(dict.fromkeys(text for text in texts if text not in known))
        for text, ids in zip(unknown, self._ask(unknown), strict=True):
            known[text] = ids
            self._keep(self._cut, (visitor, text), ids)
        return [known[text] for text in texts]

    def _keep(self, cache: LRUCache[Any, Any], key: tuple[str, str], value: object) -> None:
        with self._lock:
            if cache.getsizeof(value) <= cache.maxsize:
                cache[key] = value

    @property
    def _server_begins(self) -> bool:
        """Whether llama.cpp puts the beginning of text before a prompt itself; a model's file may say that it does not."""
        if self._begins is None:
            self._begins = bool(next(self._ask([""], begin=True)))
        return self._begins

    def _ask(self, texts: Iterable[str], *, begin: bool = False) -> Iterator[list[int]]:
        connection = http.client.HTTPConnection(self._server.host, self._server.port, timeout=TIMEOUT)
        headers = {"Authorization": f"Bearer {self._server.key}", "Content-Type": "application/json"}
        try:
            for text in texts:
                body = {"content": text, "add_special": begin, "parse_special": True}
                connection.request("POST", "/tokenize", json.dumps(body), headers)
                yield json.loads(connection.getresponse().read())["tokens"]
        except (http.client.HTTPException, ValueError, LookupError) as error:
            raise ConnectionError("llama.cpp did not say how it cuts a text") from error
        finally:
            connection.close()


def _parts(tokens: abc.Sequence[int], spans: "abc.Sequence[ImageSpan]") -> Iterator[tuple[int, abc.Sequence[int]]]:
    """The tokens before, between and after the images, with where they begin."""
    at = 0
    for span in spans:
        yield at, tokens[at : span.start]
        at = span.start + len(span.input.tokens)
    yield at, tokens[at:]
