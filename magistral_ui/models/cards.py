"""The model cards: facts about the models that this page is made for, each with its source; nothing is loaded or downloaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Literal

from magistral_ui.chat.images import ImageFile
from magistral_ui.chat.prompt import SystemPart, has_marks, split_system_prompt
from magistral_ui.chat.sampling import Effort, SamplingParams, effort_of
from magistral_ui.errors import ImageRefused
from magistral_ui.models.shape import (
    MAGISTRAL_SMALL_1_2,
    MAGISTRAL_SMALL_TEXT,
    MINISTRAL_3_3B_SHAPE,
    MINISTRAL_3_8B_SHAPE,
    MINISTRAL_3_14B_SHAPE,
    ModelShape,
)

TOKEN_MARKS = ("[THINK]", "[/THINK]")
TEXT_MARKS = ("<think>", "</think>")
BENCHMARKS = ("aime25", "aime24", "gpqa_diamond", "livecodebench")
"""The benchmarks that the cards give: AIME 2025 and 2024, GPQA Diamond, LiveCodeBench; per cent of the tasks solved."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the page and the engines need to know of a model before it is read from disk."""

    key: str
    name: str
    repository: str | None
    """Its name on the Hugging Face Hub; None for a model that ships with the project or is in a folder."""
    marks: Literal["tokens", "text"]
    """Whether reasoning is marked by the control tokens [THINK] and [/THINK], or by <think> and </think> as text."""
    vision: bool
    context_length: int
    recommended_length: int
    """Tokens up to which Mistral recommends it."""
    sampling: SamplingParams
    system_prompt_file: str
    revision: str | None = None
    """The commit of the repository; None: the newest, if no commit is certain."""
    shape: ModelShape | None = None
    """Known before the download, so that a model that cannot fit is never downloaded."""
    demo: bool = False
    """Whether it is the tiny model that shows how the page works; the page says so."""
    description_key: str = "model_magistral"
    benchmarks: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Per cent of the tasks solved, by the names in BENCHMARKS; empty if unknown."""
    languages: tuple[str, ...] = ()
    """The languages that Mistral lists for it, as ISO 639-1 codes; empty if unknown."""
    download_bytes: int = 0
    """Bytes of its weights on the Hub: what is downloaded, but for about 20 MB of tokenizer and configuration."""
    license: str = ""
    """SPDX identifier; empty if unknown."""
    takes_effort: bool = False
    """Whether it reads a reasoning effort (tokenizer v15, some servers) instead of a prompt that shows how to reason."""
    keeps_reasoning: bool = False
    """Whether Mistral advises keeping earlier reasoning in the context; otherwise the choice is free."""
    gguf_repositories: tuple[str, ...] = ()
    """Repositories with its GGUF files, the preferred one first."""

    @property
    def reasoning_marks(self) -> tuple[str, str]:
        return TOKEN_MARKS if self.marks == "tokens" else TEXT_MARKS

    @property
    def textual_marks(self) -> tuple[tuple[str, str], ...]:
        """The pairs of marks that may enclose reasoning in a text, the card's own first."""
        return (TEXT_MARKS, TOKEN_MARKS) if self.marks == "text" else (TOKEN_MARKS, TEXT_MARKS)

    def system(self, text: str | None = None, budget: int | None = None) -> tuple[SystemPart, ...]:
        """The system prompt in parts: the card's own, or `text` with literal marks, for a reasoning `budget`.

        The card's own template of reasoning is left out if the model must not reason (a budget of 0), or reads an
        effort instead. The 1.0 prompt marks reasoning as text, so it is a single part.
        """
        if text is None and self.prompts_reasoning and (budget == 0 or self.takes_effort):
            return ()
        text = self.system_prompt() if text is None else text
        if self.marks == "text" or self.takes_effort:  # v15 refuses reasoning in a system prompt
            return (SystemPart(text),) if text else ()
        return split_system_prompt(text, self.reasoning_marks)

    def effort(self, budget: int | None) -> Effort | None:
        """What a prompt says about how much to reason; None if the model reads nothing of the kind."""
        return effort_of(budget) if self.takes_effort or budget == 0 else None

    @property
    def prompts_reasoning(self) -> bool:
        """Whether the card's own system prompt shows the model how to reason."""
        return has_marks(self.system_prompt(), self.reasoning_marks)

    def system_prompt(self) -> str:
        """The system prompt that the model was trained with, with literal marks; empty if unknown."""
        if not self.system_prompt_file:
            return ""
        return (resources.files("magistral_ui.models") / self.system_prompt_file).read_text(encoding="utf-8")


def _benchmarks(*solved: float) -> Mapping[str, float]:
    """The figures in the order of BENCHMARKS."""
    return dict(zip(BENCHMARKS, solved, strict=True))


def _ministral_gguf(size: str) -> tuple[str, ...]:
    name = f"Ministral-3-{size}-Reasoning-2512-GGUF"
    return (f"mistralai/{name}", f"unsloth/{name}")


