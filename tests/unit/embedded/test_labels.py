"""The dense labels: every character, thing and colour in the token that shows it."""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vlmbench.embedded import diagrams, labels, pages, rows, scenes
from vlmbench.embedded.canvas import COLORS, SHAPES, Canvas, Glyph, Thing, remembered
from vlmbench.embedded.inheritance import numbers
from vlmbench.embedded.labels import ABSENT, ALPHABET, CLASSES, SHADES, SLOTS, LabelSight
from vlmbench.embedded.tower import Translator


def labelled(canvas: Canvas) -> torch.Tensor:
    """Its classes, [rows, columns, classes]."""
    classes, _ = labels.split(labels.of(canvas))
    return classes.view(canvas.height // 28, canvas.width // 28, -1)


def read(label: torch.Tensor) -> str:
    return "".join(ALPHABET[index] for index in label[:SLOTS])


def seen(label: torch.Tensor) -> tuple[str, str] | None:
    shape, color = label[SLOTS:].tolist()
    return (SHAPES[shape - 1], list(COLORS)[color - 1]) if shape else None


def test_characters_are_in_the_slot_of_their_place() -> None:
    canvas = Canvas(3 * 28, 2 * 28)
    canvas.glyphs = [
        *(Glyph("b", 12, 14), Glyph("a", 5, 14), Glyph("c", 27.9, 27.9)),
        *(Glyph("R", 28 + 19, 14), Glyph("5", 83, 29)),
        *(Glyph("x", 84, 14), Glyph("y", 10, 56), Glyph("z", -1, 5), Glyph("z", 5, -1)),
    ]
    found = labelled(canvas)
    # What is off the canvas has no cell.
    assert [[read(cell) for cell in row] for row in found] == [
        ["abc", "  R", "   "],
        ["   ", "   ", "  5"],
    ]
    assert found[..., SLOTS:].sum() == 0


@pytest.mark.parametrize("text", ["Invoice", "$12.50", "KB-0421", "What?", "12 MAR 1999"])
def test_written_text_is_read_again(text: str) -> None:
    canvas = Canvas(9 * 28, 3 * 28)
    canvas.text(28, 42, text, font="DejaVuSans", size=14)
    grid = labelled(canvas)
    assert "".join(read(label) for label in grid[1]).strip() == text
    assert grid[0].sum() == grid[2].sum() == 0
    for column in range(9):
        left = 28 * column + 3
        darkest, _ = canvas.image.crop((left, 28, left + 22, 56)).convert("L").getextrema()
        assert (darkest < 128) == bool(read(grid[1, column]).strip()), "ink is where labels say"


def test_a_thing_is_where_its_centre_is() -> None:
    canvas = Canvas(5 * 28, 5 * 28)
    canvas.thing(Thing("star", "pink", x=42, y=70, size=28))
    canvas.thing(Thing("moon", "black", x=110, y=113, size=40))
    grid = labelled(canvas)
    cells = {(r, c): seen(grid[r, c]) for r in range(5) for c in range(5) if seen(grid[r, c])}
    assert cells == {(2, 1): ("star", "pink"), (4, 3): ("moon", "black")}


def test_shades_are_the_mean_colours_of_the_patches() -> None:
    canvas = Canvas(2 * 28, 28, (255, 0, 255))
    canvas.pen.rectangle((28, 0, 41, 13), fill=(0, 255, 0))
    canvas.pen.rectangle((42, 14, 55, 20), fill=(0, 0, 0))
    _, shades = labels.split(labels.of(canvas))
    left, right = shades.view(2, 4, 3)
    assert left.tolist() == [[1, -1, 1]] * 4
    assert right[:3].tolist() == [[-1, 1, -1], [1, -1, 1], [1, -1, 1]]
    assert right[3].tolist() == pytest.approx([0, -1, 0], abs=0.01)


def test_every_drawing_can_be_labelled() -> None:
    for number in range(10):
        rng = rows.rng_of("test_tower", "train", number)
        page, scene = pages.draw(rng), scenes.draw(rng, 3)
        typed = ["".join(map(read, row)) for row in labelled(page.canvas)]
        assert [" ".join(line.split()) for line in typed if line.strip()] == page.lines
        found = [seen(label) for label in labelled(scene.canvas).flatten(0, 1)]
        drawn = [(thing.shape, thing.color) for thing in scene.things]
        assert sorted(filter(None, found)) == sorted(drawn)


def test_a_crop_shows_what_lies_in_it() -> None:
    page = pages.draw(rows.rng_of("test_crop", "train", 0))
    strip = page.canvas.crop(28, 56, 140, 56)
    assert (strip.width, strip.height) == strip.image.size == (140, 56)
    assert torch.equal(labelled(strip), labelled(page.canvas)[2:4, 1:6])
    assert strip.image.tobytes() == page.canvas.image.crop((28, 56, 168, 112)).tobytes()
    scene = scenes.draw(rows.rng_of("test_crop", "train", 1), 5)
    window = scene.canvas.crop(28, 28, 84, 84)
    assert torch.equal(labelled(window), labelled(scene.canvas)[1:4, 1:4])


def test_pictures_are_remembered_only_while_asked_to() -> None:
    canvas = Canvas(28, 28)
    with remembered() as outer:
        with remembered() as inner:
            png = canvas.png()
        other = Canvas(28, 28, (0, 0, 0)).png()
    Canvas(28, 28, (9, 9, 9)).png()
    assert inner == {png: [canvas]}
    assert list(outer) == [png, other]


def test_a_sight_of_labels_stands_for_a_tower() -> None:
    sight = LabelSight(16)
    label = torch.zeros(2, len(CLASSES) + SHADES)
    label[1, 0] = 3
    out = sight(label, grid_thw=torch.tensor([[1, 2, 4]])).pooler_output
    assert out.shape == (2, 16)
    step = sight.classes[0].weight[3] - sight.classes[0].weight[0]
    assert torch.allclose(out[1] - out[0], step, atol=1e-6)
    assert (sight.dtype, sight.spatial_merge_size) == (torch.float32, 2)


@pytest.mark.parametrize("kind", ["bars", "thermometers"])
def test_the_ends_of_bars_are_marked_in_their_colours(kind: str) -> None:
    for number in range(8):
        drawn = diagrams.draw(Random(number), kind).canvas
        for mark in drawn.things:
            below = drawn.image.getpixel((round(mark.x), round(mark.y) + 3))
            nearest = min(COLORS, key=lambda name: math.dist(COLORS[name], below))
            assert nearest == mark.color
            above = drawn.image.getpixel((round(mark.x), round(mark.y) - 3))
            assert math.dist(above, below) > 60, "it ends there"


def test_particles_are_counted_square_by_square() -> None:
    for number in range(8):
        diagram = diagrams.draw(Random(number), "matter")
        counts = [int(glyph.char) for glyph in diagram.canvas.glyphs]
        assert sum(counts) == {"solid": 32, "liquid": 24, "gas": 10}[diagram.reading]
        assert len({(g.x // 28, g.y // 28) for g in diagram.canvas.glyphs}) == len(counts)


def test_a_tower_begins_where_least_squares_put_it() -> None:
    """A map that is linear is found at once; what is left is for the steps."""
    torch.manual_seed(0)
    tower = SimpleNamespace(merger=SimpleNamespace(mlp=nn.ModuleList([nn.Linear(6, 4)])))
    wanted = nn.Linear(6, 4)

    class Sight(nn.Module):
        def forward(self, labels: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(pooler_output=wanted(labels))

    class Tower(nn.Module):
        merger = tower.merger

        def forward(self, pixels: torch.Tensor, grid_thw: object) -> None:
            self.merger.mlp[-1](pixels)

    seen = [torch.randn(40, 6) for _ in range(2)]
    translator = Translator(Tower(), Sight())  # type: ignore[arg-type]
    translator.begin({"pixel_values": x, "image_grid_thw": x, "labels": x} for x in seen)
    torch.testing.assert_close(tower.merger.mlp[-1].weight, wanted.weight)
    torch.testing.assert_close(tower.merger.mlp[-1].bias, wanted.bias)


def test_a_slot_without_a_place_for_a_character_is_told_from_a_space() -> None:
    """Where 28 pixels are four thirds of a token, four tokens hold nine characters."""
    canvas = Canvas(9 * 28, 28)
    canvas.text(0, 14, "ab cd efg hi", font="DejaVuSans", size=14)
    grid = labels.within(canvas, (0.0, 0.0, 252.0, 28.0), 12, 1).long()[:, :SLOTS]
    places = [index for index in grid.flatten().tolist() if index != ABSENT]
    assert "".join(ALPHABET[index] for index in places) == "ab cd efg hi".ljust(27)
    assert (grid == ABSENT).sum(1).tolist() == [1, 1, 0, 1] * 3
    assert not (labels.of(canvas)[:, :SLOTS] == ABSENT).any()


def test_no_place_is_said_otherwise_than_a_space() -> None:
    shown = torch.zeros(2, len(CLASSES) + SHADES)
    shown[1, 0] = ABSENT
    told = numbers(shown)
    assert told[0].sum() == len(CLASSES) and told[1].sum() == len(CLASSES) - 1
    assert told[1, : CLASSES[0]].sum() == 0
