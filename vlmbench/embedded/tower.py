"""First lesson: the vision tower alone, with the dense labels that drawing gives for free.

For every visual token (28x28 pixels): the characters in its cell, left to right in four slots, and
the shape and colour of the thing that covers it. A tower and a decoder trained together from
scratch on questions alone learn nothing in the time this takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded import diagrams, pages, rows, scenes
from vlmbench.embedded.blank import SIDE
from vlmbench.embedded.canvas import COLORS, SHAPES, Canvas
from vlmbench.prompting import decode_picture

ALPHABET = " ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.,:;$?#&/()'"
SLOTS = 4
BATCH = 32


def labels(canvas: Canvas) -> Tensor:
    """What each visual token shows: [tokens, SLOTS characters + shape + colour], 0 for nothing."""
    across, down = canvas.width // SIDE, canvas.height // SIDE
    grid = torch.zeros(down, across, SLOTS + 2, dtype=torch.long)
    filled: dict[tuple[int, int], int] = {}
    for glyph in sorted(canvas.glyphs, key=lambda glyph: glyph.x):
        cell = (int(glyph.y // SIDE), int(glyph.x // SIDE))
        slot = filled.get(cell, 0)
        if cell[0] < down and cell[1] < across and slot < SLOTS:
            grid[cell[0], cell[1], slot] = ALPHABET.index(glyph.char)
            filled[cell] = slot + 1
    for row in range(down):
        for column in range(across):
            x, y = (column + 0.5) * SIDE, (row + 0.5) * SIDE
            for thing in canvas.things:
                reach = thing.size / 2 + 6
                if abs(thing.x - x) < reach and abs(thing.y - y) < reach:
                    grid[row, column, SLOTS] = 1 + SHAPES.index(thing.shape)
                    grid[row, column, SLOTS + 1] = 1 + list(COLORS).index(thing.color)
    return grid.flatten(0, 1)


class Labeller(nn.Module):
    """A vision tower with one linear read-out per label, thrown away after the lesson."""

    def __init__(self, tower: nn.Module, width: int) -> None:
        super().__init__()
        self.tower = tower
        sizes = [len(ALPHABET)] * SLOTS + [1 + len(SHAPES), 1 + len(COLORS)]
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, pixel_values: Tensor, grid: Tensor) -> list[Tensor]:
        """Logits of every label: `SLOTS + 2` tensors [tokens, classes]."""
        features = self.tower(pixel_values, grid_thw=grid).pooler_output
        return [head(features) for head in self.heads]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross entropy over the labels."""
        logits = self(batch["pixel_values"], batch["image_grid_thw"])
        losses = [
            nn.functional.cross_entropy(logit, batch["labels"][:, i])
            for i, logit in enumerate(logits)
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def accuracy(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Share of the characters, and of the shapes and colours, that are named right."""
        logits = self(batch["pixel_values"], batch["image_grid_thw"])
        guess = torch.stack([logit.argmax(-1) for logit in logits], dim=1)
        right, there = guess == batch["labels"], batch["labels"] > 0
        parts = {"characters": slice(0, SLOTS), "things": slice(SLOTS, SLOTS + 2)}
        return {n: float(right[:, s][there[:, s]].float().mean()) for n, s in parts.items()}


def batch_maker(processor: Any, split: str = "train") -> Callable[[int], dict[str, Tensor]]:
    """Batches by step number: pages, scenes and diagrams with the labels of their tokens."""

    def batch_at(step: int) -> dict[str, Tensor]:
        rng = rows.rng_of("lesson_tower", split, step)
        drawn = [pages.draw(rng).canvas for _ in range(BATCH // 2)]
        drawn += [scenes.draw(rng, rng.randint(2, 5)).canvas for _ in range(BATCH // 4)]
        drawn += [diagrams.draw(rng).canvas for _ in range(BATCH // 4)]
        pictures = [decode_picture(canvas.png()) for canvas in drawn]
        made = dict(processor.image_processor(images=pictures, return_tensors="pt"))
        return {**made, "labels": torch.cat([labels(canvas) for canvas in drawn])}

    return batch_at