BYTES_PER_PARAMETER = 2
"""All of these are on the Hub in bfloat16."""
MAGISTRAL_LANGUAGES = (
    *("en", "fr", "de", "es", "pt", "it", "ja", "ko", "ru", "zh", "ar", "fa"),
    *("id", "ms", "ne", "pl", "ro", "sr", "sv", "tr", "uk", "vi", "hi", "bn"),
)
MINISTRAL_LANGUAGES = ("en", "fr", "es", "de", "it", "pt", "nl", "zh", "ja", "ko", "ar")

# Sampling, lengths, prompts, benchmarks (LiveCodeBench v5), languages and licences: the cards of mistralai/Magistral-Small-2506,
# -2507, -2509 on the Hugging Face Hub.
# Commits: as several independent public projects pin or cite them (2509: a template collection, a model catalogue, two
# evaluation lists and a path in somebody's Hub cache; 2507: a tokenizer test suite, which also gives the SHA-256 of its
# tekken.json, and a prompt builder that cites its README). For 2506 two projects name two different commits, so none is pinned.
# GGUF files: the cards of the models and of these repositories. Mistral's own come first, but for 1.2, whose vision tower is only
# in unsloth's. All have Q4_K_M, Q5_K_M and Q8_0, unsloth's also what is coarser.
MAGISTRAL_1_2 = ModelCard(
    key="magistral-small-2509",
    name="Magistral Small 1.2",
    repository="mistralai/Magistral-Small-2509",
    marks="tokens",
    vision=True,
    context_length=131_072,
    recommended_length=131_072,
    sampling=SamplingParams(temperature=0.7, top_p=0.95, max_tokens=131_072),
    system_prompt_file="system_prompts/magistral-small-2509.txt",
    revision="a31cc96ab10cf19bc42c628fedf1e359e0853c49",
    shape=MAGISTRAL_SMALL_1_2,
    benchmarks=_benchmarks(77.34, 86.14, 70.07, 70.88),
    languages=MAGISTRAL_LANGUAGES,
    download_bytes=BYTES_PER_PARAMETER * MAGISTRAL_SMALL_1_2.parameters,
    license="Apache-2.0",
    gguf_repositories=("unsloth/Magistral-Small-2509-GGUF", "mistralai/Magistral-Small-2509-GGUF"),
)
MAGISTRAL_1_1 = replace(
    MAGISTRAL_1_2,
    key="magistral-small-2507",
    name="Magistral Small 1.1",
    repository="mistralai/Magistral-Small-2507",
    vision=False,
    recommended_length=40_960,
    sampling=SamplingParams(temperature=0.7, top_p=0.95, max_tokens=40_960),
    system_prompt_file="system_prompts/magistral-small-2507.txt",
    revision="b3583a426ca23186681c4297926dfe9219be6161",
    shape=MAGISTRAL_SMALL_TEXT,
    benchmarks=_benchmarks(62.03, 70.52, 65.78, 59.17),
    download_bytes=BYTES_PER_PARAMETER * MAGISTRAL_SMALL_TEXT.parameters,
    gguf_repositories=("mistralai/Magistral-Small-2507-GGUF", "unsloth/Magistral-Small-2507-GGUF"),
)
MAGISTRAL_1_0 = replace(
    MAGISTRAL_1_1,
    key="magistral-small-2506",
    name="Magistral Small 1.0",
    repository="mistralai/Magistral-Small-2506",
    marks="text",
    system_prompt_file="system_prompts/magistral-small-2506.txt",
    revision=None,
    benchmarks=_benchmarks(62.76, 70.68, 68.18, 55.84),
    gguf_repositories=("mistralai/Magistral-Small-2506_gguf", "unsloth/Magistral-Small-2506-GGUF"),
)
# Ministral 3 Reasoning: the cards and config.json of mistralai/Ministral-3-{3B,8B,14B}-Reasoning-2512 on the Hub; commits as
# public model catalogues pin them. Temperature: the 8B's and 14B's cards; top_p: Mistral's recipe for vLLM. The configuration
# allows 262,144 tokens, the paper (arXiv 2601.08584) says 128k for the reasoning models. SYSTEM_PROMPT.txt is Magistral 1.2's.
# The cards "highly recommend" keeping reasoning traces in the context.
MINISTRAL_3_14B = ModelCard(
    key="ministral-3-14b",
    name="Ministral 3 14B",
    repository="mistralai/Ministral-3-14B-Reasoning-2512",
    marks="tokens",
    vision=True,
    context_length=262_144,
    recommended_length=131_072,
    sampling=SamplingParams(temperature=1.0, top_p=0.95, max_tokens=131_072),
    system_prompt_file="system_prompts/magistral-small-2509.txt",
    revision="51f9210f3cd20f3452a80d5819d15dc61cc50630",
    shape=MINISTRAL_3_14B_SHAPE,
    benchmarks=_benchmarks(85.0, 89.8, 71.2, 64.6),
    languages=MINISTRAL_LANGUAGES,
    download_bytes=BYTES_PER_PARAMETER * MINISTRAL_3_14B_SHAPE.parameters,
    license="Apache-2.0",
    keeps_reasoning=True,
    gguf_repositories=_ministral_gguf("14B"),
)
MINISTRAL_3_8B = replace(
    MINISTRAL_3_14B,
    key="ministral-3-8b",
    name="Ministral 3 8B",
    repository="mistralai/Ministral-3-8B-Reasoning-2512",
    sampling=replace(MINISTRAL_3_14B.sampling, temperature=0.7),
    revision="81eaece1948f3875421d9a45bc55487d10e2d894",
    shape=MINISTRAL_3_8B_SHAPE,
    benchmarks=_benchmarks(78.7, 86.0, 66.8, 61.6),
    download_bytes=BYTES_PER_PARAMETER * MINISTRAL_3_8B_SHAPE.parameters,
    gguf_repositories=_ministral_gguf("8B"),
)
MINISTRAL_3_3B = replace(
    MINISTRAL_3_8B,
    key="ministral-3-3b",
    name="Ministral 3 3B",
    repository="mistralai/Ministral-3-3B-Reasoning-2512",
    revision="4a36357c811bf511a7b625d132e12f22408aac91",
    shape=MINISTRAL_3_3B_SHAPE,
    benchmarks=_benchmarks(72.1, 77.5, 53.4, 54.8),
    download_bytes=BYTES_PER_PARAMETER * MINISTRAL_3_3B_SHAPE.parameters,
    gguf_repositories=_ministral_gguf("3B"),
)
DEMO = ModelCard(
    key="demo",
    name="Demo model",
    repository=None,
    marks="tokens",
    vision=True,
    context_length=8_192,
    recommended_length=8_192,
    sampling=SamplingParams(temperature=0.7, top_p=0.95, max_tokens=4_096),
    system_prompt_file="demo/SYSTEM_PROMPT.txt",
    demo=True,
    description_key="model_demo",
)
FAMILY = (MAGISTRAL_1_2, MINISTRAL_3_14B, MINISTRAL_3_8B, MINISTRAL_3_3B)
"""The models to choose from for a machine, the best first."""
RE_UPLOADS = {
    "unsloth/Magistral-Small-2509-unsloth-bnb-4bit": MAGISTRAL_1_2,
    "unsloth/Ministral-3-14B-Reasoning-2512-unsloth-bnb-4bit": MINISTRAL_3_14B,
    "unsloth/Ministral-3-8B-Reasoning-2512-unsloth-bnb-4bit": MINISTRAL_3_8B,
    "unsloth/Ministral-3-3B-Reasoning-2512-unsloth-bnb-4bit": MINISTRAL_3_3B,
}
"""Repositories with the same weights in nf4, a third of the download, by the card of their original. Their exact sizes are not
known; they keep some layers more exact, so they are somewhat larger than nf4 of the whole model."""
CARDS = {card.key: card for card in (*FAMILY, MAGISTRAL_1_1, MAGISTRAL_1_0, DEMO)}


