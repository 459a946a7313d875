"""Draw the pictures the demo model learns from: one simple shape, one plain colour, or too much to name."""

import colorsys
import math
import random
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

SHAPES = ("circle", "square", "triangle", "rectangle", "star")
FILLED = "all"  # a picture wholly of one colour
COMPLEX = "complex"  # a picture the model should not try to name
KINDS = (*SHAPES, FILLED, COMPLEX)

# Hue in degrees, saturation and value in percent.
_RANGES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "red": ((-10, 9), (72, 100), (55, 100)),
    "orange": ((22, 38), (78, 100), (85, 100)),
    "yellow": ((49, 62), (60, 100), (85, 100)),
    "green": ((85, 160), (40, 100), (35, 100)),
    "blue": ((203, 248), (50, 100), (45, 100)),
    "purple": ((265, 300), (38, 100), (35, 90)),
    "pink": ((318, 350), (25, 65), (90, 100)),
    "brown": ((14, 33), (50, 92), (28, 58)),
    "black": ((0, 360), (0, 30), (0, 12)),
    "white": ((0, 360), (0, 3), (95, 100)),
    "grey": ((0, 360), (0, 5), (32, 76)),
}
# Values that programs and people use by name.
_NAMED: dict[str, tuple[str, ...]] = {
    "red": ("#ff0000", "#dc143c", "#b22222", "#8b0000", "#e53935", "#f44336", "#d00000", "#ff3030"),
    "orange": ("#ffa500", "#ff8c00", "#ff7f00", "#fb8c00", "#ff9800", "#f57c00"),
    "yellow": ("#ffff00", "#ffd700", "#ffeb3b", "#fdd835", "#ffff66", "#ffee00"),
    "green": ("#008000", "#00ff00", "#228b22", "#32cd32", "#4caf50", "#006400", "#2ecc71", "#43a047"),
    "blue": ("#0000ff", "#000080", "#1e90ff", "#4169e1", "#2196f3", "#00008b", "#87ceeb", "#3498db"),
    "purple": ("#800080", "#9400d3", "#8a2be2", "#9c27b0", "#663399", "#7b1fa2", "#9b59b6"),
    "pink": ("#ffc0cb", "#ff69b4", "#ffb6c1", "#f48fb1", "#ff80ab", "#ff8fc8"),
    "brown": ("#8b4513", "#a0522d", "#795548", "#654321", "#5d4037", "#6f4e37", "#964b00"),
    "black": ("#000000", "#000000", "#111111", "#0a0a0a"),
    "white": ("#ffffff", "#ffffff", "#fafafa"),
    "grey": ("#808080", "#a9a9a9", "#696969", "#9e9e9e", "#757575", "#7f7f7f", "#c0c0c0"),
}
COLOURS = tuple(_RANGES)
_MIN_CONTRAST = 95.0  # between the figure and its background, as a distance in RGB


@dataclass(frozen=True)
class Drawing:
    """A picture and what is in it: `mask` (height, width) is 255 where the figure is, `corners` are its (x, y)."""

    pixels: Pixels
    kind: str
    colour: str
    mask: Pixels
    corners: tuple[tuple[float, float], ...] = ()

    @property
    def image(self) -> Image.Image:
        """The picture as PIL has it."""
        return Image.fromarray(self.pixels)


def shade(colour: str, rng: random.Random) -> Colour:
    """Return one of the many values of a named colour."""
    if rng.random() < 0.4:
        value = rng.choice(_NAMED[colour])
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    hue, saturation, brightness = (rng.uniform(*bounds) for bounds in _RANGES[colour])
    red, green, blue = colorsys.hsv_to_rgb((hue % 360) / 360, saturation / 100, brightness / 100)
    return round(red * 255), round(green * 255), round(blue * 255)


def image(rng: random.Random, easy: float = 0.0) -> Drawing:
    """Draw a picture of any kind, as they are mixed in training; `easy` is the share of easy figures."""
    draw = rng.random()
    if draw < 0.10:
        return plain(rng)
    if draw < 0.20:
        return scene(rng)
    return figure(rng, easy=rng.random() < easy)


def plain(rng: random.Random) -> Drawing:
    """Draw a picture wholly of one colour."""
    width, height = _size(rng)
    colour = rng.choice(COLOURS)
    canvas = _canvas(width, height, shade(colour, rng))
    mask = np.full((height, width), 255, np.uint8)
    return Drawing(_wear(canvas, rng) if rng.random() < 0.3 else canvas, FILLED, colour, mask)


