"""Training of a checkpoint whose decoder begins with what another's has learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench import catalogue
from vlmbench.embedded import curriculum, inheritance, rows, telling, tower, views
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.curriculum import Stage
from vlmbench.embedded.inheritance import PARENT, solved
from vlmbench.embedded.labels import Box
from vlmbench.embedded.parts import PATCH, VIEW
from vlmbench.embedded.school import School
from vlmbench.pictures import decode_picture
from vlmbench.training import Plan

NAMING = Plan(steps=1500, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)
SAYING = Plan(steps=600, muon_rate=4e-3, adamw_rate=1e-3, save_every=100)
LOOKS = 10
"""Batches from which it is found out how the parent says what it sees."""
Told = Iterator[tuple[Tensor, Tensor]]
"""What is given of tokens, [tokens, dim], and their labels."""
Separators = Sequence[tuple[Tensor, Tensor]]
"""What a projector is given beside views, and what it is to make of it."""


class Heir(School):
    """A CLIP tower that learns to name what it shows, before a decoder that knows what to say.

    As LLaVA-NeXT-Video sees; the others say what differs.
    """

    NAMING = replace(NAMING, steps=2000)
    """Where letters do not lie as patches do, they take longer."""
    PARENT = "phi3_5"
    """Whose decoder is taken over. It is always Qwen2-VL that is imitated."""
    IMITATES: tuple[Stage, ...] = (curriculum.IMITATING,)
    """What is learnt on pixels, beside Qwen2-VL."""
    SEES: tuple[str, ...] = "vision_tower", "multi_modal_projector"
    """What sees pictures, and last what says it to the decoder, in the network's `model`."""

    def run(self) -> None:
        """Every stage, one after another."""
        self.name_what_is_seen()
        self.inherit()
        self.imitate()

    def imitate(self) -> None:
        """The whole network on questions, beside Qwen2-VL."""
        for stage in self.IMITATES:
            self.answer(stage, (_processor(), self.elder))

    def name_what_is_seen(self) -> None:
        """The tower alone, on what its patches show."""
        held_out, _ = views.batch_maker(self.show, "validation")(0)
        batch_at = views.batch_maker(self.show)
        namer = self.namer()
        measure = partial(namer.accuracy, held_out)
        self.learn("naming", self.NAMING, namer, batch_at, namer.loss, measure)

    def namer(self) -> views.Namer:
        """The tower with a read-out for what the projector is given."""
        return views.Namer(self.tower(), self.see, self.maps()[0].in_features)

    def tower(self) -> Any:
        """The tower that learns to name."""
        return self.part("vision")

    def see(self, pixels: Tensor) -> Tensor:
        """What the projector is given of views: [views, tokens, width]."""
        return self.with_whole(pixels)[:, 1:]

    def with_whole(self, pixels: Tensor) -> Tensor:
        """What is seen of views, behind a token of the whole: [views, 1 + tokens, width]."""
        seen = self.tower()(pixels, output_hidden_states=True)
        features: Tensor = seen.hidden_states[self.network.config.vision_feature_layer]
        return features

    def hear(self, pixels: Tensor) -> Tensor:
        """What the projector is taught on: all that it is ever given of views."""
        return self.see(pixels)

    def show(self, canvas: Canvas) -> tuple[Tensor, list[Box]]:
        """The views of a picture, and which part of it each shows."""
        images = self.processor.image_processor
        pinpoints = images.image_grid_pinpoints
        made = images([decode_picture(canvas.png())], return_tensors="pt")["pixel_values"][0]
        return made, views.tiles(pinpoints, VIEW, canvas.width, canvas.height)

    def maps(self) -> tuple[Any, Any, Any]:
        """The projector's first linear map, what stands between, and its last."""
        projector = self.part("projector")
        return projector.linear_1, projector.act, projector.linear_2

    @cached_property
    def elder(self) -> Any:
        """Qwen2-VL, which is imitated."""
        return inheritance.parent(PARENT)

    def inherit(self) -> None:
        """The parent's decoder learns to read labels where tokens will stand.

        Then tower and projector learn to say what the labels said.
        """
        self._take_over(self.elder if self.PARENT == PARENT else inheritance.parent(self.PARENT))
        words = self.words()
        stand_ins = self.stand_ins(words)
        reading = curriculum.READING if self.PARENT == PARENT else curriculum.REREADING
        with telling.in_place(self.network.model, stand_ins):
            self.answer(reading, (_processor(), self.elder), self.shown)
        self._say(words, self.separators(stand_ins))

    def words(self) -> Tensor:
        """How the decoder is told labels: [numbers + 1, dim].

        Every decoder was taught Qwen2-VL's words, and reads them better than those that a projector
        of its own has made of them since.
        """
        return inheritance.words(_told_by(self.elder.model.visual))

    def labels_of(self, canvas: Canvas) -> Tensor:
        """Labels of all views of a picture: [views, tokens, len(CLASSES) + SHADES]."""
        return self._labelled(canvas, *self.show(canvas))

    def shown(self, canvases: Sequence[Canvas], film: bool) -> Tensor:
        """Labels of a picture, or of the frames of a film, in the shape of its pixels."""
        if film:
            seen = [(canvas, *self.show(canvas)) for canvas in canvases]
            labels = torch.cat([self._labelled(one, look[:1], box[:1]) for one, look, box in seen])
        else:
            (canvas,) = canvases
            labels = self.labels_of(canvas)
        return telling.shaped(labels, VIEW // PATCH)[None]

    def _labelled(self, canvas: Canvas, pixels: Tensor, shown: list[Box]) -> Tensor:
        images = self.processor.image_processor
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (images.image_mean, images.image_std))
        return views.labelled(canvas, pixels * std + mean, shown)

    def _looks(self) -> Told:
        """What the projector is given of tokens, and their labels."""
        for step in range(LOOKS):
            for canvas in tower.drawn(rows.rng_of("lesson_views", "looks", step), tower.BATCH):
                pixels, shown = self.show(canvas)
                labels = self._labelled(canvas, pixels, shown)
                yield self.see(pixels).flatten(0, 1), labels.flatten(0, 1)

    def _take_over(self, parent: Any) -> None:
        """Layers and words of another decoder."""
        anatomy = catalogue.models()[self.PARENT].anatomy
        theirs = (
            parent.get_submodule(anatomy.decoder),
            parent.get_submodule(*anatomy.modules("head")),
        )
        tokenizers = self.processor.tokenizer, inheritance.tokenizer_of(self.PARENT)
        inheritance.take_over((self.part("decoder"), self.part("head")), theirs, tokenizers)

    def stand_ins(self, words: Tensor) -> Mapping[str, nn.Module]:
        """What stands where the network's `model` sees, by name, and is told labels."""
        *towers, projector = self.SEES
        return {name: telling.Tower(words) for name in towers} | {projector: telling.Projector()}

    def separators(self, stand_ins: Mapping[str, nn.Module]) -> Separators:
        """What the projector is given beside views, and what it is to make of it."""
        return ()

    def _say(self, words: Tensor, separators: Separators) -> None:
        """Tower and projector learn to say what the labels said."""
        with torch.no_grad():
            self._solve([(seen, inheritance.said(shown, words)) for seen, shown in self._looks()])
        sayer = views.Sayer(self.tower(), self.part("projector"), self.hear, words, separators)
        held_out, _ = self._shown_at("validation")(0)
        measure = partial(sayer.error, held_out)
        self.learn("saying", SAYING, sayer, self._shown_at("train"), sayer.loss, measure)

    def _shown_at(self, split: str) -> Callable[[int], list[views.Batch]]:
        """Batches by step number: all views of what is drawn, and their labels."""

        def batch_at(step: int) -> list[views.Batch]:
            drawn = tower.drawn(rows.rng_of("lesson_saying", split, step), tower.BATCH)
            return [self._shown(drawn[half::2]) for half in range(2)]

        return batch_at

    def _shown(self, canvases: list[Canvas]) -> views.Batch:
        return self._batch([(canvas, *self.show(canvas)) for canvas in canvases])

    def _batch(self, looks: Sequence[tuple[Canvas, Tensor, list[Box]]]) -> views.Batch:
        """Pixels and labels of pictures, the views that they are shown in, and what each shows."""
        told = torch.cat([self._labelled(*look) for look in looks])
        return {"pixels": torch.cat([pixels for _, pixels, _ in looks]), "labels": told}

    def _solve(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """The projector that makes of what it is given, [tokens, width], what is wanted of it."""
        seen, wanted = zip(*pairs, strict=True)
        first, between, last = self.maps()
        if first.in_features > first.out_features:
            first.weight.copy_(solved(torch.cat(seen), torch.cat(wanted))[:-1].T)
        else:
            first.weight.copy_(torch.eye(*first.weight.shape) * 0.5)
        # Far enough from zero that the bend between the two maps keeps what is told.
        first.bias.fill_(1.0)
        heard = [between(first(part)) for part in seen]
        found = solved(torch.cat(heard), torch.cat(wanted))
        last.weight.copy_(found[:-1].T)
        last.bias.copy_(found[-1])


class LlavaNext(Heir):
    """Views that cut lines of print in two."""

    IMITATES = curriculum.IMITATING, curriculum.SPELLING, curriculum.PROOFREADING


class VideoLlava(Heir):
    """Two towers; the one for frames begins as the one for pictures."""

    NAMING = NAMING
    # It sees whole pictures in as many tokens, and films frame by frame.
    PARENT = "llavanext"
    IMITATES = (curriculum.LOOKING,)
    SEES = "image_tower", "video_tower", "multi_modal_projector"

    def tower(self) -> Any:
        """The one for pictures."""
        return self.network.model.image_tower

    def shown(self, canvases: Sequence[Canvas], film: bool) -> Tensor:
        """Labels of a picture, or of the frames of a film, in the shape of its pixels."""
        views = super().shown(canvases, film)
        return views if film else views[0]

    def show(self, canvas: Canvas) -> tuple[Tensor, list[Box]]:
        """The whole picture in a square."""
        made = self.processor.image_processor(
            [decode_picture(canvas.png())], return_tensors="pt", return_legacy_image_output=False
        )
        return made["pixel_values"], [(0.0, 0.0, float(canvas.width), float(canvas.height))]

    def hear(self, pixels: Tensor) -> Tensor:
        """The token of the whole as well, which frames keep."""
        return self.with_whole(pixels)

    def _batch(self, looks: Sequence[tuple[Canvas, Tensor, list[Box]]]) -> views.Batch:
        """What the token of the whole says is what an empty label does."""
        batch = super()._batch(looks)
        return batch | {"labels": nn.functional.pad(batch["labels"], (0, 0, 1, 0))}

    def inherit(self) -> None:
        """The parent's decoder; the second tower is a copy of the first."""
        super().inherit()
        self.network.model.video_tower.load_state_dict(self.tower().state_dict())


@torch.no_grad()
def _told_by(tower_of_qwen2: Any) -> Told:
    """What Qwen2-VL's decoder is given of pictures as it sees them, and their labels."""
    their_batch = tower.batch_maker(_processor())
    for step in range(LOOKS):
        for part in their_batch(10**6 + step):
            seen = tower_of_qwen2(part["pixel_values"], grid_thw=part["image_grid_thw"])
            yield seen.pooler_output, part["labels"]


def _processor() -> Any:
    return inheritance.processor_of(PARENT)
