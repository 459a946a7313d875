"""Says, for the doctor, which device llama.cpp would use, and runs a GGUF file there; nothing is downloaded where HF_HUB_OFFLINE
is set."""

import threading
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf.devices import LlamaDevice, find_llama_device
from magistral_ui.engines.gguf.failure_reasons import PACKAGE
from magistral_ui.errors import BadSetting, DownloadFailed, Message, ModelNotFound
from magistral_ui.models.cards import DEMO, find_card
from magistral_ui.models.folder import AUTO
from magistral_ui.models.gguf_names import split_name

if TYPE_CHECKING:
    from magistral_ui.engines.generation import Generation
    from magistral_ui.engines.gguf.loading import LoadedGGUF
    from magistral_ui.engines.gguf.running_gguf import RunningGGUF

TOGETHER = 8
REPLY_TOKENS = 64
QUESTION, SUM = "What is 487 + 265?", "752"
REPLY_TIMEOUT = 120.0


def llama_facts(device: str = "auto") -> Iterator[dict[str, Any]]:
    """Facts of llama.cpp's device for `--device device`."""
    yield {"version": version(PACKAGE), "stage": PACKAGE}
    found = _device(device)
    yield {"backend": found.backend}
    if found.hindrance is not None:
        yield {"hindrance": [found.hindrance.key, dict(found.hindrance.values)]}
    if found.kind == "gpu":
        cards = (found, *found.others)
        yield {"cards": [{"name": each.name, "free": each.free, "total": each.total} for each in cards]}


def _device(wanted: str) -> LlamaDevice:
    try:
        return find_llama_device(wanted)
    except BadSetting:  # torch may have it
        return find_llama_device("cpu")


def reply_facts(model: str | None = None, device: str = "auto", precision: str = "auto") -> Iterator[dict[str, Any]]:
    """What llama.cpp writes with `model`, or with the demo model where that is not named or not on this computer."""
    from magistral_ui.engines.gguf.running_gguf import RunningGGUF

    yield {"stage": "loading"}
    place = "cpu" if _device(device).kind == "cpu" else device
    request = ModelRequest(DEMO.key if model in (None, AUTO) else model, place, precision)
    loaded, missing = _loaded(request)
    if missing is not None:
        yield {"missing": [missing.key, dict(missing.values)]}
    card = find_card(loaded.source.name) or find_card(split_name(loaded.source.name)[0])
    yield {"model": card.key if card else "gguf", "quantization": loaded.info.precision, "stage": "reply"}
    running = RunningGGUF(loaded)
    found: dict[str, Any] = {}
    asking = threading.Thread(target=_ask, args=(running, found), daemon=True)
    asking.start()
    running.serve()
    running.end(None)
    asking.join(REPLY_TIMEOUT)
    yield found


def _loaded(request: ModelRequest) -> "tuple[LoadedGGUF, Message | None]":
    from magistral_ui.engines.gguf.loading import load_gguf

    try:
        return load_gguf(request, lambda _: None, threading.Event()), None
    except (DownloadFailed, ModelNotFound) as error:
        if request.model == DEMO.key:
            raise
        missing = Message("doctor_model_missing") if isinstance(error, DownloadFailed) else error.message
        return load_gguf(ModelRequest(DEMO.key, request.device), lambda _: None, threading.Event()), missing


def _ask(running: "RunningGGUF", found: dict[str, Any]) -> None:
    """One reply, then several together; then `serve` ends."""
    try:
        (alone,) = _replies(running, 1)
        together = _replies(running, TOGETHER)
        failed = next((each.failure for each in (alone, *together) if each.failure), None)
        found["failure"] = failed.key if failed else ""
        found["right"] = not running.card.demo or SUM in alone.answer
        found |= {"one": _pace([alone]), "eight": _pace(together)}
    finally:
        running.close()


def _replies(running: "RunningGGUF", count: int) -> "list[Generation]":
    from magistral_ui.chat.prompt import Prompt, UserTurn
    from magistral_ui.chat.sampling import SamplingParams
    from magistral_ui.engines.base import GenerationRequest

    params = SamplingParams(temperature=0.0, max_tokens=1_024 if running.card.demo else REPLY_TOKENS, seed=1)
    prompt = Prompt(running.card.system(), (UserTurn(QUESTION),))
    begun = [running.submit(GenerationRequest(prompt, params, f"doctor {n}")) for n in range(count)]
    for each in begun:
        each.wait(REPLY_TIMEOUT)
    return begun


def _pace(replies: "list[Generation]") -> float:
    """Tokens a second of all together, from the first token to the last."""
    used = [each.usage for each in replies]
    tokens = sum(each.reasoning_tokens + each.answer_tokens for each in used)
    seconds = max(each.total_seconds for each in used) - min(each.first_token_seconds for each in used)
    return round(tokens / seconds, 1) if seconds > 0 else 0.0
