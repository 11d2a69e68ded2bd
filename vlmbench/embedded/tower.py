"""The vision tower's lessons: to name what it sees, then to say it as the decoder hears it.

A tower and a decoder trained together from scratch on questions alone learn nothing in the time
this takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded import clips, diagrams, labels, pages, rows, scenes
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.labels import CLASSES, SLOTS, LabelSight, ReadOut
from vlmbench.pictures import decode_picture
from vlmbench.spec import Clip
from vlmbench.video import read

BATCH = 32


class Labeller(ReadOut):
    """Qwen2-VL's tower, on the labels of its tokens."""

    def forward(self, pixel_values: Tensor, grid: Tensor) -> Tensor:
        """What the tower makes of pictures: [tokens, width]."""
        features: Tensor = self.tower(pixel_values, grid_thw=grid).pooler_output
        return features

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """What is named wrong, and the error of the shades."""
        features = self(batch["pixel_values"], batch["image_grid_thw"])
        return self.misnamed(features, *labels.split(batch["labels"]))

    @torch.no_grad()
    def accuracy(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Share of the characters, and of the shapes and colours, that are named right."""
        features = self(batch["pixel_values"], batch["image_grid_thw"])
        return self.named_right(features, labels.split(batch["labels"])[0])


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


class Tracker(nn.Module):
    """A vision tower that learns to see two moments in one token, as it sees each by itself.

    Qwen2-VL takes frames in pairs. What the tower makes of a pair is to be the mean of what it made
    of each frame standing still, and to tell what is where in the first and in the second.
    """

    def __init__(self, tower: Any, width: int) -> None:
        super().__init__()
        self.tower = tower
        self.still = copy.deepcopy(tower).requires_grad_(False)
        sizes = CLASSES[SLOTS:] * 2
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Squared error in shares of the variance, and cross entropy of shape and colour twice."""
        features, grid = self._see(batch), batch["grid"]
        with torch.no_grad():
            pairs = batch["pixels"].view(len(features), 3, 2, -1)
            moments = [pairs[:, :, [i, i]].flatten(1) for i in range(2)]
            each = [self.still(moment, grid_thw=grid).pooler_output for moment in moments]
            wanted = torch.stack(each).mean(0)
            spread = (wanted - wanted.mean(0)).square().mean()
        shown = (batch["shown"] > 0).any(1)
        missed = (features - wanted).square().mean(1) * (1 + 9 * shown.float())
        error = missed.sum() / (1 + 9 * shown.float()).sum() / spread
        named = [
            nn.functional.cross_entropy(head(features), batch["shown"][:, i], reduction="none")
            for i, head in enumerate(self.heads)
        ]
        return error + 0.2 * sum(each.mean() + each[shown].mean() for each in named)

    @torch.no_grad()
    def accuracy(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Share of the things named right in the first moment and in the second."""
        features, shown = self._see(batch), batch["shown"]
        right = torch.stack([head(features).argmax(-1) for head in self.heads], 1) == shown
        return {
            moment: float(right[:, part][shown[:, part] > 0].float().mean())
            for moment, part in (("first", slice(0, 2)), ("second", slice(2, 4)))
        }

    def _see(self, batch: dict[str, Tensor]) -> Tensor:
        seen: Tensor = self.tower(batch["pixels"], grid_thw=batch["grid"]).pooler_output
        return seen


def film_maker(processor: Any, split: str = "train") -> Callable[[int], list[dict[str, Tensor]]]:
    """Batches by step number: clips, and pictures that stand still, with what is where when."""

    def batch_at(step: int) -> list[dict[str, Tensor]]:
        rng = rows.rng_of("lesson_film", split, step)
        films = [_film(processor, clips.draw(rng)) for _ in range(BATCH // 3)]
        stills = [_still(processor, canvas) for canvas in drawn(rng, BATCH // 2)]
        return [
            {name: torch.cat([one[name] for one in part]) for name in part[0]}
            for part in (films, stills)
        ]

    return batch_at


def _film(processor: Any, clip: clips.Clip) -> dict[str, Tensor]:
    frames = read(Clip(clip.mp4()))
    moments = [labels.of(clip.canvas(i / clip.frames)) for i in frames.indices]
    shown = [labels.split(moment)[0][:, SLOTS:] for moment in moments]
    pairs = [torch.cat(shown[i : i + 2], dim=1) for i in range(0, len(shown), 2)]
    made = processor.video_processor(
        videos=[torch.from_numpy(frames.pictures).permute(0, 3, 1, 2)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    pixels, grid = made["pixel_values_videos"], made["video_grid_thw"]
    return {"pixels": pixels, "grid": grid, "shown": torch.cat(pairs)}


def _still(processor: Any, canvas: Canvas) -> dict[str, Tensor]:
    made = _encode(processor, [canvas])
    shown = labels.split(made["labels"])[0][:, SLOTS:]
    both = torch.cat([shown, shown], dim=1)
    return {"pixels": made["pixel_values"], "grid": made["image_grid_thw"], "shown": both}


def drawn(rng: Random, count: int) -> list[Canvas]:
    """Half pages, a quarter scenes, a quarter diagrams."""
    canvases = [pages.draw(rng).canvas for _ in range(count // 2)]
    canvases += [scenes.draw(rng, rng.randint(2, 5)).canvas for _ in range(count // 4)]
    return canvases + [diagrams.draw(rng).canvas for _ in range(count // 4)]


def batch_maker(processor: Any, split: str = "train") -> Callable[[int], list[dict[str, Tensor]]]:
    """Batches by step number: pages, scenes and diagrams with the labels of their tokens."""

    def batch_at(step: int) -> list[dict[str, Tensor]]:
        rng = rows.rng_of("lesson_tower", split, step)
        canvases = drawn(rng, BATCH)
        return [_encode(processor, canvases[half::2]) for half in range(2)]

    return batch_at


def _encode(processor: Any, canvases: list[Canvas]) -> dict[str, Tensor]:
    pictures = [decode_picture(canvas.png()) for canvas in canvases]
    made = dict(processor.image_processor(images=pictures, return_tensors="pt"))
    return {**made, "labels": torch.cat([labels.of(canvas) for canvas in canvases])}
