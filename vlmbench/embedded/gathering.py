"""Idefics2's training: an heir whose pictures keep their size and become as many tokens each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from math import isqrt

import torch
from torch import Tensor

from vlmbench.embedded import SIDE, curriculum, heir, labels, native, telling
from vlmbench.embedded.blank.idefics2 import LATENTS
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.heir import Heir, Separators
from vlmbench.embedded.school import SEED
from vlmbench.training import Plan

GATHERING = Plan(steps=900, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)


class Idefics2(Heir):
    """A tower that names what it sees, and a perceiver that learns to say it to the decoder."""

    SEES = "vision_model", "connector"
    IMITATES = curriculum.IMITATING, curriculum.TELLING, curriculum.CAPTIONING

    def name_what_is_seen(self) -> None:
        """The tower alone, on what its patches show."""
        self._look("naming", self.NAMING, native.Namer(self.tower()))

    def words(self) -> Tensor:
        """Those that a perceiver can say."""
        return native.audible(super().words(), self._latents)

    def imitate(self) -> None:
        """As others do, but for where latents look: Muon would move them whatever they are told."""
        self.part("projector").perceiver_resampler.latents.requires_grad_(False)
        super().imitate()

    @cached_property
    def _latents(self) -> Tensor:
        """What latents stand for in some pictures: [latents, numbers]."""
        batch_at = native.batch_maker(self.processor)
        looks = [part for step in range(heir.LOOKS) for part in batch_at(10**6 + step)]
        held = [native.held(part["labels"], part["places"]) for part in looks]
        return torch.cat([one.flatten(0, 1) for one in held])

    def _say(self, words: Tensor, separators: Separators) -> None:
        """Tower and perceiver learn to say what the labels said."""
        generator = torch.Generator().manual_seed(SEED)
        native.begin(self.part("projector"), words, self._latents, generator)
        self._look("gathering", GATHERING, native.Gatherer(self.network.model, words))

    def shown(self, canvases: Sequence[Canvas], film: bool) -> Tensor:
        """Labels of pictures, one or frames, as latents hold them, in the shape of their pixels."""
        return torch.cat([_held(canvas) for canvas in canvases])[None]

    def _look(self, name: str, plan: Plan, learner: native.Namer | native.Gatherer) -> None:
        """One stage on pictures alone; it is measured on pages, and on scenes and diagrams."""
        held_out = native.batch_maker(self.processor, "validation")(0)
        batch_at = native.batch_maker(self.processor)
        self.learn(name, plan, learner, batch_at, learner.loss, _both(learner.measure, held_out))


def _held(canvas: Canvas) -> Tensor:
    rows, columns = (torch.arange(edge // SIDE) for edge in (canvas.height, canvas.width))
    places = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), rows, columns)
    return telling.shaped(native.held(labels.of(canvas), places), isqrt(LATENTS))


def _both(
    measure: Callable[[native.Batch], dict[str, float]], held_out: list[native.Batch]
) -> Callable[[], dict[str, float]]:
    """What is measured on pages and on drawings, side by side."""
    pages, drawings = (partial(measure, batch) for batch in held_out)

    def both() -> dict[str, float]:
        return {f"{name} on pages": value for name, value in pages().items()} | {
            f"{name} on drawings": value for name, value in drawings().items()
        }

    return both
