"""A CLIP tower's lesson: to name what every patch of every view of a picture shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import torch
from PIL.Image import Image
from torch import Tensor, nn

from vlmbench.embedded import SIDE, inheritance, labels, rows
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.labels import SLOTS, Box, ReadOut
from vlmbench.embedded.tower import BATCH, drawn
from vlmbench.prompting import IGNORED

Batch = dict[str, Tensor]
SMALL = 0.95
"""Characters that are shown smaller than this share of their size are not asked for."""


def tiles(pinpoints: list[list[int]], view: int, width: int, height: int) -> list[Box]:
    """Which part of a picture each of its views shows in LLaVA-NeXT: the whole, then its tiles."""
    from transformers.image_processing_utils import select_best_resolution

    down, across = select_best_resolution((height, width), pinpoints)
    scale = min(down / height, across / width)
    shown = min(down, math.ceil(height * scale)), min(across, math.ceil(width * scale))
    top, left = ((down - shown[0]) // 2, (across - shown[1]) // 2)
    return [(0.0, 0.0, float(width), float(height))] + [
        ((x - left) / scale, (y - top) / scale, (x - left + view) / scale, (y - top + view) / scale)
        for y in range(0, down, view)
        for x in range(0, across, view)
    ]


def crops(scaled: Callable[[Image], Image], view: int, width: int, height: int) -> list[Box]:
    """Which part of a picture each of its views shows in Phi-3.5: the whole sheet, then its crops.

    `scaled` scales a picture and fills it up with white, in the middle of its shorter side.
    """
    from PIL import Image as Pictures

    sheet = scaled(Pictures.new("RGB", (width, height)))
    wide = width >= height
    long, short = max(width, height), min(width, height)
    reach = sheet.width if wide else sheet.height
    depth = int(reach / (long / short))
    rest = ((sheet.height if wide else sheet.width) - depth) // 2
    along, beyond = reach / long, depth / short
    left, top, right, bottom = (
        0.0,
        -rest / beyond,
        sheet.width / along,
        (sheet.height - rest) / beyond,
    )
    if not wide:
        left, top = -rest / beyond, 0.0
        right, bottom = (sheet.width - rest) / beyond, sheet.height / along
    rows, columns = sheet.height // view, sheet.width // view
    return [(left, top, right, bottom)] + [
        (
            left + (right - left) * column / columns,
            top + (bottom - top) * row / rows,
            left + (right - left) * (column + 1) / columns,
            top + (bottom - top) * (row + 1) / rows,
        )
        for row in range(rows)
        for column in range(columns)
    ]


class Namer(ReadOut):
    """A CLIP tower, on what the tokens of its views show."""

    def __init__(self, tower: nn.Module, see: Callable[[Tensor], Tensor], width: int) -> None:
        """`see`: what comes of views, [views, tokens of a square, width], as `tower` learns."""
        super().__init__(tower, width)
        self.see = see

    def loss(self, batch: Batch) -> Tensor:
        """What is named wrong, and the error of the shades of four patches a token."""
        pixels = batch["pixels"]
        shades = nn.functional.adaptive_avg_pool2d(pixels, 2 * pixels.shape[-1] // SIDE)
        shades = nn.functional.pixel_unshuffle(shades, 2).flatten(2).transpose(1, 2)
        features = self.see(pixels).flatten(0, 1)
        return self.misnamed(features, batch["classes"], shades.flatten(0, 1))

    @torch.no_grad()
    def accuracy(self, batch: Batch) -> dict[str, float]:
        """Share of the characters, and of the shapes and colours, that are named right."""
        return self.named_right(self.see(batch["pixels"]).flatten(0, 1), batch["classes"])


class Sayer(nn.Module):
    """A tower and its projector, which learn to say of tokens what a decoder understands."""

    def __init__(
        self,
        tower: nn.Module,
        projector: nn.Module,
        see: Callable[[Tensor], Tensor],
        words: Tensor,
        separators: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> None:
        """`words` [numbers + 1, dim]: how each label is said, the last row what is always said.

        `separators`: what the projector is given beside views, learnt as well, and what it is to
        make of each.
        """
        super().__init__()
        self.tower, self.projector, self.see = tower, projector, see
        self.words = nn.Buffer(words)
        self.given = nn.ParameterList(given for given, _ in separators)
        self.wanted = [wanted.detach() for _, wanted in separators]

    def loss(self, batch: Batch) -> Tensor:
        """What is said wrong of tokens and of separators, in shares of the variance.

        Of characters too small to be read nothing is said, as where labels stood for pixels.
        """
        labels = batch["labels"].flatten(0, 1)
        said = self.projector(self.see(batch["pixels"]).flatten(0, 1))
        wanted = inheritance.said(labels, self.words)
        error = inheritance.misspoken(said, wanted, labels)
        for given, due in zip(self.given, self.wanted, strict=True):
            error = error + (self.projector(given) - due).square().mean() / wanted.var(0).mean()
        return error

    @torch.no_grad()
    def error(self, batch: Batch) -> dict[str, float]:
        """The share of the variance that is still missed."""
        return {"unexplained": float(self.loss(batch))}


Show = Callable[[Canvas], tuple[Tensor, list[Box]]]
"""The views of a picture, [views, 3, side, side], and which part of it each shows."""


def batch_maker(
    show: Show, split: str = "train", draw: Callable[[Random, int], list[Canvas]] = drawn
) -> Callable[[int], list[Batch]]:
    """Batches by step number: all views of what is drawn, and what they show."""

    def batch_at(step: int) -> list[Batch]:
        canvases = draw(rows.rng_of("lesson_views", split, step), BATCH)
        return [encode(show, canvases[half::2]) for half in range(2)]

    return batch_at


def encode(show: Show, canvases: list[Canvas]) -> Batch:
    """`pixels` of all views of the pictures, `classes` of all their tokens."""
    pixels, classes = [], []
    for canvas in canvases:
        views, shown = show(canvas)
        pixels.append(views)
        classes += [_classes(canvas, box, views.shape[-1]) for box in shown]
    return {"pixels": torch.cat(pixels), "classes": torch.cat(classes)}


def labelled(canvas: Canvas, pixels: Tensor, shown: list[Box]) -> Tensor:
    """Labels [views, tokens, len(CLASSES) + SHADES] of views [views, 3, side, side], 0 to 1.

    What is too small to be read is IGNORED.
    """
    view = pixels.shape[-1]
    shades = nn.functional.adaptive_avg_pool2d(2 * pixels - 1, 2 * view // SIDE)
    shades = nn.functional.pixel_unshuffle(shades, 2).flatten(2).transpose(1, 2)
    # Patch by patch, as `labels.of` has them, not colour by colour.
    shades = shades.view(*shades.shape[:2], 3, 4).transpose(2, 3).flatten(2)
    classes = torch.stack([_classes(canvas, box, view) for box in shown])
    return torch.cat([classes, shades], dim=2)


def _classes(canvas: Canvas, box: Box, view: int) -> Tensor:
    classes = labels.within(canvas, box, view // SIDE, view // SIDE).long()
    if view / (box[2] - box[0]) < SMALL:
        classes[:, :SLOTS] = IGNORED
    return classes
