"""The grid of an image's tokens is mistral-common's, and keeps within a server's bounds."""

import random
from functools import cache

import pytest
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs

from magistral_ui.models.image_grid import PIXTRAL, ImageGrid


class Sized:
    """What the encoder needs of an image to count its tokens."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)


def encoder(patch: int, longest: int, merge: int) -> ImageEncoder:
    return ImageEncoder(ImageConfig(patch, longest, merge), SpecialImageIDs(10, 12, 13))


@cache
def sizes() -> list[tuple[int, int]]:
    draw = random.Random(5)
    edges = [1, 2, 27, 28, 29, 55, 56, 57, 111, 112, 113, 1539, 1540, 1541, 3000, 12_000]
    some = [(draw.randint(1, 6000), draw.randint(1, 6000)) for _ in range(1000)]
    long = [(draw.randint(1, 40), draw.randint(1, 20_000)) for _ in range(200)]
    return [(a, b) for a in edges for b in edges] + some + long + [(b, a) for a, b in long]


@pytest.mark.parametrize(("patch", "longest", "merge"), [(14, 1540, 2), (14, 112, 2), (16, 1024, 1), (14, 700, 2)])
def test_the_grid_is_that_of_mistral_common(patch: int, longest: int, merge: int) -> None:
    theirs, ours = encoder(patch, longest, merge), ImageGrid(patch * merge, longest)
    for size in sizes():
        if max(size) > ours.unit:  # smaller ones are enlarged first
            assert ours.of(*size) == theirs._image_to_num_tokens(Sized(*size)), size  # type: ignore[arg-type]
            assert ours.enlarged(*size) == size
        else:
            assert ours.of(*size) == theirs._image_to_num_tokens(Sized(*ours.enlarged(*size))), size  # type: ignore[arg-type]
            assert max(ours.enlarged(*size)) == 2 * ours.unit


def test_the_default_is_what_mistral_publishes() -> None:
    assert (PIXTRAL.unit, PIXTRAL.longest) == (28, 1540)
    assert PIXTRAL.tokens(1540, 1540) == 56 * 55
    assert PIXTRAL.pixels(640, 480) == (644, 504)


@pytest.mark.parametrize(("fewest", "most"), [(8, 1024), (1, 256), (16, 3025), (8, 60)])
def test_a_grid_keeps_within_the_bounds(fewest: int, most: int) -> None:
    bounded = ImageGrid(fewest=fewest, most=most)
    for width, height in sizes():
        columns, rows = bounded.of(width, height)
        assert fewest <= columns * rows <= most, (width, height)
        free = PIXTRAL.of(width, height)
        if fewest <= free[0] * free[1] <= most:
            assert (columns, rows) == free
