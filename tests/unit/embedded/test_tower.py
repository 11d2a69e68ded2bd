"""The dense labels of the tower's lesson: every character and thing in the token that shows it."""

from __future__ import annotations

import pytest
import torch

from vlmbench.embedded import pages, rows, scenes
from vlmbench.embedded.canvas import COLORS, SHAPES, Canvas, Glyph, Thing
from vlmbench.embedded.tower import ALPHABET, SLOTS, labels


def read(label: torch.Tensor) -> str:
    return "".join(ALPHABET[index] for index in label[:SLOTS]).rstrip()


def seen(label: torch.Tensor) -> tuple[str, str] | None:
    shape, color = label[SLOTS:].tolist()
    return (SHAPES[shape - 1], list(COLORS)[color - 1]) if shape else None


def test_characters_are_in_their_cell_from_left_to_right() -> None:
    canvas = Canvas(3 * 28, 2 * 28)
    canvas.glyphs = [
        *(Glyph("b", 12, 14), Glyph("a", 5, 14), Glyph("c", 27.9, 27.9)),
        *(Glyph("R", 28, 14), Glyph("5", 83, 29)),
        *(Glyph(char, 30 + i, 40) for i, char in enumerate("12345")),
        *(Glyph("x", 84, 14), Glyph("y", 10, 56)),
    ]
    found = labels(canvas)
    assert found.shape == (6, SLOTS + 2)
    # Row by row; a fifth character has no slot, and what is off the canvas no cell.
    assert [read(label) for label in found] == ["abc", "R", "", "", "1234", "5"]
    assert found[:, SLOTS:].sum() == 0


@pytest.mark.parametrize("text", ["Invoice", "$12.50", "KB-0421", "What?"])
def test_written_text_is_read_again(text: str) -> None:
    canvas = Canvas(9 * 28, 3 * 28)
    canvas.text(6, 42, text, font="DejaVuSans", size=16)
    grid = labels(canvas).view(3, 9, -1)
    assert "".join(read(label) for label in grid[1]) == text
    assert grid[0].sum() == grid[2].sum() == 0
    for column in range(9):
        darkest, _ = (
            canvas.image.crop((28 * column, 28, 28 * column + 28, 56)).convert("L").getextrema()
        )
        assert (darkest < 128) == bool(read(grid[1, column])), "ink is where the labels say"


def test_a_thing_is_where_it_covers_a_token() -> None:
    canvas = Canvas(5 * 28, 5 * 28)
    canvas.thing(Thing("star", "pink", x=42, y=70, size=28))
    grid = labels(canvas).view(5, 5, -1)
    cells = [(r, c) for r in range(5) for c in range(5) if seen(grid[r, c])]
    assert cells == [(2, 1)]
    assert seen(grid[2, 1]) == ("star", "pink")
    canvas.thing(Thing("moon", "black", x=112, y=112, size=40))
    grid = labels(canvas).view(5, 5, -1)
    assert {seen(grid[r, c]) for r in (3, 4) for c in (3, 4)} == {("moon", "black")}


def test_every_drawing_can_be_labelled() -> None:
    for number in range(10):
        rng = rows.rng_of("test_tower", "train", number)
        page, scene = pages.draw(rng), scenes.draw(rng, 3)
        assert (labels(page.canvas)[:, 0] > 0).sum() >= len(page.lines)
        found = {seen(label) for label in labels(scene.canvas)} - {None}
        assert found == {(thing.shape, thing.color) for thing in scene.things}
