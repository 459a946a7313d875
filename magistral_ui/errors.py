"""What can go wrong, as a tree; each error has a message: the key of the page's sentence and its values, never prose.

MagistralUIError
├── BadInput                 a visitor can fix it
│   ├── EmptyMessage
│   ├── TextTooLong
│   ├── ConversationFull     key conversation_full, conversation_too_long
│   ├── MessageGone
│   ├── ImageRefused         key picture_not_an_image, picture_broken, picture_too_large, picture_not_supported
│   ├── ImagesRefused        several of them
│   ├── TooManyImages
│   ├── ParameterRefused     key parameter_unknown, parameter_out_of_range, parameter_not_a_number, parameter_not_supported
│   ├── ImportRefused        key import_not_json, import_not_ours, import_version, import_broken, import_too_large, …
│   └── PromptTooLong
├── Unavailable              the same request may work later
│   ├── NotReady
│   ├── QueueFull
│   ├── Overloaded           key overloaded, closing
│   ├── TooManyReplies       key too_many_replies, too_many_replies_from_address
│   ├── TooManyRequests
│   ├── AlreadyAnswering
│   └── ModelSwitching
├── ModelError               the operator can fix it; key model_error, model_not_loaded
│   ├── ModelNotFound
│   ├── NotAMistralModel     key not_a_mistral_model, gguf_adapter, gguf_projector and other gguf_…
│   ├── ModelFilesBroken     key model_files_broken, model_file_unreadable, weights_missing, gguf_damaged, …
│   ├── LibraryMissing       key torch_missing, llama_cpp_missing
│   ├── DownloadFailed       key hub_unreachable, connection_lost, disk_full, token_refused, access_denied, file_corrupt, …
│   │   └── HoldsGGUF
│   ├── DeviceTooSmall       key device_too_small, precision_too_large
│   ├── CopyNotSaved
│   ├── ServerUnusable       key remote_unreachable, remote_key_refused, remote_model_unknown, …
│   └── OutOfMemory          key out_of_memory_loading
├── ModelRefused             key not_the_owner, model_in_use, models_elsewhere
├── HistoryUnusable          conversations cannot be saved; key history_in_use, history_newer, history_failed
└── ServeError
    ├── PortInUse
    └── BadSetting           key bad_setting, gpu_too_old and other gpu_… where --device names a card that cannot be used, …
"""

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Message:
    """Something to tell a person, without words: `key` names the sentence in the language files, `values` fill its gaps."""

    key: str
    values: Mapping[str, Value] = field(default_factory=dict)


class MagistralUIError(Exception):
    """Base of all errors that are meant for a person; `message` says what to tell them."""

    key: ClassVar[str] = "unexpected"
    """The key of the message where none is given."""

    def __init__(self, key: str | None = None, /, **values: Value) -> None:
        self.message = Message(key or self.key, values)
        super().__init__(f"{self.message.key} {values}" if values else self.message.key)


class BadInput(MagistralUIError):
    """What a visitor sent cannot be used."""

    key = "bad_input"


class EmptyMessage(BadInput):
    """Neither text nor an image."""

    key = "empty_message"


class TextTooLong(BadInput):
    """More text in one message than allowed; values: count, limit."""

    key = "text_too_long"


class ConversationFull(BadInput):
    """More in one conversation than allowed; values: limit."""

    key = "conversation_full"


class MessageGone(BadInput):
    """The message that a request is about is not, or no longer, in this conversation."""

    key = "message_gone"


class ImageRefused(BadInput):
    """A file that cannot be used as an image; values: name, and the limit that it exceeds."""

    key = "picture_not_an_image"


class ImagesRefused(BadInput):
    """Several such files; values: count, names."""

    key = "pictures_refused"


class TooManyImages(BadInput):
    """More images in one message than allowed; values: count, limit."""

    key = "too_many_pictures"


