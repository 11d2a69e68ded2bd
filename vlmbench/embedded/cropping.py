"""Phi-3.5's training: an heir that sees crops of a picture, and reads before it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.architectures.phi3_v import Phi3VImageEmbedding, in_rows
from vlmbench.embedded import inheritance, views
from vlmbench.embedded.blank import phi3_5
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.heir import NAMING, Heir, Separators
from vlmbench.embedded.inheritance import PARENT
from vlmbench.embedded.labels import Box
from vlmbench.pictures import decode_picture

_SIGHT = "vision_embed_tokens"


class Phi35(Heir):
    """Crops of a picture, whose patches are merged two by two, in rows that a separator ends."""

    NAMING = NAMING
    PARENT = PARENT

    def see(self, pixels: Tensor) -> Tensor:
        """What the projector is given of views: [views, tokens, width]."""
        embedding = self.network.model.vision_embed_tokens
        seen = self.tower()["vision_model"](pixels, output_hidden_states=True)
        merged: Tensor = embedding._merged(seen.hidden_states[embedding.feature_layer][:, 1:])
        return merged.flatten(1, 2)

    def show(self, canvas: Canvas, alone: bool = True) -> tuple[Tensor, list[Box]]:
        """The whole sheet and its crops, of which one of several pictures has fewer."""
        images = self.processor.image_processor
        made = images([decode_picture(canvas.png())], alone=[alone])["pixel_values"][0]
        crops = images.num_crops if alone else images.crops_of_several
        scaled = partial(images._scaled, crops=crops)
        return made, views.crops(scaled, phi3_5.VIEW, canvas.width, canvas.height)

    def maps(self) -> tuple[Any, Any, Any]:
        """The projector's first linear map, what stands between, and its last."""
        first, between, last = self.part("projector")
        return first, between, last

    def shown(self, canvases: Sequence[Canvas], film: bool) -> Tensor:
        """Labels of all views of a picture, or of pictures that are frames."""
        alone = len(canvases) == 1
        return torch.stack([self._labelled(one, *self.show(one, alone)) for one in canvases])

    def _shown(self, canvases: list[Canvas]) -> views.Batch:
        """A third of the pictures are cut as those that are one of several."""
        looks = [(one, *self.show(one, i % 3 > 0)) for i, one in enumerate(canvases)]
        return self._batch(looks)

    def stand_ins(self, words: Tensor) -> Mapping[str, nn.Module]:
        """What stands where the network's `model` sees, by name, and is told labels."""
        return {_SIGHT: Told(self.network.model.vision_embed_tokens, words)}

    def separators(self, stand_ins: Mapping[str, nn.Module]) -> Separators:
        """What the projector is given beside views, and what it is to make of it."""
        sight: Any = self.network.model.vision_embed_tokens
        heard: Any = stand_ins[_SIGHT]
        return [(sight.sub_GN, heard.sub_GN), (sight.glb_GN, heard.glb_GN)]


class Told(nn.Module):
    """Stands where pictures are embedded, and is told what they show in place of pixels.

    Separators are learnt; what labels are called stays as it is.
    """

    def __init__(self, embedding: Phi3VImageEmbedding, words: Tensor) -> None:
        super().__init__()
        self.side = embedding.side
        self.W = nn.Parameter(words, requires_grad=False)
        width = words.shape[1]
        self.sub_GN = nn.Parameter(torch.randn(1, 1, 1, width) * 0.05)
        self.glb_GN = nn.Parameter(torch.randn(1, 1, width) * 0.05)

    def forward(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """As `Phi3VImageEmbedding`, of labels [pictures, views, tokens, numbers]."""
        parts = []
        for labels, size in zip(pixel_values, image_sizes, strict=True):
            height, width = (int(edge) // phi3_5.VIEW for edge in size)
            shown = labels[: 1 + height * width]
            said = inheritance.said(shown.flatten(0, 1), self.W)
            views = said.view(len(shown), self.side, self.side, -1)
            parts += [
                in_rows(views[1:], height, width, self.sub_GN),
                self.glb_GN[0],
                in_rows(views[:1], 1, 1, self.sub_GN),
            ]
        return torch.cat(parts)
