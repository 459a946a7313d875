"""The limits on what one visitor and one address may send, request and keep; it does not know who sends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from magistral_ui.chat.conversation import Conversation, UserMessage
from magistral_ui.chat.images import MAX_BYTES, MAX_PIXELS
from magistral_ui.chat.sampling import PARAMETERS, SamplingParams
from magistral_ui.errors import ConversationFull, ParameterRefused, TextTooLong, TooManyImages

MAX_LIMIT = 1_000_000_000
"""The largest value of any limit: timers accept no much larger number of seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one visitor from taking the whole machine. The defaults are for a page that only its owner uses."""

    pictures: int = 10
    """Images in one message."""
    picture_bytes: int = MAX_BYTES
    picture_pixels: int = MAX_PIXELS
    text_length: int = 500_000
    """Characters in one message: about what fits into the longest context."""
    import_mb: int = 256
    """Size of one imported file, in units of 2**20 bytes; bounds on its contents shrink with it."""
    conversations: int = 100_000
    """Conversations of one visitor, beyond which no more can be imported."""
    messages: int = 10_000
    """Messages in all branches of one conversation."""
    conversation_length: int = 20_000_000
    """Characters in all branches of one conversation, replies included."""
    max_tokens: int = 131_072
    """Tokens of one reply, reasoning and answer together."""
    reasoning_tokens: int = 131_072
    """Tokens of the reasoning of one reply."""
    replies: int = 1_000
    """Replies of one visitor that wait or are being written at once."""
    replies_per_address: int = 1_000
    """The same for all visitors from one address: a whole school or office may share one."""
    replies_in_all: int = 1_000
    """The same for everybody together; others are asked to try again in a moment."""
    messages_per_minute: int = 600
    """Replies that one visitor may request, on average."""
    messages_per_minute_per_address: int = 6_000
    pictures_per_minute: int = 6_000
    """New images that are decoded for one visitor, on average: attached, sent, or passed to the API."""
    pictures_per_minute_per_address: int = 60_000
    requests_per_minute_per_address: int = 60_000
    """Requests of any kind: opening a page makes about a hundred, an open page few."""
    visitors_per_minute_per_address: int = 6_000
    upload_mb_per_hour_per_address: int = 100_000
    """Uploads and all other request bodies, in units of 10**6 bytes."""
    unattended_seconds: int = 900
    """How long a reply that nobody watches continues, so that a closed laptop can come back."""
    follow_seconds: int = 20
    """How long an API call waits for a client to read its reply, before it begins."""
    unread_seconds: int = 25
    """How long a client may read nothing of what it is sent before the connection is closed."""
    visitors: int = 500
    """Sessions in memory; the least recently used idle one is evicted first."""
    memory_mb: int = 2_000
    """Memory for the texts and images of those sessions, in units of 10**6 bytes."""
    login_idle_hours: int = 24
    """Idle timeout of a login: how long without a request until the password is asked for again."""
    login_hours: int = 168
    """How long a login lasts in any case."""
    closing_seconds: int = 0
    """How long running replies may continue after SIGTERM (graceful shutdown)."""
    shared: bool = False
    """Whether these are the limits of a page that others can reach; if so, the page states them."""

    def check_message(self, text: str, images: Sequence[object]) -> None:
        """Raises BadInput for a message that is too long or has too many images."""
        if len(text) > self.text_length:
            raise TextTooLong(count=len(text), limit=self.text_length)
        self.check_count(images)

    def check_count(self, images: Sequence[object]) -> None:
        """Raises TooManyImages for more images than a message may have."""
        if len(images) > self.pictures:
            raise TooManyImages(count=len(images), limit=self.pictures)

    def check_conversation(self, conversation: Conversation) -> None:
        """Raises ConversationFull if it has too many messages or characters."""
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
        """`params` with no more tokens than one reply may have; `budget` says whether the engine can close reasoning."""
        reasoning = params.reasoning_budget
        if budget and self.reasoning_tokens < PARAMETERS["reasoning_budget"].high:
            reasoning = self.reasoning_tokens if reasoning is None else min(reasoning, self.reasoning_tokens)
        return replace(params, max_tokens=min(params.max_tokens, self.max_tokens), reasoning_budget=reasoning)

    def changed(self, changes: Mapping[str, object]) -> "Limits":
        """These limits with `changes`. Raises LookupError for an unknown name, ValueError for a bad value."""
        known = {each.name for each in fields(self)} - {"shared"}
        for name, value in changes.items():
            if name not in known:
                raise LookupError(name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LIMIT:
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
"""The limits of a page that others can reach: generous to long reasoning, strict about floods of requests."""


def length_of(conversation: Conversation) -> int:
    """Characters of all messages and replies, in all branches."""
    return sum(
        len(each.text) if isinstance(each, UserMessage) else len(each.reply.reasoning) + len(each.reply.answer)
        for each in conversation.messages.values()
    )


def bytes_of(conversation: Conversation) -> int:
    """About how many bytes it takes in memory: images as they were sent, and two bytes a character."""
    images = {
        image.digest: len(image.data)
        for each in conversation.messages.values()
        if isinstance(each, UserMessage)
        for image in each.images
    }
    return sum(images.values()) + 2 * length_of(conversation)
