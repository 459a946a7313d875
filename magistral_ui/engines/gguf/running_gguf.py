"""A loaded GGUF model with its tokenizer, its scheduler and the server that writes its replies; it loads nothing itself."""

import logging
import threading
from dataclasses import replace

from magistral_ui.chat.prompt import AssistantTurn, Prompt
from magistral_ui.engines.base import GenerationRequest, Measure
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.images import PromptWriter
from magistral_ui.engines.gguf.loading import LoadedGGUF
from magistral_ui.engines.gguf.lost_tokens import TokenSpeller
from magistral_ui.engines.gguf.reply import GGUFReply, image_lease
from magistral_ui.engines.gguf.scheduler import CompletionScheduler
from magistral_ui.engines.local.sequence import Sequence, encoded_within
from magistral_ui.engines.pace_recorder import PaceRecorder
from magistral_ui.engines.weights.pace_file import record_pace
from magistral_ui.errors import Message, NotReady, PromptTooLong
from magistral_ui.models.gguf_plan import QUANTIZATIONS

log = logging.getLogger(__name__)

END_TIMEOUT = 10.0
"""Seconds for the supervisor to notice that the server has ended, once its connections have."""
CRASHED = Message("model_process_ended")
"""What replies that were being written when the process ended say, where the reason is not known."""
UNKNOWN_REASONS = ("gguf_ended",)
"""Keys of sentences that name no reason a person could do something about."""


class RunningGGUF:
    """What an engine needs of its model. `serve` and `restart` are called in the engine's thread."""

    def __init__(self, loaded: LoadedGGUF) -> None:
        self.card, self.tokenizer, self.info = loaded.source.card, loaded.tokenizer, loaded.info
        self.server = loaded.server
        self._supervisor = loaded.supervisor
        self._prompts = PromptWriter(self.tokenizer, self.server)
        self._vocabulary = self.tokenizer.vocabulary
        self._speller = TokenSpeller(range(self._vocabulary), self.tokenizer.token_bytes)
        self._image_lease = image_lease(loaded.capacity, loaded.slots)
        self._scheduler = CompletionScheduler(
            loaded.slots,
            loaded.capacity,
            self.tokenizer.begin_of_text,
            lambda sequence: self._prompts.prompt_of(sequence),
            self._why_ended,
        )
        facts, device = loaded.source.facts, loaded.device
        self._pace = PaceRecorder(lambda pace: record_pace(facts.shape, facts.quantization, device, pace))
        self._paced = not self.card.demo and facts.quantization in QUANTIZATIONS
        self._ended = threading.Event()
        self.crash: Message | None = None
        """Why the server ended last, where that is known."""
        self._supervisor.when_died(self._lose)

    @property
    def kv_bytes(self) -> int:
        return self.info.plan.kv_bytes if self.info.plan else 0

    def measure(self, prompt: Prompt, visitor: str) -> Measure:
        measure, encoded = self.tokenizer.measure(prompt, visitor)
        measure = replace(measure, reused=self._scheduler.reusable(visitor, encoded.keys))
        try:
            return self._prompts.measure(measure, encoded, visitor, reasoning_of(prompt))
        except OSError:  # the server has ended this moment
            return replace(measure, estimated=bool(encoded.image_spans))

    def submit(self, request: GenerationRequest, waiting: Generation | None = None) -> Generation:
        """Begin a reply, in the Generation that is `waiting` for it if there is one; raises PromptTooLong or NotReady."""
        encoded, limit = encoded_within(self.info.context_length, self.tokenizer, request)
        try:
            more = self._prompts.prepare(encoded, request.visitor)
        except OSError as error:  # the server has ended this moment
            raise NotReady from error
        limit = min(limit, self.info.context_length - len(encoded.ids) - more)
        if limit < 1:
            raise PromptTooLong(tokens=len(encoded.ids) + more, limit=self.info.context_length)
        generation = Generation() if waiting is None else waiting  # an empty one is false
        generation.control_with(self._scheduler.wake)
        if self._paced:
            self._pace.watch(generation)
        sequence = Sequence(request, encoded, generation, self.tokenizer, limit)
        reply = GGUFReply(sequence, self._speller, self._vocabulary, more, self._image_lease)
        reply.note_redraw()
        self._scheduler.submit(reply)
        return generation

    def forget(self, visitor: str) -> None:
        for reply in self._scheduler.forget(visitor):  # what these remember goes once they have ended
            reply.sequence.generation.when_ended(lambda: self._forget_texts(visitor))
        self._forget_texts(visitor)

    def _forget_texts(self, visitor: str) -> None:
        self.tokenizer.forget(visitor)
        self._prompts.forget(visitor)

    def serve(self) -> None:
        """Write replies until `close`, or until the server is lost."""
        self._scheduler.serve(self.server)

    def restart(self) -> None:
        """Start the server again; raises what the supervisor does."""
        self._why_ended()  # the scheduler may have noticed first, and what is not counted could crash forever
        self._ended.clear()
        self.server = self._supervisor.start()
        self._prompts = PromptWriter(self.tokenizer, self.server)

    def _why_ended(self) -> Message:
        self._ended.wait(END_TIMEOUT)
        return self.crash or CRASHED

    def _lose(self, reason: Message) -> None:
        log.warning("llama.cpp has ended: %s %s", reason.key, reason.values)
        self.crash = None if reason.key in UNKNOWN_REASONS else reason
        self._ended.set()
        self._scheduler.lose()

    def close(self) -> None:
        """End `serve`; all replies end as cancelled."""
        self._scheduler.close()
        self._ended.set()

    def end(self, failure: Message | None) -> None:
        """After the last `serve`: end the server and the replies that wait, as failed if there is a `failure`."""
        self._scheduler.finish(failure)
        self._supervisor.close()


def reasoning_of(prompt: Prompt) -> dict[int, str]:
    """The reasoning of earlier replies, kept or left out, by message."""
    replies = (turn for turn in prompt.turns if isinstance(turn, AssistantTurn) and turn.message is not None)
    return {turn.message or 0: text for turn in replies if (text := turn.reasoning or turn.left_out)}
