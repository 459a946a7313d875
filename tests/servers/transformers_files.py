"""Makes the demo model's folder readable for `transformers serve`: run by the Python of its own environment, with the folder.

It needs the tokenizer and the picture processor as files of transformers' own kinds, and a chat template, which the Hub's
Mistral repositories do not have.
"""

import sys
from pathlib import Path

from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template
from transformers import PixtralProcessor
from transformers.integrations.mistral import convert_tekken_tokenizer
from transformers.models.pixtral import PixtralImageProcessor


def main(folder: Path) -> None:
    """Write the processor's files beside tekken.json."""
    tekken = folder / "tekken.json"
    tokenizer = convert_tekken_tokenizer(str(tekken))
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<s>", "</s>", "<pad>"
    images = PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 28, "width": 28})
    processor = PixtralProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        spatial_merge_size=2,
        chat_template=str(convert_tokenizer_to_chat_template(str(tekken))),
    )
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
