"""The engine as visitors of a public page see it: with bounded replies, and without details meant for the operator."""

from dataclasses import replace

from magistral_ui.chat.events import Failed
from magistral_ui.chat.prompt import Prompt
from magistral_ui.engines.base import (
    Broken,
    Engine,
    EngineStatus,
    GenerationRequest,
    Loading,
    Measure,
    Ready,
    Unloaded,
    closes_reasoning,
)
from magistral_ui.engines.generation import Generation
from magistral_ui.models.cards import ModelCard
from magistral_ui.sessions.limits import Limits

PUBLIC_FAILURES = frozenset({"remote_busy", "remote_cut", "remote_filtered", "remote_prompt_too_long", "remote_silent"})
"""Failures of a model server that visitors can do something about; they see the model's name in place of the server's."""


class PublicEngine:
    """Wraps another engine so that visitors cannot load a model or read anything about folders and servers."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits

    @property
    def card(self) -> ModelCard:
        """The model's card, with a length of replies that the limits allow."""
        card = self._engine.card
        return replace(card, sampling=self._limits.bounded(card.sampling, closes_reasoning(self._engine)))

    def status(self) -> EngineStatus:
        """The status without the reason of a failure: it may name folders and servers, and is in the operator's log."""
        status = self._engine.status()
        if isinstance(status, Broken):
            return Broken("model_error")
        if isinstance(status, Ready | Unloaded):
            source = status.info.source if "://" not in status.info.source else status.info.name
            source = source.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if _is_folder(source) else source
            return type(status)(replace(status.info, source=source, plan=None, notices=()))
        return replace(status, notices=()) if isinstance(status, Loading) else status

    def retry(self) -> None:
        """Only the operator loads a model."""

    def measure(self, prompt: Prompt, visitor: str = "") -> Measure:
        return self._engine.measure(prompt, visitor)

    def submit(self, request: GenerationRequest) -> Generation:
        """Begin a reply. If it fails, visitors see neither the model server's address nor its message."""
        generation = self._engine.submit(request)
        generation.redact_failures(self._redacted)
        return generation

    def forget(self, visitor: str) -> None:
        self._engine.forget(visitor)

    def close(self) -> None:
        self._engine.close()

    def _redacted(self, failed: Failed) -> Failed:
        """`failed` as visitors may see it: with numbers and the model's name, and no other text."""
        if failed.key.startswith("remote_") and failed.key not in PUBLIC_FAILURES:
            return replace(failed, key="unavailable", values={})
        if failed.key.startswith("gguf_"):  # why llama.cpp crashed, which whoever runs the app can mend
            return replace(failed, key="model_process_ended", values={})
        values: dict[str, str | int | float] = {
            name: self._engine.card.name if isinstance(value, str) else value for name, value in failed.values.items()
        }
        return replace(failed, values=values)


def _is_folder(source: str) -> bool:
    """Whether `source` names a place on the disk, not a repository `owner/name`."""
    return source.startswith(("/", "~", ".")) or source.count("/") > 1 or "\\" in source
