"""The vision tower's lessons: to name what it sees, then to say it as the decoder hears it.

A tower and a decoder trained together from scratch on questions alone learn nothing in the time
this takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded import diagrams, labels, pages, rows, scenes
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.labels import CLASSES, SHADES, SLOTS, LabelSight
from vlmbench.prompting import decode_picture

BATCH = 32


class Labeller(nn.Module):
    """A vision tower with one linear read-out per label, thrown away after the lesson."""

    def __init__(self, tower: nn.Module, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in CLASSES)
        self.shades = nn.Linear(width, SHADES)

    def forward(self, pixel_values: Tensor, grid: Tensor) -> Tensor:
        """What the tower makes of pictures: [tokens, width]."""
        features: Tensor = self.tower(pixel_values, grid_thw=grid).pooler_output
        return features

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross entropy over the classes, and the squared error of the shades."""
        features = self(batch["pixel_values"], batch["image_grid_thw"])
        classes, shades = labels.split(batch["labels"])
        losses = [
            nn.functional.cross_entropy(head(features), classes[:, i])
            for i, head in enumerate(self.heads)
        ]
        return torch.stack([*losses, nn.functional.mse_loss(self.shades(features), shades)]).sum()

    @torch.no_grad()
    def accuracy(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Share of the characters, and of the shapes and colours, that are named right."""
        features = self(batch["pixel_values"], batch["image_grid_thw"])
        classes, _ = labels.split(batch["labels"])
        guess = torch.stack([head(features).argmax(-1) for head in self.heads], dim=1)
        right, there = guess == classes, classes > 0
        parts = {"characters": slice(0, SLOTS), "things": slice(SLOTS, SLOTS + 2)}
        return {n: float(right[:, s][there[:, s]].float().mean()) for n, s in parts.items()}


class Translator(nn.Module):
    """A vision tower that learns to give the decoder what `LabelSight` gave it."""

    def __init__(self, tower: Any, sight: LabelSight) -> None:
        super().__init__()
        self.tower, self.sight = tower, sight.requires_grad_(False)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Squared error, in shares of the variance; one token in fifty shows a thing and counts."""
        features = self.tower(batch["pixel_values"], grid_thw=batch["image_grid_thw"])
        wanted = self.sight(batch["labels"]).pooler_output
        spread = (wanted - wanted.mean(0)).square().mean()
        classes, _ = labels.split(batch["labels"])
        weights = 1 + 9 * (classes[:, SLOTS] > 0).float()
        missed = (features.pooler_output - wanted).square().mean(1)
        error: Tensor = (missed * weights).sum() / weights.sum() / spread
        return error

    @torch.no_grad()
    def begin(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Solve the tower's last linear map by least squares: a start far ahead of any step."""
        last, inputs, outputs = self.tower.merger.mlp[-1], [], []
        hook = last.register_forward_hook(lambda module, args, out: inputs.append(args[0]))
        for batch in batches:
            self.tower(batch["pixel_values"], grid_thw=batch["image_grid_thw"])
            outputs.append(self.sight(batch["labels"]).pooler_output)
        hook.remove()
        given, wanted = torch.cat(inputs), torch.cat(outputs)
        given = torch.cat([given, torch.ones(len(given), 1)], dim=1)
        solved = torch.linalg.lstsq(given, wanted).solution
        last.weight.copy_(solved[:-1].T)
        last.bias.copy_(solved[-1])

    @torch.no_grad()
    def error(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """The share of the variance that is still missed."""
        return {"unexplained": float(self.loss(batch))}


def batch_maker(processor: Any, split: str = "train") -> Callable[[int], list[dict[str, Tensor]]]:
    """Batches by step number: pages, scenes and diagrams with the labels of their tokens."""

    def batch_at(step: int) -> list[dict[str, Tensor]]:
        rng = rows.rng_of("lesson_tower", split, step)
        drawn = [pages.draw(rng).canvas for _ in range(BATCH // 2)]
        drawn += [scenes.draw(rng, rng.randint(2, 5)).canvas for _ in range(BATCH // 4)]
        drawn += [diagrams.draw(rng).canvas for _ in range(BATCH // 4)]
        return [_encode(processor, drawn[half::2]) for half in range(2)]

    return batch_at


def _encode(processor: Any, drawn: list[Canvas]) -> dict[str, Tensor]:
    pictures = [decode_picture(canvas.png()) for canvas in drawn]
    made = dict(processor.image_processor(images=pictures, return_tensors="pt"))
    return {**made, "labels": torch.cat([labels.of(canvas) for canvas in drawn])}
