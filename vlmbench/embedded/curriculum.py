"""Then the lessons: which are taught when, in what share of each batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded import canvas, labels
from vlmbench.embedded.blank import SIDE
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.lessons import LESSONS, Taught
from vlmbench.prompting import IGNORED, encode_answered
from vlmbench.training import Plan

Inputs = dict[str, Tensor]
BATCH = 32
HELD_OUT = 10**9
"""Lesson numbers from here on are never trained on: the held-out curve is drawn from them."""


@dataclass(frozen=True)
class Stage:
    """Lessons by weight, and how long they are taught."""

    name: str
    plan: Plan
    weights: dict[str, float]
    batch: int = BATCH
    sight: bool = True
    """Whether pictures are seen by the tower, which learns as well; else labels are seen."""


# Single lines, fields and shapes come with whole pictures: finding one cell among nine is learnt
# sooner than among sixty. A lesson that is left out is forgotten, so all stay to the end.
_READ = {
    "read_line": 0.20,
    "read_field": 0.25,
    "read_page": 0.05,
    "docvqa": 0.18,
    "name_shapes": 0.08,
    "list_shapes": 0.06,
    "vqav2": 0.10,
    "look_up": 0.08,
}
_ALL = {
    "read_line": 0.04,
    "read_field": 0.08,
    "read_page": 0.04,
    "docvqa": 0.12,
    "name_shapes": 0.10,
    "list_shapes": 0.08,
    "vqav2": 0.15,
    "flickr30k": 0.09,
    "match_letters": 0.08,
    "look_up": 0.10,
    "science_words": 0.06,
    "scienceqa": 0.06,
}
READING = Stage(
    "reading", Plan(1200, muon_rate=5e-3, adamw_rate=3e-3, floor=0.5), _READ, sight=False
)
ANSWERING = Stage("answering", Plan(2000, muon_rate=4e-3, adamw_rate=2e-3), _ALL, sight=False)
# Looking a word up among lettered choices needs 50,000 samples; they are plain text and short.
CHOOSING = Stage(
    "choosing",
    Plan(450, muon_rate=4e-3, adamw_rate=2e-3, floor=0.2),
    {name: 0.3 * weight for name, weight in _ALL.items()} | {"look_up": 0.7},
    batch=96,
    sight=False,
)
_SEEN = {
    "read_line": 0.04,
    "read_field": 0.06,
    "read_page": 0.04,
    "docvqa": 0.14,
    "name_shapes": 0.06,
    "list_shapes": 0.08,
    "match_shapes": 0.06,
    "vqav2": 0.14,
    "flickr30k": 0.12,
    "read_diagram": 0.06,
    "match_letters": 0.02,
    "look_up": 0.08,
    "science_words": 0.05,
    "scienceqa": 0.05,
}
SEEING = Stage("seeing", Plan(1100, muon_rate=2e-3, adamw_rate=1e-3, save_every=100), _SEEN)


def batch_maker(processor: Any, stage: Stage) -> Callable[[int], list[Inputs]]:
    """Batches by step number, lessons drawn by weight; in two parts, so that little is padding."""
    names, weights = list(stage.weights), list(stage.weights.values())

    def batch_at(step: int) -> list[Inputs]:
        rng = Random(f"{stage.name}/{step}")
        chosen = rng.choices(names, weights, k=stage.batch)
        first = step * stage.batch
        with canvas.remembered() as pictures:
            taught = [LESSONS[name](first + i) for i, name in enumerate(chosen)]
        taught.sort(key=lambda one: _length(one, pictures))
        half = len(taught) // 2
        return [
            encode(processor, part, None if stage.sight else pictures)
            for part in (taught[:half], taught[half:])
        ]

    return batch_at


def _length(taught: Taught, pictures: dict[bytes, Canvas]) -> int:
    """About how many tokens a lesson takes."""
    turn, answer = taught
    areas = [pictures[p].width * pictures[p].height for p in turn.pictures]
    return sum(areas) // SIDE**2 + len(answer) + len(turn.question) // 3


def encode(
    processor: Any, taught: list[Taught], pictures: dict[bytes, Canvas] | None = None
) -> Inputs:
    """Model inputs of a batch of lessons; with `pictures`, their labels in place of the pixels."""
    turns = [turn for turn, _ in taught]
    batch = encode_answered(processor, turns, [answer for _, answer in taught])
    if pictures is not None and "pixel_values" in batch:
        shown = [pictures[picture] for turn in turns for picture in turn.pictures]
        batch["pixel_values"] = torch.cat([labels.of(drawn) for drawn in shown])
    return batch


def loss(network: nn.Module, batch: Inputs) -> Tensor:
    """Mean cross entropy of the answers' tokens, every sample weighing the same."""
    wanted = batch["labels"][:, 1:]
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    # Only the answers' positions go through the head.
    span = int((wanted != IGNORED).any(0).nonzero()[0])
    logits = network(**inputs, logits_to_keep=wanted.shape[1] + 1 - span).logits[:, :-1]
    each = nn.functional.cross_entropy(
        logits.flatten(0, 1), wanted[:, span:].flatten(), ignore_index=IGNORED, reduction="none"
    ).view(len(wanted), -1)
    counts = (wanted[:, span:] != IGNORED).sum(1)
    return (each.sum(1) / counts.sqrt()).sum() / counts.sqrt().sum()


@torch.no_grad()
def exact(network: nn.Module, processor: Any, stage: Stage, n: int) -> dict[str, float]:
    """Share of held-out answers right in every token: greedy decoding would give just these."""
    return {name: _exact(network, processor, name, n, stage.sight) for name in stage.weights}


def _exact(network: nn.Module, processor: Any, name: str, n: int, sight: bool) -> float:
    with canvas.remembered() as pictures:
        taught = [LESSONS[name](HELD_OUT + i) for i in range(n)]
    batch = encode(processor, taught, None if sight else pictures)
    wanted = batch.pop("labels")[:, 1:]
    guesses = network(**batch).logits[:, :-1].argmax(-1)
    return float(((guesses == wanted) | (wanted == IGNORED)).all(1).float().mean())
