"""Every diagram's answer follows from what was drawn: read again from its glyphs and pixels."""

from __future__ import annotations

from random import Random

import pytest

from vlmbench.embedded import diagrams
from vlmbench.embedded.canvas import COLORS, Canvas
from vlmbench.embedded.diagrams import Diagram

DRAWN = 25


def words(canvas: Canvas) -> list[tuple[str, float]]:
    """(word, height) of every word on a canvas, top to bottom."""
    heights = sorted({glyph.y for glyph in canvas.glyphs})
    return [("".join(g.char for g in canvas.glyphs if g.y == y), y) for y in heights]


def pixels(canvas: Canvas, color: tuple[int, int, int], left: int = 0, right: int = 999) -> int:
    box = canvas.image.crop((left, 0, min(right, canvas.width), canvas.height))
    return sum(count for count, found in box.getcolors(99999) or [] if found == color)


def food_chain(d: Diagram) -> str:
    chain = [word for word, _ in words(d.canvas)]
    (named,) = (i for i, word in enumerate(chain) if f"the {word}" in d.question)
    return chain[named + (1 if d.question.startswith("Which animal eats") else -1)]


def magnets(d: Diagram) -> str:
    poles = [glyph.char for glyph in sorted(d.canvas.glyphs, key=lambda glyph: glyph.x)]
    return "repel" if poles[1] == poles[2] else "attract"


def punnett(d: Diagram) -> str:
    drawn = words(d.canvas)
    (top, *_), (hidden,) = drawn, [g for g in d.canvas.glyphs if g.char == "?"]
    beside = min(d.canvas.glyphs, key=lambda g: (abs(g.y - hidden.y), g.x)).char
    above = min(
        (g for g in d.canvas.glyphs if g.y == top[1]), key=lambda g: abs(g.x - hidden.x - 2)
    ).char
    return "".join(sorted(above + beside))


def thermometers(d: Diagram) -> str:
    red = (220, 40, 40)
    left = pixels(d.canvas, red, 0, 82) > pixels(d.canvas, red, 82)
    return "left" if left == ("hotter" in d.question) else "right"


def bars(d: Diagram) -> str:
    areas = {color: pixels(d.canvas, COLORS[color]) for color in d.choices}
    return (max if "tallest" in d.question else min)(areas, key=lambda color: areas[color])


def matter(d: Diagram) -> str:
    area = max(pixels(d.canvas, COLORS[color]) for color in ("blue", "red", "green", "purple"))
    return "gas" if area < 900 else "liquid" if area < 1900 else "solid"


def town(d: Diagram) -> str:
    drawn = words(d.canvas)
    return drawn[0][0] if "north" in d.question else drawn[-1][0]


AGAIN = {
    **{"food_chain": food_chain, "magnets": magnets, "punnett": punnett},
    **{"thermometers": thermometers, "bars": bars, "matter": matter, "map": town},
}


@pytest.mark.parametrize("kind", diagrams.MAKERS)
def test_diagrams_are_asked_about_truly(kind: str) -> None:
    answers = set()
    for seed in range(DRAWN):
        diagram = diagrams.draw(Random(seed), kind)
        assert diagram.kind == kind
        assert 2 <= len(set(diagram.choices)) == len(diagram.choices) <= 4
        assert diagram.choices[diagram.answer] == AGAIN[kind](diagram)
        answers.add(diagram.answer)
    assert answers == set(range(max(answers) + 1)), "no letter is favoured"
