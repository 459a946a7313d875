"""Names and estimated sizes of GGUF models and quantized copies, also before they are downloaded; it downloads nothing."""

from collections.abc import Iterable, Iterator

from magistral_ui.engines.weights.gguf_download import card_of_repository, held_models
from magistral_ui.engines.weights.gguf_record import recorded_model, recorded_models, recorded_repositories
from magistral_ui.models.cards import RE_UPLOADS, ModelCard
from magistral_ui.models.gguf_choice import counted_as
from magistral_ui.models.gguf_names import is_quantization, split_name
from magistral_ui.models.gguf_plan import QUANTIZATIONS, estimated_weights
from magistral_ui.models.shape import weight_bytes

OFFICIAL_QUANTIZATIONS = ("BF16", "Q8_0", "Q5_K_M", "Q4_K_M")
"""Those in Mistral's own repositories, by their model cards; others have all of them."""


def gguf_names(begun: Iterable[str]) -> Iterator[str]:
    """The GGUF models that are here, in part at least, and those of which a download was `begun`, as `owner/repo:QUANT`."""
    recorded_names = (f"{name}:{model.label}" for name in recorded_repositories() for model in recorded_models(name))
    seen: set[str] = set()
    for name in (*begun, *recorded_names):
        if name.casefold() not in seen:
            seen.add(name.casefold())
            yield name


def is_known_gguf(name: str) -> bool:
    """Whether `name` is a quantization, as `owner/repo:QUANT`, of a repository that a card names."""
    repository, label = split_name(name)
    return is_quantization(label) and card_of_repository(repository) is not None


def held_quantizations(card: ModelCard, precision: str = "auto") -> dict[str, str]:
    """The GGUF models of a card that are complete here, as `owner/repo:QUANT`, by the planned quantizations they count as.

    Of those that count as the same, the first repository's latest. `precision`: only what is labelled so, unless it is `auto`.
    """
    found: dict[str, str] = {}
    for repository in card.gguf_repositories:
        for model in held_models(repository, None):
            if is_quantization(model.label) and (precision == "auto" or model.has_label(precision)):
                found.setdefault(counted_as(model.label), f"{repository}:{model.label}")
    return found


def gguf_way(card: ModelCard, quantization: str) -> str | None:
    """`owner/repo:QUANT` for a model of `card`: what is here already, else of the first repository that has it.

    None if no repository is known to have it.
    """
    for repository in card.gguf_repositories:
        if (model := recorded_model(repository, quantization)) is not None:
            return f"{repository}:{model.label}"
    for repository in card.gguf_repositories:
        if not repository.startswith("mistralai/") or quantization.upper() in OFFICIAL_QUANTIZATIONS:
            return f"{repository}:{quantization}"
    return None


def gguf_download_bytes(repository: str, label: str) -> int:
    """Bytes of a GGUF model of a card's repository, and of its projector; estimated before the Hub was asked, 0 if not known."""
    if (model := recorded_model(repository, label)) is not None:
        return model.bytes
    card, quantization = card_of_repository(repository), label.upper().removeprefix("UD-")
    if card is None or card.shape is None or quantization not in QUANTIZATIONS:
        return 0
    weights = estimated_weights(card.shape, quantization)
    return sum(weights.layers) + weights.embedding + weights.mmproj + (0 if weights.tied else weights.head)


def nf4_download(repository: str) -> int:
    """Estimated bytes of a known re-upload's files; 0 for any other repository."""
    original = RE_UPLOADS.get(repository)
    return weight_bytes(original.shape, "nf4") if original is not None and original.shape is not None else 0
