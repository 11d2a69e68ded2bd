"""Idefics2's lessons: to name what every patch of a picture shows, then to say it in 64 tokens."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.embedded import SIDE, clips, inheritance, labels, pages, rows
from vlmbench.embedded.blank.idefics2 import LATENTS
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.labels import CLASSES, SHADES, ReadOut
from vlmbench.embedded.tower import BATCH, drawn
from vlmbench.pictures import decode_picture

Batch = dict[str, Tensor]
DOWN, ACROSS = 7, 9
"""Rows and columns of patches that the latents stand for, row by row; one latent is left over."""
STRIPS = 2
"""How many pages of a batch are cut down to a few lines."""
FRAMES = 6
"""How many frames of films are among them: things stand there where they do not in scenes."""
UNHEARD = 4
"""Channels in which a latent may be as loud as it likes."""


class Namer(ReadOut):
    """Idefics2's tower, on what its patches show and in which row and column each is.

    A patch is given its place as a share of the picture: without this lesson it would not know how
    many stand before it.
    """

    def __init__(self, tower: Any) -> None:
        width = tower.config.hidden_size
        super().__init__(tower, width)
        self.places = nn.ModuleList(nn.Linear(width, ACROSS) for _ in range(2))

    def forward(self, batch: Batch) -> Tensor:
        """What the tower makes of the patches that pictures fill: [patches, width]."""
        shown = filled(batch["pixel_attention_mask"])
        seen = self.tower(batch["pixel_values"], patch_attention_mask=shown).last_hidden_state
        features: Tensor = seen[shown.flatten(1)]
        return features

    def loss(self, batch: Batch) -> Tensor:
        """What is named wrong, the error of the shades, and what is taken to be elsewhere."""
        features = self(batch)
        lost = [
            nn.functional.cross_entropy(head(features), batch["places"][:, 1 + i])
            for i, head in enumerate(self.places)
        ]
        return self.misnamed(features, *labels.split(batch["labels"])) + torch.stack(lost).sum()

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, float]:
        """Share of the characters, of the shapes and colours, and of the places named right."""
        features = self(batch)
        found = torch.stack([head(features).argmax(-1) for head in self.places], dim=1)
        right = (found == batch["places"][:, 1:]).all(1)
        named = self.named_right(features, labels.split(batch["labels"])[0])
        return {**named, "places": float(right.float().mean())}


class Gatherer(nn.Module):
    """Idefics2's tower and perceiver, whose latents learn to say what a decoder understands.

    Latent `ACROSS * row + column` stands for the patch of that row and column, whatever the size
    of the picture: so a patch's neighbours are as far from it in every picture. Where a picture
    does not reach, it says what it says of a grey patch.
    """

    def __init__(self, model: Any, words: Tensor) -> None:
        """`words` [numbers + 1, dim]: how each label is said, the last row what is always said."""
        super().__init__()
        self.tower, self.connector = model.vision_model, model.connector
        self.words = nn.Buffer(words)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the decoder is given, [pictures, latents, dim], and what it is gathered from.

        The latter is [pictures, patches, dim], what the perceiver is given.
        """
        shown = filled(batch["pixel_attention_mask"])
        seen = self.tower(batch["pixel_values"], patch_attention_mask=shown).last_hidden_state
        context = self.connector.modality_projection(seen)
        perceiver = self.connector.perceiver_resampler
        return perceiver(context=context, attention_mask=shown.flatten(1)), context

    def loss(self, batch: Batch) -> Tensor:
        """What is said wrong, and what latents look at that they do not stand for.

        Where to look is not found from what is said wrong.
        """
        said, context = self(batch)
        return self._misspoken(said, batch) + self._mislooked(context, batch)

    def _misspoken(self, said: Tensor, batch: Batch) -> Tensor:
        shown = held(batch["labels"], batch["places"]).flatten(0, 1)
        wanted = inheritance.said(shown, self.words)
        return inheritance.misspoken(said.flatten(0, 1), wanted, shown)

    def _mislooked(self, context: Tensor, batch: Batch) -> Tensor:
        """Cross entropy of where every head of the latents looks among the patches."""
        perceiver = self.connector.perceiver_resampler
        layer = perceiver.layers[0]
        attention = layer.self_attn
        queries = attention.q_proj(layer.input_latents_norm(perceiver.latents))
        keys = attention.k_proj(layer.input_context_norm(context))
        queries = queries.view(len(queries), attention.num_key_value_heads, -1, attention.head_dim)
        keys = keys.view(*keys.shape[:2], attention.num_key_value_heads, attention.head_dim)
        looks = torch.einsum("lghd,npgd->nlpgh", queries, keys) * attention.scaling
        shown = filled(batch["pixel_attention_mask"])
        looks = looks.masked_fill(~shown.flatten(1)[:, None, :, None, None], -torch.inf)
        picture, row, column = batch["places"].unbind(1)
        due = looks[picture, ACROSS * row + column].flatten(2)
        sought = (shown.shape[2] * row + column)[:, None].expand(-1, due.shape[2])
        return nn.functional.cross_entropy(due, sought)

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, float]:
        """The share of the variance that is missed, and how far looks go astray, in nats."""
        said, context = self(batch)
        missed = float(self._misspoken(said, batch))
        return {"unexplained": missed, "astray": float(self._mislooked(context, batch))}


