"""BLIP-2's training: a tower names, queries ask it for each part of a scene, a decoder speaks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from vlmbench.embedded import curriculum, inheritance, labels, losses, rows, scenes, views
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.curriculum import Stage
from vlmbench.embedded.labels import SHADES, Box, ReadOut
from vlmbench.embedded.parts import PATCH, VIEW
from vlmbench.embedded.school import SEED, School
from vlmbench.embedded.tower import BATCH
from vlmbench.pictures import decode_picture
from vlmbench.training import Plan

NAMING = Plan(steps=1200, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)
ASKING = Plan(steps=800, muon_rate=4e-3, adamw_rate=2e-3, save_every=100)
QUIET = 0.2
"""What queries say is made so much quieter: about as loud as words are."""
THIRDS = 3
"""The first queries ask for a third of the rows and columns each; the others are left free."""
Batch = dict[str, Tensor]


class Blip2(School):
    """All its parts learn from nothing but the words, whose meaning Qwen2-VL knows."""

    def run(self) -> None:
        """Every stage, one after another."""
        self.name_what_is_seen()
        self.begin()
        self.ask()
        self.listen()
        self.answer(curriculum.SPEAKING)

    def name_what_is_seen(self) -> None:
        """The tower alone, on what its patches show."""
        tower = self.part("vision")
        namer = views.Namer(tower, self.see, tower.config.hidden_size)
        held_out, _ = views.batch_maker(self.show, "validation", draw)(0)
        batch_at = views.batch_maker(self.show, draw=draw)

        def measure() -> dict[str, float]:
            # There is nothing to read on scenes.
            return {"things": namer.accuracy(held_out)["things"]}

        self.learn("naming", NAMING, namer, batch_at, namer.loss, measure)

    def see(self, pixels: Tensor) -> Tensor:
        """What the queries are given of pictures, but for the token of the whole."""
        seen: Tensor = self.part("vision")(pixels).last_hidden_state
        return seen[:, 1:]

    def show(self, canvas: Canvas) -> tuple[Tensor, list[Box]]:
        """The whole picture in a square."""
        picture = decode_picture(canvas.png())
        made = self.processor.image_processor([picture], return_tensors="pt")["pixel_values"]
        return made, [whole(canvas)]

    @torch.no_grad()
    def begin(self) -> None:
        """Queries that differ, and words that are known."""
        generator = torch.Generator().manual_seed(SEED)
        self.network.query_tokens.normal_(generator=generator)
        decoder = self.part("decoder")
        places = decoder.embed_positions
        inheritance.begin_words(decoder.embed_tokens, places, self.processor.tokenizer)

    def ask(self) -> None:
        """Tower and queries, on what each part of a scene shows."""
        asker = Asker(self.network)
        held_out, _ = batch_maker(self.show, "validation")(0)
        measure = partial(asker.measure, held_out)
        self.learn("asking", ASKING, asker, batch_maker(self.show), asker.loss, measure)

    def listen(self) -> None:
        """The decoder and what is said to it, beside a tower and queries that stay as they are."""
        network = self.network
        with torch.no_grad():
            for parameter in network.language_projection.parameters():
                parameter.mul_(QUIET)
        kept = [*network.vision_model.parameters(), *network.qformer.parameters()]
        kept.append(network.query_tokens)
        for parameter in kept:
            parameter.requires_grad_(False)
        self.answer(curriculum.LISTENING)
        for parameter in kept:
            parameter.requires_grad_(True)

    def answer(
        self, stage: Stage, elder: Any = None, labels_of: curriculum.LabelsOf = labels.of_all
    ) -> None:
        """The whole network on questions."""
        speaker = Speaker(self.network)
        batch_at = curriculum.batch_maker(self.processor, speaker, stage, self.model, elder)
        loss = partial(losses.loss, speaker, self.model.anatomy)
        measure = partial(curriculum.exact, self.network, self.processor, self.model, stage, 100)
        self.learn(stage.name, stage.plan, self.network, batch_at, loss, measure)


class Speaker:
    """BLIP-2 as lessons know a network: what it thinks comes of `model`."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.get_submodule = network.get_submodule

    def model(self, output_hidden_states: bool, **inputs: Any) -> BaseModelOutput:
        """The decoder's hidden states, told or not, as it has no other way to give its last."""
        said = self.network(**inputs, output_hidden_states=True).language_model_outputs
        thoughts = said.hidden_states
        return BaseModelOutput(last_hidden_state=thoughts[-1], hidden_states=thoughts)


