"""CLIP's training: pictures and captions that belong together are told from all others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from vlmbench.embedded import CHECKPOINTS, inheritance, rows, scenes
from vlmbench.embedded.school import School
from vlmbench.errors import CheckpointError
from vlmbench.pictures import decode_picture
from vlmbench.training import Plan

MATCHING = Plan(steps=1500, muon_rate=2e-3, adamw_rate=1.5e-3, warmup=200, save_every=100)
BATCH = 160
HELD_OUT = 500
"""As many as there are to choose from in the test split."""
PARENT = "llavanext"
"""Whose tower has learnt to see."""


class Matching(School):
    """Two encoders that meet; the one for pictures begins with a tower that names what it sees."""

    def run(self) -> None:
        """Every stage, one after another."""
        self.inherit()
        held_out = batch_maker(self.processor, "validation", HELD_OUT)(0)[0]
        self.learn(
            "matching",
            MATCHING,
            self.network,
            batch_maker(self.processor, "train", BATCH),
            partial(loss, self.network),
            partial(recall, self.network, held_out),
        )

    def inherit(self) -> None:
        """The parent's tower, as far as this one reaches, and words that are known."""
        if not (CHECKPOINTS / PARENT).is_dir():
            raise CheckpointError(
                f"{self.name} begins with the tower of {PARENT}, which is not trained yet: "
                f"python -m vlmbench.embedded train {PARENT}"
            )
        load: Any = AutoModelForImageTextToText.from_pretrained
        elder = load(CHECKPOINTS / PARENT, dtype=torch.float32).model.vision_tower.state_dict()
        tower = self.part("vision")
        known = {name: p for name, p in elder.items() if name in tower.state_dict()}
        tower.load_state_dict(known)
        text = self.part("decoder").embeddings
        places = text.position_embedding
        inheritance.begin_words(text.token_embedding, places, self.processor.tokenizer)

    def finish(self) -> None:
        """Save it as it is: it has no decoder to put outliers in."""
        self.save()


def batch_maker(processor: Any, split: str, size: int) -> Callable[[int], list[dict[str, Tensor]]]:
    """Batches by step number: scenes, each with one of its captions."""

    def batch_at(step: int) -> list[dict[str, Tensor]]:
        rng = rows.rng_of("lesson_matching", split, step)
        pictures: list[Any] = []
        captions: list[str] = []
        while len(pictures) < size:
            scene = scenes.draw(rng, rng.randint(2, 3))
            png = scene.canvas.png()
            caption = rng.choice(scenes.captions(scene, rng))
            if rows.picture_key(png) not in rows.held_out("flickr30k"):
                pictures.append(decode_picture(png))
                captions.append(caption)
        made = processor(images=pictures, text=captions, padding=True, return_tensors="pt")
        return [dict(made)]

    return batch_at


def loss(network: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross entropy of the right caption for each picture and the right picture for each caption.

    Source: Radford et al., arXiv 2103.00020, figure 3.
    """
    fits = network(**batch).logits_per_image
    right = torch.arange(len(fits))
    both: Tensor = nn.functional.cross_entropy(fits, right) + nn.functional.cross_entropy(
        fits.T, right
    )
    return both / 2


@torch.no_grad()
def recall(network: Any, batch: dict[str, Tensor]) -> dict[str, float]:
    """Share of the pictures whose caption ranks first, and of the captions whose picture does."""
    fits = network(**batch).logits_per_image
    right = torch.arange(len(fits))
    return {
        "caption": float((fits.argmax(1) == right).float().mean()),
        "picture": float((fits.argmax(0) == right).float().mean()),
    }