def held(labels: Tensor, places: Tensor) -> Tensor:
    """The labels that latents stand for: [pictures, LATENTS, len(CLASSES) + SHADES]."""
    picture, row, column = places.unbind(1)
    shown = torch.zeros(int(picture.max()) + 1, LATENTS, len(CLASSES) + SHADES)
    shown[picture, ACROSS * row + column] = labels
    return shown


def audible(words: Tensor, shown: Tensor) -> Tensor:
    """Words [numbers + 1, dim] without the channels that say least of `shown` [latents, numbers].

    The perceiver's last norm makes every token as loud as any other. What a quiet one does not need
    goes into these channels, which are not heard.
    """
    loud = (inheritance.said(shown, words).square() * inheritance.weights(shown)[:, None]).sum(0)
    heard = words.clone()
    heard[:, loud.argsort()[:UNHEARD]] = 0.0
    return heard


@torch.no_grad()
def begin(connector: Any, words: Tensor, shown: Tensor, generator: torch.Generator) -> None:
    """Latents that differ, and a last norm that lets through nearly the loudest of what is said.

    `words` are audible; `shown` [latents, numbers] is what is said of.
    """
    perceiver = connector.perceiver_resampler
    perceiver.latents.normal_(std=0.1, generator=generator)
    loudness = inheritance.said(shown, words).square().mean(1).sqrt()
    perceiver.norm.weight.fill_(float(loudness.quantile(0.99)))
    perceiver.norm.weight[(words == 0).all(0)] = 0.0


def filled(mask: Tensor) -> Tensor:
    """Which patches [pictures, rows, columns] are filled, of `mask` [pictures, height, width]."""
    return mask.bool().unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE).all(-1).all(-1)


def batch_maker(processor: Any, split: str = "train") -> Callable[[int], list[Batch]]:
    """Batches by step number: pages and parts of them; scenes, diagrams and frames."""

    def batch_at(step: int) -> list[Batch]:
        rng = rows.rng_of("lesson_native", split, step)
        canvases = drawn(rng, BATCH)
        canvases[:STRIPS] = [_strip(page, rng) for page in canvases[:STRIPS]]
        canvases[-FRAMES:] = [clips.draw(rng).canvas(rng.random()) for _ in range(FRAMES)]
        half = BATCH // 2
        return [encode(processor, canvases[:half]), encode(processor, canvases[half:])]

    return batch_at


def _strip(page: Canvas, rng: Random) -> Canvas:
    lines = rng.randint(1, 3)
    first = rng.randint(0, pages.HEIGHT // pages.LINE - lines)
    return page.crop(0, pages.LINE * first, pages.WIDTH, pages.LINE * lines)


def encode(processor: Any, canvases: list[Canvas]) -> Batch:
    """Pictures as the processor makes them; `labels` and `places` of the patches they fill.

    `pixel_values` [pictures, 3, height, width] and `pixel_attention_mask` [pictures, height,
    width], padded on the right and below; `places` [patches, 3] picture, row and column.
    """
    pictures = [[decode_picture(canvas.png())] for canvas in canvases]
    made = processor.image_processor(images=pictures, return_tensors="pt")
    mask = made["pixel_attention_mask"][:, 0]
    return {
        "pixel_values": made["pixel_values"][:, 0],
        "pixel_attention_mask": mask,
        "labels": torch.cat([labels.of(canvas) for canvas in canvases]),
        "places": filled(mask).nonzero(),
    }
