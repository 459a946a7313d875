"""A model on a running llama.cpp, with what the engine has of it, and images for it."""

import http.client
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from magistral_ui.chat.conversation import Conversation
from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.chat.prompt import PromptChoices, Resume, compose
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest
from magistral_ui.engines.generation import Generation
from magistral_ui.engines.gguf.images import PromptWriter, ServerPrompt
from magistral_ui.engines.local.sequence import Sequence
from magistral_ui.engines.local.tokenizer import Tokenizer
from magistral_ui.models.folder import DEMO_FOLDER, inspect_folder

CARD = inspect_folder(DEMO_FOLDER).card


@dataclass(frozen=True)
class Server:
    """A running llama.cpp."""

    host: str
    port: int
    key: str
    props: Mapping[str, Any]

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=300)
        headers = {"Authorization": f"Bearer {self.key}"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answered: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return answered

    def complete(self, prompt: ServerPrompt, count: int = 1, **more: object) -> dict[str, Any]:
        body = {"prompt": prompt.value, "n_predict": count, "temperature": 0, "return_tokens": True, **more}
        answered = self.ask("POST", "/completion", body)
        assert "error" not in answered, answered
        return answered

    def reads(self, prompt: ServerPrompt) -> int:
        """How many tokens it makes of `prompt`."""
        return int(self.complete(prompt)["tokens_evaluated"])

    def cut(self, text: str) -> list[int]:
        ids: list[int] = self.ask("POST", "/tokenize", {"content": text, "parse_special": True})["tokens"]
        return ids


class Model:
    """A model on a running server, with what the engine has of it."""

    def __init__(self, server: Server, tekken: Path) -> None:
        self.server = server
        self.tokenizer = Tokenizer(tekken, CARD, CARD.system(), pixels=False)
        self.writer = PromptWriter(self.tokenizer, server)

    def sequence(self, said: Conversation, resume: Resume | None = None) -> Sequence:
        prompt = compose(said, (), PromptChoices(), resume)
        request = GenerationRequest(prompt, SamplingParams(temperature=0.0, max_tokens=300), "ann")
        return Sequence(request, self.tokenizer.encode(prompt, "ann"), Generation(), self.tokenizer, 300)

    def prompt_of(self, text: str, *images: ImageFile) -> ServerPrompt:
        return self.writer.prompt_of(self.sequence(Conversation().say(text, images)))


def drawn(size: tuple[int, int], colour: str = "red", shape: str = "ellipse") -> ImageFile:
    image = Image.new("RGB", size, "white")
    width, height = size
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    (ImageDraw.Draw(image).ellipse if shape == "ellipse" else ImageDraw.Draw(image).rectangle)(box, fill=colour)
    return as_file(image)


def as_file(image: Image.Image, format: str = "PNG", **options: Any) -> ImageFile:
    data = io.BytesIO()
    image.save(data, format, **options)
    return read_image(data.getvalue(), "a photo")