def figure(rng: random.Random, easy: bool = False) -> Drawing:
    """Draw one simple shape of one colour on a background that it stands out from; an easy one is large and clean."""
    width, height = _size(rng)
    kind, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    value = shade(colour, rng)
    canvas = _background(width, height, rng)
    while _contrast(canvas, value) < _MIN_CONTRAST:
        canvas, value = _background(width, height, rng), shade(colour, rng)
    shortest = min(width, height)
    smallest = max(0.2, 14 * max(width, height) / 112 / shortest)  # the model sees at most 112 pixels
    radius = shortest * rng.uniform(0.32 if easy else min(smallest, 0.42), 0.5)
    margin = min(radius, shortest / 2 - 1)
    centre = (rng.uniform(margin, width - margin), rng.uniform(margin, height - margin))
    if rng.random() < 0.3:
        centre = (width / 2, height / 2)
    points = _outline(kind, centre, radius, rng)
    line = cv2.LINE_AA if rng.random() < 0.7 else cv2.LINE_8
    mask = np.zeros((height, width), np.uint8)
    if easy or rng.random() < 0.9:
        cv2.fillPoly(mask, [points], 255, line, 4)
    else:
        cv2.polylines(mask, [points], True, 255, max(2, round(radius * rng.uniform(0.12, 0.35))), line, 4)
    opacity = mask[..., None].astype(np.float32) / 255
    blend = canvas * (1 - opacity) + np.array(value, np.float32) * opacity
    canvas = blend.round().astype(np.uint8)
    if not easy and rng.random() < 0.1:
        edge = rng.choice(((0, 0, 0), (0, 0, 0), (60, 60, 60), (255, 255, 255)))
        cv2.polylines(canvas, [points], True, edge, max(1, round(radius * 0.04)), line, 4)
    corners = () if kind == "circle" else tuple((float(x) / 16, float(y) / 16) for x, y in points)
    return Drawing(canvas if easy else _wear(canvas, rng), kind, colour, mask, corners)


def shrunk(image: Drawing, longest: int) -> Drawing:
    """Return a picture, but no larger than so many pixels."""
    height, width = image.mask.shape
    ratio = min(1.0, longest / max(height, width))
    size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pixels, mask = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (image.pixels, image.mask))
    corners = tuple((x * ratio, y * ratio) for x, y in image.corners)
    return replace(image, pixels=np.asarray(pixels, np.uint8), mask=np.asarray(mask, np.uint8), corners=corners)


def scene(rng: random.Random) -> Drawing:
    """Draw something that is not one simple shape."""
    width, height = _size(rng)
    makers = (_crowd, _crowd, _static, _clouds, _stripes, _writing, _landscape)
    canvas = rng.choice(makers)(width, height, rng)
    return Drawing(_wear(canvas, rng), COMPLEX, "", np.zeros((height, width), np.uint8))


def _size(rng: random.Random) -> tuple[int, int]:
    """Return a width and a height in pixels, mostly near what the model sees (112), few large."""
    longest = rng.choice((rng.randint(56, 112), rng.randint(100, 256), rng.randint(160, 420)))
    if rng.random() < 0.45:
        return longest, longest
    shortest = max(round(longest * rng.uniform(0.45, 1)), 56)
    return (longest, shortest) if rng.random() < 0.6 else (shortest, longest)


def _canvas(width: int, height: int, value: Colour) -> Pixels:
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = value
    return canvas


def _any_colour(rng: random.Random) -> Colour:
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def _background(width: int, height: int, rng: random.Random) -> Pixels:
    draw = rng.random()
    if draw < 0.38:
        return _canvas(width, height, rng.choice(((255, 255, 255), (255, 255, 255), (245, 245, 245))))
    if draw < 0.46:
        return _canvas(width, height, (0, 0, 0))
    if draw < 0.64:
        return _canvas(width, height, shade(rng.choice(COLOURS), rng))
    if draw < 0.84:
        return _canvas(width, height, _any_colour(rng))
    base = np.array(_any_colour(rng), np.float32)
    if draw < 0.92:
        end = np.clip(base + np.array([rng.uniform(-70, 70) for _ in range(3)]), 0, 255)
        ramp = np.linspace(0, 1, width)[None, :, None] * rng.random()
        ramp = ramp + np.linspace(0, 1, height)[:, None, None] * (1 - ramp.max())
        mixed: Pixels = (base * (1 - ramp) + end * ramp).astype(np.uint8)
        return mixed
    coarse = np.random.default_rng(rng.getrandbits(32)).normal(0, 22, (rng.randint(3, 12), rng.randint(3, 12), 3))
    smooth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    rough: Pixels = np.clip(base + smooth, 0, 255).astype(np.uint8)
    return rough


