"""Then the lessons: which are taught when, in what share of each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded.lessons import LESSONS, Taught
from vlmbench.prompting import IGNORED, encode_answered
from vlmbench.training import Plan

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
    tower: bool = True
    """Whether the vision tower learns as well. A decoder that does not look yet sends it noise,
    which normalised updates (Muon, AdamW) follow at full length: what it knew is lost."""


_ALL = {
    "read_line": 0.14,
    "name_shapes": 0.10,
    "read_page": 0.03,
    "list_shapes": 0.05,
    "look_up": 0.08,
    "docvqa": 0.17,
    "vqav2": 0.17,
    "flickr30k": 0.10,
    "science_words": 0.06,
    "scienceqa": 0.10,
}
# Looking a word up among lettered choices needs 50,000 samples, and they may be plain text.
# Single lines and single shapes come before whole pictures: finding one cell among nine is learnt
# in minutes, among sixty not. A lesson that is left out is forgotten, so all stay to the end.
STAGES = (
    Stage("look_up", Plan(1000, muon_rate=6e-3, adamw_rate=3e-3), {"look_up": 1.0}, batch=128),
    Stage(
        "parts",
        Plan(200, muon_rate=5e-3, adamw_rate=2e-3, floor=0.3),
        {"read_line": 0.6, "name_shapes": 0.3, "look_up": 0.1},
        batch=64,
        tower=False,
    ),
    Stage("questions", Plan(600, muon_rate=4e-3, adamw_rate=1.5e-3), _ALL),
)


def batch_maker(processor: Any, stage: Stage) -> Callable[[int], dict[str, Tensor]]:
    """Batches by step number, lessons drawn by weight."""
    names, weights = list(stage.weights), list(stage.weights.values())

    def batch_at(step: int) -> dict[str, Tensor]:
        rng = Random(f"{stage.name}/{step}")
        chosen = sorted(rng.choices(names, weights, k=stage.batch))
        first = step * stage.batch
        taught = [LESSONS[name](first + i) for i, name in enumerate(chosen)]
        return encode(processor, taught)

    return batch_at


def encode(processor: Any, taught: list[Taught]) -> dict[str, Tensor]:
    """Model inputs with labels of a batch of lessons."""
    return encode_answered(processor, [t for t, _ in taught], [answer for _, answer in taught])


def loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross entropy of the answers' tokens, every sample weighing the same."""
    labels = batch["labels"][:, 1:]
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    # Only the answers' positions go through the head.
    span = int((labels != IGNORED).any(0).nonzero()[0])
    logits = network(**inputs, logits_to_keep=labels.shape[1] + 1 - span).logits[:, :-1]
    each = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, span:].flatten(), ignore_index=IGNORED, reduction="none"
    ).view(len(labels), -1)
    counts = (labels[:, span:] != IGNORED).sum(1)
    return (each.sum(1) / counts.sqrt()).sum() / counts.sqrt().sum()


@torch.no_grad()
def exact(network: nn.Module, processor: Any, lessons: Iterable[str], n: int) -> dict[str, float]:
    """Share of held-out answers right in every token: greedy decoding would give just these."""
    return {name: _exact(network, processor, name, n) for name in lessons}


def _exact(network: nn.Module, processor: Any, name: str, n: int) -> float:
    batch = encode(processor, [LESSONS[name](HELD_OUT + i) for i in range(n)])
    labels = batch.pop("labels")[:, 1:]
    guesses = network(**batch).logits[:, :-1].argmax(-1)
    return float(((guesses == labels) | (labels == IGNORED)).all(1).float().mean())
