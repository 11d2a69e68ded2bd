"""A CLIP tower's lesson: to name what every patch of every view of a picture shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded import labels, rows
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.labels import CLASSES, SLOTS, Box
from vlmbench.embedded.tower import BATCH, drawn
from vlmbench.pictures import decode_picture
from vlmbench.prompting import IGNORED

SMALL = 0.95
"""Characters that are shown smaller than this share of their size are not asked for."""


def boxes(pinpoints: list[list[int]], view: int, width: int, height: int) -> list[Box]:
    """Which part of a picture each of its views shows (LLaVA-NeXT): the whole, then its tiles."""
    from transformers.image_processing_utils import select_best_resolution

    down, across = select_best_resolution((height, width), pinpoints)
    scale = min(down / height, across / width)
    shown = min(down, math.ceil(height * scale)), min(across, math.ceil(width * scale))
    top, left = ((down - shown[0]) // 2, (across - shown[1]) // 2)
    tiles = [
        ((x - left) / scale, (y - top) / scale, (x - left + view) / scale, (y - top + view) / scale)
        for y in range(0, down, view)
        for x in range(0, across, view)
    ]
    return [(0.0, 0.0, float(width), float(height)), *tiles]


class Namer(nn.Module):
    """A CLIP tower with one linear read-out per label, thrown away after the lesson."""

    def __init__(self, tower: Any, layer: int) -> None:
        super().__init__()
        self.tower, self.layer = tower, layer
        width = tower.config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in CLASSES)
        self.shades = nn.Linear(width, 12)

    def see(self, pixels: Tensor) -> Tensor:
        """What the tower makes of views, without the class token: [views, patches, width]."""
        seen = self.tower(pixels, output_hidden_states=True)
        features: Tensor = seen.hidden_states[self.layer][:, 1:]
        return features

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross entropy over the classes, and the squared error of the shades."""
        features = self.see(batch["pixels"])
        side = math.isqrt(features.shape[1])
        shades = nn.functional.adaptive_avg_pool2d(batch["pixels"], 2 * side)
        shades = nn.functional.pixel_unshuffle(shades, 2).flatten(2).transpose(1, 2)
        losses = [
            nn.functional.cross_entropy(
                head(features).flatten(0, 1), batch["classes"][:, i], ignore_index=IGNORED
            )
            for i, head in enumerate(self.heads)
        ]
        losses.append(nn.functional.mse_loss(self.shades(features), shades))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def accuracy(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Share of the characters, and of the shapes and colours, that are named right."""
        features = self.see(batch["pixels"]).flatten(0, 1)
        guess = torch.stack([head(features).argmax(-1) for head in self.heads], dim=1)
        right, there = guess == batch["classes"], batch["classes"] > 0
        parts = {"characters": slice(0, SLOTS), "things": slice(SLOTS, SLOTS + 2)}
        return {n: float(right[:, s][there[:, s]].float().mean()) for n, s in parts.items()}


def batch_maker(processor: Any, split: str = "train") -> Callable[[int], list[dict[str, Tensor]]]:
    """Batches by step number: all views of pages, scenes and diagrams, and what they show."""

    def batch_at(step: int) -> list[dict[str, Tensor]]:
        canvases = drawn(rows.rng_of("lesson_views", split, step), BATCH)
        return [encode(processor, canvases[half::2]) for half in range(2)]

    return batch_at


def encode(processor: Any, canvases: list[Canvas]) -> dict[str, Tensor]:
    """`pixels` of all views of the pictures, `classes` of all their patches."""
    images = processor.image_processor
    view, pinpoints = images.crop_size["height"], images.image_grid_pinpoints
    side = view // processor.patch_size
    pixels, classes = [], []
    for canvas in canvases:
        made = images([decode_picture(canvas.png())], return_tensors="pt")["pixel_values"][0]
        shown = boxes(pinpoints, view, canvas.width, canvas.height)
        pixels.append(made)
        classes += [_classes(canvas, box, view, side) for box in shown]
    return {"pixels": torch.cat(pixels), "classes": torch.cat(classes)}


def _classes(canvas: Canvas, box: Box, view: int, side: int) -> Tensor:
    classes = labels.within(canvas, box, side, side).long()
    if view / (box[2] - box[0]) < SMALL:
        classes[:, :SLOTS] = IGNORED
    return classes