def _contrast(canvas: Pixels, value: Colour) -> float:
    sample = canvas[:: max(1, canvas.shape[0] // 6), :: max(1, canvas.shape[1] // 6)].astype(np.float32)
    return float(np.linalg.norm(sample - np.array(value, np.float32), axis=-1).min())


def _turn(rng: random.Random) -> float:
    """Return a rotation in radians: often none, else any."""
    return 0.0 if rng.random() < 0.5 else rng.uniform(0, 2 * math.pi)


def _outline(kind: str, centre: tuple[float, float], radius: float, rng: random.Random) -> NDArray[np.int32]:
    """Return the corners of a shape inside a circle, in sixteenths of a pixel."""
    turn = _turn(rng)
    if kind == "circle":
        polar = [(2 * math.pi * i / 72, 1.0) for i in range(72)]
    elif kind == "square":
        polar = [(math.pi / 4 + math.pi / 2 * i, 1.0) for i in range(4)]
    elif kind == "rectangle":
        half = math.atan(1 / rng.uniform(2.0, 3.5))  # shrinking may stretch a square by a third
        tall = math.pi / 2 if rng.random() < 0.4 else 0.0
        polar = [(tall + a, 1.0) for a in (half, math.pi - half, math.pi + half, 2 * math.pi - half)]
    elif kind == "triangle":
        lean = rng.uniform(0.75, 1.3) if rng.random() < 0.5 else 1.0
        right = rng.random() < 0.15
        angles = (0.0, math.pi / 2 * lean, math.pi) if right else (0.0, 2.1 * lean, 2 * math.pi - 2.1 * lean)
        polar = [(angle - math.pi / 2, 1.0) for angle in angles]
    else:
        inner, spikes = rng.uniform(0.36, 0.5), 5 if rng.random() < 0.85 else 6
        polar = [(math.pi * i / spikes - math.pi / 2, inner if i % 2 else 1.0) for i in range(2 * spikes)]
    x, y = centre
    corners = [(x + radius * r * math.cos(angle + turn), y + radius * r * math.sin(angle + turn)) for angle, r in polar]
    sixteenths: NDArray[np.int32] = (np.array(corners) * 16).round().astype(np.int32)
    return sixteenths


def _wear(canvas: Pixels, rng: random.Random) -> Pixels:
    """Add the noise, blur and JPEG artefacts that pictures gather."""
    if rng.random() < 0.2:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(3, 22), canvas.shape)
        canvas = np.clip(canvas + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.1:
        canvas = cv2.GaussianBlur(canvas, (5, 5), rng.uniform(0.5, 2)).astype(np.uint8)
    if rng.random() < 0.15:
        _, data = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, rng.randint(30, 92)])
        canvas = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return np.ascontiguousarray(canvas)


def _crowd(width: int, height: int, rng: random.Random) -> Pixels:
    """Several shapes of several colours."""
    canvas = _background(width, height, rng)
    for _ in range(rng.randint(3, 10)):
        value, kind = shade(rng.choice(COLOURS), rng), rng.choice(SHAPES)
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        points = _outline(kind, centre, min(width, height) * rng.uniform(0.1, 0.28), rng)
        cv2.fillPoly(canvas, [points], value, cv2.LINE_AA, 4)
    return canvas


def _static(width: int, height: int, rng: random.Random) -> Pixels:
    """Coloured noise, fine or coarse."""
    grain = rng.choice((1, 2, 4, 8, 16))
    seed = np.random.default_rng(rng.getrandbits(32))
    coarse = seed.integers(0, 256, (height // grain + 1, width // grain + 1, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _clouds(width: int, height: int, rng: random.Random) -> Pixels:
    """Smooth blobs of many colours, as in a photo out of focus."""
    seed = np.random.default_rng(rng.getrandbits(32))
    coarse = seed.integers(0, 256, (rng.randint(3, 9), rng.randint(3, 9), 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _stripes(width: int, height: int, rng: random.Random) -> Pixels:
    """Stripes or a chequerboard of two colours."""
    step, checks = rng.randint(8, max(9, min(width, height) // 4)), rng.random() < 0.5
    rows, columns = np.arange(height)[:, None] // step, np.arange(width)[None, :] // step
    parity = (rows + columns if checks else rows + 0 * columns) % 2
    first, second = rng.sample(COLOURS, 2)
    pair = np.array([shade(first, rng), shade(second, rng)], np.uint8)
    woven: Pixels = pair[parity]
    return woven


def _writing(width: int, height: int, rng: random.Random) -> Pixels:
    """A page of text or a screenshot."""
    canvas = _canvas(width, height, rng.choice(((255, 255, 255), (240, 240, 240), (20, 20, 30))))
    ink = (0, 0, 0) if canvas[0, 0, 0] > 128 else (230, 230, 230)
    size = max(height / 400, 0.3) * rng.uniform(0.8, 1.6)
    for row in range(rng.randint(3, 9)):
        text = "".join(rng.choice("abcdefghij klmnopqrst uvwxyz 0123") for _ in range(rng.randint(6, 30)))
        cv2.putText(canvas, text, (6, round((row + 1) * 32 * size)), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1)
    return canvas


def _landscape(width: int, height: int, rng: random.Random) -> Pixels:
    """Sky, ground, a sun and some houses or trees."""
    canvas = _canvas(width, height, shade("blue", rng))
    horizon = round(height * rng.uniform(0.4, 0.7))
    canvas[horizon:] = shade(rng.choice(("green", "brown", "grey")), rng)
    for kind, colour in (("circle", "yellow"), ("triangle", "red"), ("square", "brown"), ("triangle", "green")):
        centre = (rng.uniform(0, width), horizon + rng.uniform(-0.3, 0.2) * height)
        points = _outline(kind, centre, min(width, height) * rng.uniform(0.1, 0.3), rng)
        cv2.fillPoly(canvas, [points], shade(colour, rng), cv2.LINE_AA, 4)
    return canvas
