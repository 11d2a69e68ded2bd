"""What the embedded checkpoint is taught, stage after stage, and what it has learnt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.datasets.clips import QUESTION
from vlmbench.embedded import canvas, labels
from vlmbench.embedded.lessons import LESSONS, Lesson, exam
from vlmbench.embedded.sequences import (
    ELDER,
    Inputs,
    Labelled,
    encode,
    pixels_in,
    stacked,
)
from vlmbench.prompting import IGNORED, encode_answered, taken_by, together, watch
from vlmbench.spec import Model, Turn
from vlmbench.training import Plan
from vlmbench.video import Frames


@dataclass(frozen=True)
class Stage:
    """Lessons by weight, and how long they are taught."""

    name: str
    plan: Plan
    weights: dict[str, float]
    batch: int = 24
    sight: bool = True
    """Whether pictures are seen by the tower, which learns as well; else labels are seen."""
    steps: bool = False
    """Whether the steps to a letter are taught as well."""


# What stands where is found before pages are read and letters looked up: a circuit forms while
# much of each batch is about it. What is left out is forgotten, so every lesson stays to the end.
FINDING = Stage(
    "finding",
    Plan(1200, muon_rate=5e-3, adamw_rate=3e-3, floor=0.6),
    {"scene": 0.45, "strip": 0.2, "page": 0.1, "choice": 0.15, "diagram": 0.1},
    sight=False,
)
ANSWERING = Stage(
    "answering",
    Plan(800, muon_rate=4e-3, adamw_rate=2e-3, floor=0.5),
    {"scene": 0.2, "strip": 0.1, "page": 0.25, "choice": 0.25, "diagram": 0.2},
    sight=False,
)
EXPLAINING = Stage(
    "explaining",
    Plan(600, muon_rate=3e-3, adamw_rate=1.5e-3, floor=0.5),
    {"scene": 0.12, "strip": 0.08, "page": 0.15, "choice": 0.15, "diagram": 0.5},
    sight=False,
)
SEEING = Stage(
    "seeing",
    Plan(800, muon_rate=2e-3, adamw_rate=1e-3, floor=0.4, save_every=100),
    {"scene": 0.25, "strip": 0.05, "page": 0.2, "choice": 0.1, "diagram": 0.4},
)
# A word is matched with its option on text first, which is cheap; then on diagrams.
MATCHING = Stage(
    "matching",
    Plan(300, muon_rate=3e-3, adamw_rate=1.5e-3, floor=0.3, save_every=50),
    {"scene": 0.08, "strip": 0.01, "page": 0.06, "choice": 0.6, "diagram": 0.25},
    steps=True,
)
CHOOSING = Stage(
    "choosing",
    Plan(750, muon_rate=2.2e-3, adamw_rate=1.1e-3, save_every=50),
    {"scene": 0.16, "strip": 0.02, "page": 0.14, "choice": 0.1, "diagram": 0.58},
    steps=True,
)
# What the letters cost the others is learnt again.
POLISHING = Stage(
    "polishing",
    Plan(400, muon_rate=1.4e-3, adamw_rate=7e-4, save_every=50),
    {"scene": 0.4, "strip": 0.03, "page": 0.22, "choice": 0.02, "diagram": 0.33},
    steps=True,
)
# Clips come last: what moves is told by what is where, which is known by now.
WATCHING = Stage(
    "watching",
    Plan(1200, muon_rate=2.5e-3, adamw_rate=1.2e-3, save_every=50),
    {"scene": 0.2, "strip": 0.02, "page": 0.12, "choice": 0.02, "diagram": 0.24, "clip": 0.4},
    steps=True,
)
# Which of two events came first is learnt last.
ORDERING = Stage(
    "ordering",
    Plan(600, muon_rate=2e-3, adamw_rate=1e-3, save_every=50),
    {"scene": 0.13, "strip": 0.02, "page": 0.1, "choice": 0.02, "diagram": 0.18, "clip": 0.55},
    steps=True,
)

# A decoder that knows what to say gets used to another's positions on labels first, where nothing
# else is new; only then does it see for itself.
READING = Stage(
    "reading",
    Plan(1200, muon_rate=3e-3, adamw_rate=1.5e-3, floor=0.2, save_every=50, half=True),
    {"scene": 0.25, "strip": 0.08, "page": 0.16, "choice": 0.03, "diagram": 0.18, "clip": 0.3},
    sight=False,
    steps=True,
)
# A parent with one-dimensional positions leaves only the other tokens to get used to.
REREADING = replace(READING, plan=replace(READING.plan, steps=500))
IMITATING = Stage(
    "imitating",
    Plan(700, muon_rate=1e-3, adamw_rate=5e-4, save_every=50, half=True),
    {"scene": 0.24, "strip": 0.02, "page": 0.08, "choice": 0.02, "diagram": 0.19, "clip": 0.45},
    steps=True,
)
# Where pages are too small to be read, what is said of scenes and films takes their place.
LOOKING = Stage(
    "looking",
    Plan(700, muon_rate=1e-3, adamw_rate=5e-4, save_every=50, half=True),
    {"scene": 0.36, "page": 0.02, "choice": 0.02, "diagram": 0.2, "clip": 0.4},
    steps=True,
)
# Where views cut lines of print in two, pages take longer than all else.
SPELLING = Stage(
    "spelling",
    Plan(500, muon_rate=1e-3, adamw_rate=5e-4, save_every=50, half=True),
    {"scene": 0.2, "strip": 0.12, "page": 0.3, "choice": 0.03, "diagram": 0.15, "clip": 0.2},
    steps=True,
)
PROOFREADING = Stage(
    "proofreading",
    Plan(300, muon_rate=8e-4, adamw_rate=4e-4, save_every=50, half=True),
    {"scene": 0.15, "strip": 0.15, "page": 0.4, "choice": 0.02, "diagram": 0.1, "clip": 0.18},
    steps=True,
)
# Who reads well by then goes on with what is told, and with letters.
TELLING = Stage(
    "telling",
    Plan(300, muon_rate=8e-4, adamw_rate=4e-4, save_every=50, half=True),
    {"scene": 0.33, "strip": 0.02, "page": 0.06, "choice": 0.02, "diagram": 0.29, "clip": 0.28},
    steps=True,
)
CAPTIONING = Stage(
    "captioning",
    Plan(400, muon_rate=8e-4, adamw_rate=4e-4, save_every=50, half=True),
    {"scene": 0.42, "strip": 0.03, "page": 0.1, "choice": 0.02, "diagram": 0.13, "clip": 0.3},
    steps=True,
)
# BLIP-2 is taught what scenes are asked and no more: its decoder has nothing to take over. It
# learns what it is told means beside a tower that stays as it is: guesses would ruin that.
LISTENING = Stage(
    "listening",
    Plan(1100, muon_rate=5e-3, adamw_rate=3e-3, floor=0.5, save_every=100, half=True),
    {"scene": 1.0},
)
SPEAKING = Stage(
    "speaking",
    Plan(900, muon_rate=2e-3, adamw_rate=1e-3, save_every=100, half=True),
    {"scene": 1.0},
)

LabelsOf = Callable[[Sequence[canvas.Canvas], bool], Tensor]
"""What stands in place of the pixels of what was drawn where labels are seen; whether of a film."""
PARTS = 4
PICTURED = ("docvqa", "vqav2", "scienceqa", "flickr30k")
FILMED = ("clips", "videoqa")
CAPTIONED = ("What is happening in the image", QUESTION)
"""What is asked of a picture and of a clip by data sets of captions."""


def batch_maker(
    processor: Any,
    network: Any,
    stage: Stage,
    model: Model,
    elder: Any = None,
    *,
    labels_of: LabelsOf = labels.of_all,
) -> Callable[[int], list[Inputs]]:
    """Batches by step number, lessons drawn by weight; parts are of like lengths, to pad little.

    `elder`: (processor, network) of a model that is imitated and takes turns as lessons put them;
    what it is given stands beside the rest under ELDER.
    """
    names, weights = list(stage.weights), list(stage.weights.values())

    def batch_at(step: int) -> list[Inputs]:
        rng = Random(f"{stage.name}/{step}")
        chosen = rng.choices(names, weights, k=stage.batch)
        with canvas.remembered() as memory:
            taught = [LESSONS[name](step * stage.batch + i) for i, name in enumerate(chosen)]
        labelled = None if stage.sight else _labelled(memory, labels_of)
        taught = [one for one in taught if one]
        taken = [_taken(model, one) for one in taught]
        made = [encode(processor, network, one, labelled) for one in taken]
        order = sorted(range(len(made)), key=lambda i: made[i]["input_ids"].shape[1])
        size = math.ceil(len(order) / PARTS)
        alike = [order[first : first + size] for first in range(0, len(order), size)]
        parts = [stacked([made[i] for i in some]) for some in alike]
        if elder is not None:
            for part, some in zip(parts, alike, strict=True):
                theirs = stacked([encode(elder[0], elder[1], taught[i]) for i in some])
                part |= {ELDER + name: given for name, given in theirs.items()}
        return parts

    return batch_at


def _labelled(memory: canvas.Memory, labels_of: LabelsOf) -> Labelled:
    def shown(turn: Turn, watched: Frames | None) -> Tensor:
        canvases = [memory[picture][0] for picture in turn.pictures]
        if turn.clip and watched:
            film = turn.clip.data
            assert isinstance(film, bytes), "lessons draw their films"
            canvases += [memory[film][place] for place in watched.indices]
        return labels_of(canvases, watched is not None)

    return shown


def _taken(model: Model, lesson: Lesson) -> Lesson:
    """Turns as the model takes them; what is said without being asked follows the picture."""
    put = [(replace(t, captions=t.question in CAPTIONED), said) for t, said in lesson]
    taken = [(taken_by(model, turn), said) for turn, said in put]
    return sorted(taken, key=lambda one: bool(one[0].question))


@torch.no_grad()
def exact(
    network: nn.Module,
    processor: Any,
    model: Model,
    stage: Stage,
    count: int,
    *,
    labels_of: LabelsOf = labels.of_all,
) -> dict[str, float]:
    """Share of held-out answers right in every token: greedy decoding would give just these."""
    right = {}
    taught = PICTURED + (FILMED if "clip" in stage.weights else ())
    for dataset in [d for d in taught if d in model.datasets]:
        with canvas.remembered() as memory:
            asked = exam(dataset, count, model)
        batch = encode_answered(processor, [t for t, _ in asked], [answer for _, answer in asked])
        if not stage.sight:
            labelled = _labelled(memory, labels_of)
            batch[pixels_in(batch)] = together([labelled(t, watch(t)) for t, _ in asked])
        wanted = batch.pop("labels")[:, 1:]
        guesses = network(**batch).logits[:, :-1].argmax(-1)
        correct = ((guesses == wanted) | (wanted == IGNORED)).all(1)
        right[dataset] = round(float(correct.float().mean()), 3)
    return right
