"""How much one visitor and one address may send, ask for and hold; it knows neither what is sent nor who sends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from magistral_ui.chat.conversation import Conversation, UserMessage
from magistral_ui.chat.images import MAX_BYTES, MAX_PIXELS
from magistral_ui.chat.sampling import PARAMETERS, SamplingParams
from magistral_ui.errors import ConversationFull, ParameterRefused, TextTooLong, TooManyImages

MOST = 1_000_000_000
"""No limit may be more: clocks and timers take no number of seconds that is much larger."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one visitor from taking the whole machine. The defaults are those of a page for its owner."""

    pictures: int = 10
    """Pictures in one message."""
    picture_bytes: int = MAX_BYTES
    picture_pixels: int = MAX_PIXELS
    text_length: int = 500_000
    """Characters in one message: about what fits into the longest context."""
    import_mb: int = 256
    """Of one file of conversations, in units of 2**20 bytes; what it may hold besides shrinks with it."""
    conversations: int = 100_000
    """Conversations of one visitor, where more would come by a file."""
    messages: int = 10_000
    """Messages in one conversation, all branches together."""
    conversation_length: int = 20_000_000
    """Characters in one conversation, the model's own included, all branches together."""
    max_tokens: int = 131_072
    """Reasoning and answer of one reply together."""
    reasoning_tokens: int = 131_072
    """The reasoning of one reply."""
    replies: int = 1_000
    """Replies of one visitor that wait or are written at once."""
    replies_per_address: int = 1_000
    """The same for all visitors from one address: a school, or an office, has one for everybody."""
    replies_in_all: int = 1_000
    """The same for everybody together; who comes then is asked to come back in a moment."""
    messages_per_minute: int = 600
    """Replies that one visitor may ask for, on average."""
    messages_per_minute_per_address: int = 6_000
    pictures_per_minute: int = 6_000
    """New pictures that are looked at for one visitor, on average: attached, sent, or brought by a program."""
    pictures_per_minute_per_address: int = 60_000
    requests_per_minute_per_address: int = 60_000
    """Requests of any kind: a page that is open asks for little, one that is being opened for about a hundred."""
    visitors_per_minute_per_address: int = 6_000
    """Visitors who are new."""
    upload_mb_per_hour_per_address: int = 100_000
    """Millions of bytes of files."""
    unattended_seconds: int = 900
    """For how long a reply is written that nobody looks at: a closed laptop comes back, a forgotten tab does not."""
    follow_seconds: int = 20
    """For how long a program's call waits for somebody to read its reply, before it begins."""
    unread_seconds: int = 25
    """After so long without taking anything in, whoever is sent something is dropped."""
    visitors: int = 500
    """Sessions that are kept in memory; the least recently used idle one is forgotten first."""
    memory_mb: int = 2_000
    """Millions of bytes that those sessions may hold in texts and pictures."""
    login_idle_hours: int = 24
    """After so long without a request, the password is asked for again."""
    login_hours: int = 168
    """After so long in any case."""
    closing_seconds: int = 0
    """For how long replies may be finished when the app is asked to end (SIGTERM)."""
    shared: bool = False
    """Whether they were made for a page that strangers reach: then the page says what they are."""

    def check_message(self, text: str, images: Sequence[object]) -> None:
        """Raises BadInput for a message with more in it than may be sent at once."""
        if len(text) > self.text_length:
            raise TextTooLong(count=len(text), limit=self.text_length)
        if len(images) > self.pictures:
            raise TooManyImages(count=len(images), limit=self.pictures)

    def check_conversation(self, conversation: Conversation) -> None:
        """Raises ConversationFull where there is more in it than may be."""
        if len(conversation.messages) > self.messages:
            raise ConversationFull(limit=self.messages)
        if length_of(conversation) > self.conversation_length:
            raise ConversationFull("conversation_too_long", limit=self.conversation_length)

    def check_params(self, params: SamplingParams) -> None:
        """Raises ParameterRefused for more tokens than one reply may have."""
        for name, limit in (("max_tokens", self.max_tokens), ("reasoning_budget", self.reasoning_tokens)):
            value = getattr(params, name)
            if value is not None and value > limit:
                raise ParameterRefused("parameter_out_of_range", name=name, low=PARAMETERS[name].low, high=limit)

    def bounded(self, params: SamplingParams, budget: bool = True) -> SamplingParams:
        """`params` with no more tokens than one reply may have; `budget` tells whether the engine can close reasoning."""
        reasoning = params.reasoning_budget
        if budget and self.reasoning_tokens < PARAMETERS["reasoning_budget"].high:
            reasoning = min(reasoning or self.reasoning_tokens, self.reasoning_tokens)
        return replace(params, max_tokens=min(params.max_tokens, self.max_tokens), reasoning_budget=reasoning)

    def changed(self, changes: Mapping[str, object]) -> "Limits":
        """These limits with others laid over them. LookupError, with the name, for what is no limit; ValueError for a value."""
        known = {each.name for each in fields(self)} - {"shared"}
        for name, value in changes.items():
            if name not in known:
                raise LookupError(name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
                raise ValueError(name)
        return replace(self, **changes)  # type: ignore[arg-type]  # names and types are checked above


SHARED = Limits(
    pictures=4,
    picture_bytes=10 * 2**20,
    picture_pixels=25_000_000,
    text_length=20_000,
    messages=200,
    conversation_length=2_000_000,
    max_tokens=16_384,
    reasoning_tokens=12_288,
    replies=2,
    replies_per_address=64,
    replies_in_all=600,
    messages_per_minute=20,
    messages_per_minute_per_address=300,
    pictures_per_minute=60,
    pictures_per_minute_per_address=600,
    requests_per_minute_per_address=6_000,
    visitors_per_minute_per_address=120,
    upload_mb_per_hour_per_address=1_000,
    unattended_seconds=300,
    import_mb=20,
    conversations=500,
    memory_mb=1_000,
    closing_seconds=30,
    shared=True,
)
"""Those of a page that strangers reach: room for a long thought, not for a flood."""


def length_of(conversation: Conversation) -> int:
    """Characters of all that was said and written, in all branches."""
    return sum(
        len(each.text) if isinstance(each, UserMessage) else len(each.reply.reasoning) + len(each.reply.answer)
        for each in conversation.messages.values()
    )


def bytes_of(conversation: Conversation) -> int:
    """About the bytes that it takes in memory: pictures as they were sent, and two bytes a character."""
    images = {
        image.digest: len(image.data)
        for each in conversation.messages.values()
        if isinstance(each, UserMessage)
        for image in each.images
    }
    return sum(images.values()) + 2 * length_of(conversation)
