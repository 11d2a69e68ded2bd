"""Paper, pens and fonts: what every drawn picture is made with, and the record of what was drawn.

Coordinates and sizes are pixels, the origin is the top left corner.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TypeVar

import matplotlib
from PIL import Image, ImageDraw, ImageFont

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralBol",
    "cmss10",
)
# A letter's height differs between families at one nominal size; these bring them close.
_SCALE = {"DejaVuSansMono": 0.95, "STIXGeneral": 1.12, "STIXGeneralBol": 1.12, "cmss10": 1.15}

COLORS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 220),
    "yellow": (240, 220, 30),
    "orange": (255, 140, 20),
    "purple": (130, 50, 180),
    "black": (25, 25, 25),
    "pink": (250, 150, 200),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "moon")

PITCH = 28 / 3
"""Pixels from one typed character to the next."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Glyph:
    """One visible character and its centre."""

    char: str
    x: float
    y: float


@dataclass(frozen=True)
class Thing:
    """One coloured shape, its centre and the width of its bounding square."""

    shape: str
    color: str
    x: float
    y: float
    size: float

    @property
    def name(self) -> str:
        """As a listing says it: `red star`."""
        return f"{self.color} {self.shape}"

    @property
    def phrase(self) -> str:
        """As a sentence says it: `a red star`."""
        return with_article(self.name)


Mark = TypeVar("Mark", Glyph, Thing)


@dataclass
class Canvas:
    """A picture in the making, with a record of every character and thing on it."""

    width: int
    height: int
    background: Color = (255, 255, 255)
    glyphs: list[Glyph] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", (self.width, self.height), self.background)
        self.pen = ImageDraw.Draw(self.image)

    def text(
        self, x: float, y: float, text: str, *, font: str, size: int, ink: Color = (20, 20, 20)
    ) -> float:
        """Type `text` from about x on, with its middle at y; the width typed.

        Typed at a fixed pitch in any font, as on forms: three characters to a visual token.
        """
        face = load_font(font, size)
        left = round(x / PITCH) * PITCH
        for i, char in enumerate(text):
            middle = left + (i + 0.5) * PITCH
            self.pen.text((middle, y), char, font=face, fill=ink, anchor="mm")
            if char != " ":
                self.glyphs.append(Glyph(char, middle, y))
        return len(text) * PITCH

    def thing(self, thing: Thing) -> None:
        """Draw a coloured shape."""
        fill = COLORS[thing.color]
        x, y, r = thing.x, thing.y, thing.size / 2
        box = (x - r, y - r, x + r, y + r)
        if thing.shape == "circle":
            self.pen.ellipse(box, fill=fill)
        elif thing.shape == "ring":
            self.pen.ellipse(box, outline=fill, width=max(3, round(r / 2.6)))
        elif thing.shape == "moon":
            self.pen.pieslice(box, 90, 270, fill=fill)
        else:
            self.pen.polygon([(x + r * dx, y + r * dy) for dx, dy in _OUTLINES[thing.shape]], fill)
        self.things.append(thing)

    def mark(self, thing: Thing) -> None:
        """Record what was drawn otherwise as the shape that it comes nearest to."""
        self.things.append(thing)

    def count(self, spots: Iterable[tuple[float, float]]) -> None:
        """Record how many spots there are in each square of 28 pixels, as a digit in it."""
        squares = Counter((int(x // 28), int(y // 28)) for x, y in spots)
        for (column, row), number in squares.items():
            self.glyphs.append(Glyph(str(min(9, number)), 28 * column + 4, 28 * row + 14))

    def crop(self, left: int, top: int, width: int, height: int) -> Canvas:
        """A part of the picture, with what has its centre there."""
        part = Canvas(width, height)
        part.image = self.image.crop((left, top, left + width, top + height))
        part.pen = ImageDraw.Draw(part.image)
        part.glyphs = _inside(self.glyphs, left, top, part)
        part.things = _inside(self.things, left, top, part)
        return part

    def png(self) -> bytes:
        """The picture as a PNG of at most 32 colours; equal drawings give equal bytes."""
        out = io.BytesIO()
        few = self.image.quantize(32, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(out, "PNG", compress_level=6)
        remember(out.getvalue(), [self])
        return out.getvalue()


def _inside(marks: list[Mark], left: int, top: int, part: Canvas) -> list[Mark]:
    moved = [replace(mark, x=mark.x - left, y=mark.y - top) for mark in marks]
    return [m for m in moved if 0 <= m.x < part.width and 0 <= m.y < part.height]


Memory = dict[bytes, list[Canvas]]
"""Pictures and films, as files, with what was drawn for every frame."""
_memories: list[Memory] = []


def remember(data: bytes, frames: list[Canvas]) -> None:
    """Keep what a file shows wherever that is asked for."""
    for memory in _memories:
        memory[data] = frames


@contextmanager
def remembered() -> Iterator[Memory]:
    """While open, every PNG and film made is kept with what was drawn."""
    memory: Memory = {}
    _memories.append(memory)
    try:
        yield memory
    finally:
        _memories.pop()


def _star() -> list[tuple[float, float]]:
    radii = (1.0, 0.42) * 5
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


_T = 0.34  # half the width of a cross's arm
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)],
    "diamond": [(0.0, -1.0), (0.8, 0.0), (0.0, 1.0), (-0.8, 0.0)],
    "star": _star(),
    "cross": [
        *((-_T, -1.0), (_T, -1.0), (_T, -_T), (1.0, -_T), (1.0, _T), (_T, _T)),
        *((_T, 1.0), (-_T, 1.0), (-_T, _T), (-1.0, _T), (-1.0, -_T), (-_T, -_T)),
    ],
}


@lru_cache(maxsize=256)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that matplotlib ships, at a size in pixels."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    scaled = round(size * _SCALE.get(name, 1.0))
    return ImageFont.truetype(
        str(folder / f"{name}.ttf"), scaled, layout_engine=ImageFont.Layout.BASIC
    )


def with_article(words: str) -> str:
    """`words` after the article they take."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def shade(rng: Random, low: int, high: int) -> Color:
    """A random near-grey between two levels of 0-255."""
    level = rng.randint(low, high)
    return (level, level, level)
