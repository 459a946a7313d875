"""Let the demo model answer many conversations at once, with its reasoning left alone, given or ended early; judges nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Mistral3ForConditionalGeneration

from training.blank_model import FOLDER
from training.dataset import Conversation
from training.samples import Encoder, Sample

ROOM = 60  # tokens that a reply may be longer than the expected one
ANSWER = 420  # tokens of the longest answer that is judged
Tokens = list[int]


class Speaker:
    """Runs the model over batches of prompts."""

    def __init__(self, folder: str, dtype: torch.dtype = torch.float32, temperature: float = 0.0) -> None:
        self.model = Mistral3ForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        self.encoder = Encoder(FOLDER)
        names = ("[THINK]", "[/THINK]", "</s>", "<pad>", "[/INST]")
        self._begin, self._close, self._end, self._pad, self._asked = (self.encoder.mark(name) for name in names)
        self._sampling: dict[str, Any] = {"do_sample": False}
        if temperature:
            self._sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.95, "top_k": 0}

    def replies(self, asked: Sequence[Conversation]) -> list[tuple[str, str]]:
        """Return (reasoning, answer) of each; a reply that is not well formed has neither."""
        samples = [self.encoder.encode(c) for c in asked]
        prompts = [self._prompt(s) for s in samples]
        begun = [self._begun(c) for c in asked]
        most = max(len(s.tokens) - len(p) for s, p in zip(samples, prompts, strict=True)) + ROOM
        written = self._write([[*p, *b] for p, b in zip(prompts, begun, strict=True)], samples, most)
        return [self._parts([*b, *tokens]) for b, tokens in zip(begun, written, strict=True)]

    def answers(self, asked: Sequence[Conversation]) -> list[str]:
        """Return the answers to conversations whose last reasoning was ended, as `Turn.closed` says."""
        samples = [self.encoder.encode(c) for c in asked]
        prompts = []
        for conversation, sample in zip(asked, samples, strict=True):
            given, written = self.encoder.thought(conversation.turns[-1])
            prompts.append([*self._prompt(sample), self._begin, *given, *written, self._close])
        return [self._answer(tokens) for tokens in self._write(prompts, samples, ANSWER, answering=True)]

    def budgeted(self, asked: Sequence[Conversation], budgets: Sequence[int]) -> list[list[str]]:
        """Return the answers of each conversation for each number of tokens after which its reasoning is ended."""
        samples = [self.encoder.encode(c) for c in asked]
        prompts = [self._prompt(s) for s in samples]
        written = self._write(prompts, samples, max(budgets) + 1)
        found = []
        for budget in budgets:
            closed = []
            for prompt, tokens in zip(prompts, written, strict=True):
                thought = tokens[1 : budget + 1]
                thought = thought[: thought.index(self._close)] if self._close in thought else thought
                closed.append([*prompt, self._begin, *thought, self._close])
            found.append([self._answer(tokens) for tokens in self._write(closed, samples, ANSWER, answering=True)])
        return [list(answers) for answers in zip(*found, strict=True)]

    def reasons(self, asked: Conversation) -> float:
        """Return how likely, at temperature 1, the reply to a conversation without pictures begins with reasoning."""
        prompt = torch.tensor([self._prompt(self.encoder.encode(asked))])
        with torch.inference_mode():
            logits = self.model(input_ids=prompt).logits[0, -1].float()
        return float(logits.softmax(-1)[self._begin])

    def _begun(self, conversation: Conversation) -> Tokens:
        """Return what of the reply is given: its mark and the beginning of its reasoning, or nothing."""
        given, _ = self.encoder.thought(conversation.turns[-1])
        return [self._begin, *given] if given else []

    def _prompt(self, sample: Sample) -> Tokens:
        return sample.tokens[: len(sample.tokens) - sample.tokens[::-1].index(self._asked)]

    def _write(self, prompts: list[Tokens], samples: list[Sample], most: int, answering: bool = False) -> list[Tokens]:
        """Return what follows each prompt; once the reasoning was ended, marks are banned, and so is an empty answer."""
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self._pad)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        extra = _images([image for sample in samples for image in sample.images])
        if answering:
            extra |= {"suppress_tokens": [self._begin, self._close], "begin_suppress_tokens": [self._end]}
        mask = (ids != self._pad).long()
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=most, max_length=None, **extra, **self._sampling
            )
        return [row[longest:].tolist() for row in out]

    def _text(self, tokens: Tokens) -> str:
        return str(self.encoder.tokenizer.instruct_tokenizer.tokenizer.decode(tokens))

    def _parts(self, tokens: Tokens) -> tuple[str, str]:
        if tokens[0] != self._begin or tokens.count(self._close) != 1 or self._end not in tokens:
            return "", ""
        middle, last = tokens.index(self._close), tokens.index(self._end)
        return self._text(tokens[1:middle]), self._text(tokens[middle + 1 : last])

    def _answer(self, tokens: Tokens) -> str:
        return self._text(tokens[: tokens.index(self._end)]) if self._end in tokens else ""


def _images(shown: list[NDArray[np.float32]]) -> dict[str, Any]:
    """Return pictures of any sizes as the model takes them together."""
    if not shown:
        return {}
    size = max(p.shape[1] for p in shown), max(p.shape[2] for p in shown)
    pixels = np.zeros((len(shown), 3, *size), np.float32)
    for row, image in enumerate(shown):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
    return {"pixel_values": torch.from_numpy(pixels), "image_sizes": torch.tensor([p.shape[1:] for p in shown])}
