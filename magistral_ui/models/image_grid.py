"""Computes into how many tokens a Pixtral vision tower divides an image, from its size alone, as mistral-common does."""

from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ImageGrid:
    """How a model divides images. Each token stands for a square of pixels, and one more ends each row of them."""

    unit: int = 28
    """Pixels of one token's side."""
    longest: int = 1_540
    """Pixels of the longer side beyond which an image is scaled down."""
    fewest: int = 1
    """Tokens, those that end the rows aside, below which an image is scaled up."""
    most: int = 2**31
    """The same, beyond which it is scaled down further; no fewer than a row or column of the longest side has."""

    def of(self, width: int, height: int) -> Size:
        """Columns and rows of tokens for an image of this size."""
        width, height = self.enlarged(width, height)
        columns, rows = self._divided(width, height, self.longest)
        if columns * rows < self.fewest:
            return self._with_at_least(width, height)
        longest = self.longest
        while columns * rows > self.most:
            longest -= 1
            columns, rows = self._divided(width, height, longest)
        return columns, rows

    def pixels(self, width: int, height: int) -> Size:
        """The size to which an image of this size is scaled."""
        columns, rows = self.of(width, height)
        return columns * self.unit, rows * self.unit

    def tokens(self, width: int, height: int) -> int:
        """All tokens of an image of this size."""
        columns, rows = self.of(width, height)
        return (columns + 1) * rows

    def enlarged(self, width: int, height: int) -> Size:
        """transformers 5.23 fails on a single image of one image token, so such an image is enlarged until it has more."""
        if max(width, height) > self.unit:
            return width, height
        scale = 2 * self.unit / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _divided(self, width: int, height: int, longest: int) -> Size:
        ratio = max(width, height) / longest
        if ratio > 1:
            width, height = max(round(width / ratio), 1), max(round(height / ratio), 1)
        return (width - 1) // self.unit + 1, (height - 1) // self.unit + 1

    def _with_at_least(self, width: int, height: int) -> Size:
        """The grid of the image scaled up until it has `fewest` tokens."""
        side = max(width, height)
        while True:
            side += 1
            scale = side / max(width, height)
            wide, high = max(1, round(width * scale)), max(1, round(height * scale))
            columns, rows = (wide - 1) // self.unit + 1, (high - 1) // self.unit + 1
            if columns * rows >= self.fewest:
                return columns, rows


PIXTRAL = ImageGrid()
"""Of every vision tower of Mistral's family so far."""