class Asker(ReadOut):
    """BLIP-2's tower and queries, on what each third of a picture's rows and columns shows."""

    def __init__(self, network: Any) -> None:
        super().__init__(network.vision_model, network.config.text_config.hidden_size)
        self.qformer, self.projection = network.qformer, network.language_projection
        self.queries = network.query_tokens

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder is given [pictures, queries, dim], and where queries look.

        The latter [pictures, heads, queries, 1 + patches], the share of each.
        """
        seen = self.tower(pixels).last_hidden_state
        asked = self.queries.expand(len(seen), -1, -1)
        # Only so are the shares of attention given.
        self.qformer.set_attn_implementation("eager")
        made = self.qformer(asked, encoder_hidden_states=seen, output_attentions=True)
        return self.projection(made.last_hidden_state), made.cross_attentions[0]

    def loss(self, batch: Batch) -> Tensor:
        """What is named wrong, the error of the shades, and what is looked at beside."""
        given, looks = self(batch["pixels"])
        count = THIRDS**2
        named = self.misnamed(given[:, :count].flatten(0, 1), batch["classes"], batch["shades"])
        inside = (looks[:, :, :count, 1:] * within()).sum(-1)
        # Where to look is not found from what is named wrong.
        looked: Tensor = -inside.clamp(min=1e-6).log().mean()
        return named + looked

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, float]:
        """Share of the shapes and colours that are named right, and of the looks at their place."""
        given, looks = self(batch["pixels"])
        count = THIRDS**2
        named = self.named_right(given[:, :count].flatten(0, 1), batch["classes"])
        inside = (looks[:, :, :count, 1:] * within()).sum(-1)
        return {"things": named["things"], "inside": float(inside.mean())}


def within() -> Tensor:
    """Which patches each of the first queries is about: [queries, patches] of 0 and 1."""
    side = VIEW // PATCH
    third = torch.nn.functional.one_hot(torch.arange(side) * THIRDS // side, THIRDS).T
    both = third[:, None, :, None] * third[None, :, None, :]
    return both.reshape(THIRDS**2, side**2)


def draw(rng: Random, count: int) -> list[Canvas]:
    """Scenes: all that it is asked about."""
    return [scenes.draw(rng, rng.randint(2, 5)).canvas for _ in range(count)]


def whole(canvas: Canvas) -> Box:
    """All of a picture."""
    return 0.0, 0.0, float(canvas.width), float(canvas.height)


def batch_maker(show: views.Show, split: str = "train") -> Callable[[int], list[Batch]]:
    """Batches by step number: scenes, and what each third of their rows and columns shows."""

    def batch_at(step: int) -> list[Batch]:
        canvases = draw(rows.rng_of("lesson_asking", split, step), BATCH)
        return [encode(show, canvases[half::2]) for half in range(2)]

    return batch_at


def encode(show: views.Show, canvases: list[Canvas]) -> Batch:
    """`pixels` of pictures; `classes` and `shades` of their parts, one picture after another."""
    classes = [labels.within(one, whole(one), THIRDS, THIRDS).long() for one in canvases]
    return {
        "pixels": torch.cat([show(canvas)[0] for canvas in canvases]),
        "classes": torch.cat(classes),
        "shades": torch.cat([_shades(canvas) for canvas in canvases]),
    }


def _shades(canvas: Canvas) -> Tensor:
    """Red, green and blue, -1 to 1, of the four quarters of each part: [parts, SHADES]."""
    small = canvas.image.resize((2 * THIRDS, 2 * THIRDS), Image.Resampling.BOX)
    shades = torch.from_numpy(np.asarray(small, dtype=np.float32)) / 127.5 - 1
    grid = shades.view(THIRDS, 2, THIRDS, 2, 3).transpose(1, 2)
    return grid.reshape(-1, SHADES)