def find_card(name: str) -> ModelCard | None:
    """The card whose key or repository is `name` (case does not matter), or None."""
    wanted = name.casefold()
    return next((c for c in CARDS.values() if wanted in (c.key, (c.repository or c.key).casefold())), None)


def guess_card(model: str | None) -> ModelCard:
    """What to show of the `model` that is named, a card or a file or a repository's, until its files have been read."""
    if not model or model == "auto":
        return DEMO
    name = model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].partition(":")[0]
    return find_card(model) or replace(without_claims(MAGISTRAL_1_2), key=model, name=name.removesuffix(".gguf"))


def nearest_card(shape: ModelShape, ministral: bool) -> ModelCard:
    """The card of the model that `shape` was most likely made from: the nearest in width, then in layers, then in its MLP.

    `ministral` says whether the decoder is Ministral's.
    """
    if not ministral:
        return MAGISTRAL_1_2 if shape.vision else MAGISTRAL_1_1

    def difference(card: ModelCard) -> tuple[int, ...]:
        own = card.shape or shape
        pairs = ((own.hidden, shape.hidden), (own.layers, shape.layers), (own.intermediate, shape.intermediate))
        return tuple(abs(a - b) for a, b in pairs)

    return min((MINISTRAL_3_14B, MINISTRAL_3_8B, MINISTRAL_3_3B), key=difference)


def without_claims(card: ModelCard) -> ModelCard:
    """`card` without what is only true of the published weights: for a copy that may have been trained further."""
    return replace(
        card,
        repository=None,
        revision=None,
        benchmarks={},
        languages=(),
        download_bytes=0,
        license="",
        gguf_repositories=(),
    )


def check_seen(card: ModelCard, images: Sequence[ImageFile]) -> None:
    """Raises ImageRefused if the model cannot see images."""
    if images and not card.vision:
        raise ImageRefused("picture_not_supported", name=images[0].name)
