"""Finds the repository that a quantized re-upload was made from, by the re-upload's model card; it downloads nothing.

Re-uploads in Hugging Face's own format often lack Mistral's tokenizer file, which quantizing does not change.
"""

from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from magistral_ui.models.cards import find_card
from magistral_ui.models.folder import is_repository

TOKENIZER = "tekken.json"
BORROWED_FILES = (TOKENIZER, "SYSTEM_PROMPT.txt")
"""What a re-upload may take from its original."""
MAX_HOPS = 2
"""A quantized copy of a copy of the original; longer chains are not followed."""


def find_original(info: ModelInfo) -> ModelInfo | None:
    """The nearest repository with a tokenizer file that `info` is a quantized copy of, with its files; None if there is none.

    A repository that has a card here is taken at the card's commit.
    """
    seen = {info.id}
    for _ in range(MAX_HOPS):
        name = _base(info)
        if name is None or name in seen:
            return None
        seen.add(name)
        card = find_card(name)
        revision = card.revision if card and card.repository else None
        try:
            info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=10)
        except (RepositoryNotFoundError, RevisionNotFoundError):  # gone, or not for this token
            return None
        if any(file.rfilename == TOKENIZER for file in info.siblings or ()):
            return info
    return None


def _base(info: ModelInfo) -> str | None:
    """The one model that `info` is a copy of; one that was trained further or merged may have another tokenizer."""
    data = info.card_data
    if data is None or data.get("base_model_relation") not in (None, "quantized"):
        return None
    base = data.get("base_model")
    names = [base] if isinstance(base, str) else base
    is_one = isinstance(names, list) and len(names) == 1 and isinstance(names[0], str)
    return names[0] if is_one and is_repository(names[0]) else None