class ImportRefused(BadInput):
    """A file from which nothing was imported; values by key: where, name, count, limit, needed, version, known."""

    key = "import_not_ours"


class ParameterRefused(BadInput):
    """An unknown parameter, or a value out of bounds; values: name, low, high."""

    key = "parameter_unknown"


class PromptTooLong(BadInput):
    """The prompt leaves no room for an answer; values: tokens, limit."""

    key = "prompt_too_long"


class Unavailable(MagistralUIError):
    """The request is valid, but it cannot be served now."""

    key = "unavailable"


class NotReady(Unavailable):
    """The model is not loaded yet."""

    key = "not_ready"


class QueueFull(Unavailable):
    """Too many requests are waiting; values: limit."""

    key = "queue_full"


class Overloaded(Unavailable):
    """Too many replies are being written to start another, or the app is shutting down."""

    key = "overloaded"


class TooManyReplies(Unavailable):
    """This visitor, or address, already has as many running replies as allowed; values: limit."""

    key = "too_many_replies"


class TooManyRequests(Unavailable):
    """Too many requests in a short time; values: seconds until the next one is allowed."""

    key = "too_many_requests"


class AlreadyAnswering(Unavailable):
    """A reply to this conversation is still being written."""

    key = "already_answering"


class ModelSwitching(Unavailable):
    """Another model is being loaded."""

    key = "model_switching"


class ModelRefused(MagistralUIError):
    """An action on models that this client, or nobody, may take."""

    key = "not_the_owner"


class ModelError(MagistralUIError):
    """The model cannot be loaded."""

    key = "model_error"


class ModelNotFound(ModelError):
    """No such file, folder or repository; values: model."""

    key = "model_not_found"


class NotAMistralModel(ModelError):
    """A folder that holds another kind of model; values: model, found."""

    key = "not_a_mistral_model"


class ModelFilesBroken(ModelError):
    """Files are missing, damaged, unreadable or inconsistent; values: model, and by key file, reason, name, …"""

    key = "model_files_broken"


class LibraryMissing(ModelError):
    """What runs the model is not installed; values: model, other (what to name instead)."""

    key = "torch_missing"


class DownloadFailed(ModelError):
    """A repository could not be downloaded; values: model, and by key host, file, needed, free, folder, reason."""

    key = "download_failed"


class HoldsGGUF(DownloadFailed):
    """A repository with GGUF files instead of safetensors, which another engine runs; values: model."""

    key = "repository_holds_gguf"


class DeviceTooSmall(ModelError):
    """By the plan, the model does not fit; values: model, precision, device, free, needed (GB), other."""

    key = "device_too_small"


class CopyNotSaved(ModelError):
    """A quantized copy could not be written; values: folder, reason."""

    key = "copy_not_saved"


class ServerUnusable(ModelError):
    """A server that runs the model cannot be used; values: server, and by key status, detail, models."""

    key = "remote_unreachable"


class OutOfMemory(ModelError):
    """The device had no room for the model, though the plan said so; values: model, device."""

    key = "out_of_memory"


class HistoryUnusable(MagistralUIError):
    """Conversations cannot be saved to disk; values: folder, reason."""

    key = "history_failed"


class ServeError(MagistralUIError):
    """The page cannot be served."""

    key = "serve_error"


class PortInUse(ServeError):
    """Another program is listening on the port; values: port."""

    key = "port_in_use"


class BadSetting(ServeError):
    """A flag or an environment variable has an invalid value; values: name, value."""

    key = "bad_setting"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, and the errors that led to it; each once, even where they name each other."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def unreadable(model: str, file: str, error: Exception) -> ModelFilesBroken:
    """A missing file or invalid contents mean broken files; a file that the system will not let us read may be fine."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return ModelFilesBroken(model=model, file=file)
    return ModelFilesBroken("model_file_unreadable", model=model, file=file, reason=os.strerror(number))


def first_line(error: Exception) -> str:
    """The first line of an error's message, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
