"""What each visual token of a drawn picture shows, which drawing records for free.

A visual token covers 28x28 pixels. Its label: the characters in its three slots, the shape and the
colour of the thing whose centre it holds, and the mean colours of its four patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.embedded import SIDE
from vlmbench.embedded.canvas import COLORS, SHAPES, Canvas, Mark
from vlmbench.prompting import IGNORED

ALPHABET = " ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.,:;$?#&/()'"
SLOTS = 3
CLASSES = (len(ALPHABET),) * SLOTS + (1 + len(SHAPES), 1 + len(COLORS))
"""Number of classes of each categorical part of a label; class 0 is nothing."""
ABSENT = -1
"""In place of a character's class: the slot has no place for one, where tokens are narrower."""
SHADES = 12
"""Red, green and blue, -1 to 1, of the four patches."""


PITCH = SIDE / SLOTS
"""Pixels from one character to the next."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in its pixels; it may reach beyond."""


def of(canvas: Canvas) -> Tensor:
    """Labels [tokens, len(CLASSES) + SHADES], row by row; classes come first, as whole numbers."""
    across, down = canvas.width // SIDE, canvas.height // SIDE
    classes = within(canvas, (0, 0, SIDE * across, SIDE * down), across, down)
    patches = canvas.image.resize((2 * across, 2 * down), Image.Resampling.BOX)
    shades = torch.from_numpy(np.asarray(patches, dtype=np.float32)) / 127.5 - 1
    shades = shades.view(down, 2, across, 2, 3).transpose(1, 2).reshape(-1, SHADES)
    return torch.cat([classes, shades], dim=1)


def of_all(canvases: Iterable[Canvas], film: bool = False) -> Tensor:
    """Labels of several pictures, one after another."""
    if film:
        raise ValueError("Qwen2-VL's tokens show two frames each: a film has no labels of them")
    return torch.cat([of(canvas) for canvas in canvases])


def within(canvas: Canvas, box: Box, across: int, down: int) -> Tensor:
    """The classes [down * across, len(CLASSES)] of a part of a picture, cut into so many tokens."""
    left, top, right, bottom = box
    grid = torch.zeros(down, across, len(CLASSES))
    grid[:, :, :SLOTS] = ABSENT

    def slot(share: float) -> int:
        return int(share * SLOTS + 1e-6)

    def inside(marks: Iterable[Mark]) -> Iterator[tuple[Mark, int, int, float]]:
        """Each mark that is shown, its row and column, and how far it stands in its token."""
        for mark in marks:
            x = (mark.x - left) / (right - left) * across
            y = (mark.y - top) / (bottom - top) * down
            if 0 <= x < across and 0 <= y < down:
                yield mark, int(y), int(x), x % 1

    for place in range(math.floor(left / PITCH), math.ceil(right / PITCH)):
        x = ((place + 0.5) * PITCH - left) / (right - left) * across
        if 0 <= x < across:
            grid[:, int(x), slot(x % 1)] = 0
    for glyph, row, column, share in inside(canvas.glyphs):
        grid[row, column, slot(share)] = ALPHABET.index(glyph.char)
    for thing, row, column, _ in inside(canvas.things):
        grid[row, column, SLOTS] = 1 + SHAPES.index(thing.shape)
        grid[row, column, SLOTS + 1] = 1 + list(COLORS).index(thing.color)
    return grid.flatten(0, 1)


def split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes [tokens, len(CLASSES)] as integers, and the shades [tokens, SHADES]."""
    return labels[:, : len(CLASSES)].long(), labels[:, len(CLASSES) :]


class ReadOut(nn.Module):
    """A tower with one linear read-out per label, thrown away after its lesson."""

    def __init__(self, tower: nn.Module, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in CLASSES)
        self.shades = nn.Linear(width, SHADES)

    def misnamed(self, features: Tensor, classes: Tensor, shades: Tensor) -> Tensor:
        """Cross entropy over the classes that are known, and the squared error of the shades.

        `features` [tokens, width], `classes` [tokens, len(CLASSES)], `shades` [tokens, SHADES].
        """
        classes = classes.where(classes != ABSENT, 0)
        losses = [
            nn.functional.cross_entropy(head(features), classes[:, i], ignore_index=IGNORED)
            for i, head in enumerate(self.heads)
        ]
        return torch.stack([*losses, nn.functional.mse_loss(self.shades(features), shades)]).sum()

    def named_right(self, features: Tensor, classes: Tensor) -> dict[str, float]:
        """Share of the characters, and of the shapes and colours, that are named right."""
        guess = torch.stack([head(features).argmax(-1) for head in self.heads], dim=1)
        right, there = guess == classes, classes > 0
        parts = {"characters": slice(0, SLOTS), "things": slice(SLOTS, SLOTS + 2)}
        return {n: float(right[:, s][there[:, s]].float().mean()) for n, s in parts.items()}


class LabelSight(nn.Module):
    """Stands where the vision tower stands, and sees labels in place of pixels.

    A decoder learns to read from these in a fraction of the time that it takes beside a tower
    that is still learning to see.
    """

    dtype = torch.float32
    spatial_merge_size = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        tables = [nn.Embedding(size, width) for size in CLASSES]
        self.classes = nn.ModuleList(tables)
        self.shades = nn.Linear(SHADES, width)
        for table in tables:
            nn.init.normal_(table.weight, std=0.05)
        # Small, else white paper drowns what is written on it.
        nn.init.normal_(self.shades.weight, std=0.01)

    def forward(self, labels: Tensor, grid_thw: Tensor | None = None, **unused: Any) -> Any:
        """As the tower's: `pooler_output` is [tokens, width]."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        classes, shades = split(labels)
        seen = self.shades(shades)
        for i, table in enumerate(self.classes):
            seen = seen + table(classes[:, i])
        return BaseModelOutputWithPooling(pooler_output=seen)
