"""llama.cpp gets the pixels that mistral-common and the local engine make of an image."""

import base64
import io
from functools import cache

import numpy as np
import pytest
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers.image import DATASET_MEAN, DATASET_STD
from PIL import Image

from magistral_ui.chat.images import ImageFile, read_image
from magistral_ui.engines.local.image_input import ImageProcessor
from tests.chat import heic
from tests.engines.gguf.prompted import Model, as_file


def sent_pixels(model: Model, image: ImageFile) -> np.ndarray:
    prompt = model.prompt_of("What is this?", image)
    assert isinstance(prompt.value, dict)
    file = Image.open(io.BytesIO(base64.b64decode(prompt.value["multimodal_data"][0])))
    assert file.mode == "RGB"
    return np.asarray(file, dtype=np.float32)


def unscaled(pixels: np.ndarray) -> np.ndarray:
    """An image as a model reads it, in 0 to 255."""
    return ((pixels.transpose(1, 2, 0) * DATASET_STD + DATASET_MEAN) * 255).clip(0, 255)


@pytest.mark.parametrize("size", [(60, 100), (640, 480), (1000, 37), (2100, 1400)], ids=str)
def test_the_pixels_are_those_of_mistral_common(full: Model, size: tuple[int, int]) -> None:
    noise = Image.effect_noise(size, 90).convert("RGB")
    theirs = full.tokenizer.tokenizer.instruct_tokenizer.image_encoder(ImageChunk(image=noise)).image
    assert np.abs(sent_pixels(full, as_file(noise)) - unscaled(theirs)).max() <= 0.51


@cache
def photos() -> dict[str, ImageFile]:
    noise = Image.effect_noise((90, 50), 90)
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = noise.convert("RGB")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    return {
        "HEIC": read_image(heic.PHOTO, "IMG_0001.HEIC"),
        "turned by EXIF": as_file(noise, "JPEG", exif=turned),
        "transparent": as_file(clear),
        "grey": as_file(noise),
        "CMYK": as_file(noise.convert("CMYK"), "JPEG"),
        "one pixel": as_file(Image.new("RGB", (1, 1), "teal")),
        "tiny": as_file(noise.resize((20, 9))),
        "of twelve megapixels": as_file(noise.resize((4000, 3000)), "JPEG"),
    }


@pytest.mark.parametrize("kind", photos())
def test_the_pixels_are_those_of_the_local_engine(full: Model, kind: str) -> None:
    photo = photos()[kind]
    local = ImageProcessor(full.tokenizer.tokenizer.instruct_tokenizer.image_encoder)
    read = local.prepare(photo, "ann").pixels
    assert read is not None
    assert np.abs(sent_pixels(full, photo) - unscaled(read)).max() <= 0.51
