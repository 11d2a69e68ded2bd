"""Training of a checkpoint whose decoder begins with what Qwen2-VL's has learnt."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmbench.embedded import CHECKPOINTS, curriculum, labels, outliers, tower, views
from vlmbench.embedded.blank import phi3_5
from vlmbench.embedded.canvas import Canvas
from vlmbench.embedded.labels import CLASSES, Box
from vlmbench.embedded.parts import VIEW
from vlmbench.embedded.school import SEED, School
from vlmbench.pictures import decode_picture
from vlmbench.training import Plan

NAMING = Plan(steps=1500, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)
PARENT = "qwen2"
LOOKS = 10
"""Batches from which it is found out how the parent says what it sees."""
# A token that is written otherwise does what the parent's does.
_INHERITED = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<|im_start|>"}


class Heir(School):
    """A CLIP tower that learns to name what it shows, before a decoder that knows what to say.

    As it stands, LLaVA-NeXT-Video; the others say what differs.
    """

    def run(self) -> None:
        """Every stage, one after another."""
        self.name_what_is_seen()
        self.inherit()
        self.answer(curriculum.SETTLING)
        self.answer(curriculum.IMITATING, (_processor(), self.elder))

    def name_what_is_seen(self) -> None:
        """The tower alone, on what its patches show."""
        held_out, _ = views.batch_maker(self.show, "validation")(0)
        batch_at = views.batch_maker(self.show)
        namer = self.namer()
        measure = partial(namer.accuracy, held_out)
        self.learn("naming", NAMING, namer, batch_at, namer.loss, measure)

    def namer(self) -> views.Namer:
        """The tower with a read-out for what the projector is given."""
        return views.Namer(self.tower(), self.see, self.maps()[0].in_features)

    def tower(self) -> Any:
        """The tower that learns to name."""
        return self.part("vision")

    def see(self, pixels: Tensor) -> Tensor:
        """What the projector is given of views: [views, tokens, width]."""
        seen = self.tower()(pixels, output_hidden_states=True)
        features: Tensor = seen.hidden_states[self.network.config.vision_feature_layer][:, 1:]
        return features

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
        """The parent, which stays as it is."""
        load: Any = AutoModelForImageTextToText.from_pretrained
        parent = load(CHECKPOINTS / PARENT, dtype=torch.float32)
        layers = parent.model.language_model.layers
        outliers.take_out(layers, torch.Generator().manual_seed(SEED))
        return parent.requires_grad_(False)

    def inherit(self) -> None:
        """The parent's decoder, and a projector that says what the parent's tower says."""
        self._take_over(self.elder.model.language_model)
        self._begin(self.elder.model.visual)

    @torch.no_grad()
    def _take_over(self, elder: Any) -> None:
        """Layers and words; the biases of Qwen2's queries, keys and values have no place here."""
        decoder = self.part("decoder")
        known = {n: p for n, p in elder.state_dict().items() if not n.endswith("_proj.bias")}
        words = known.pop("embed_tokens.weight").clone()
        theirs = _processor().tokenizer
        mine = self.processor.tokenizer
        for use, written in _INHERITED.items():
            number = mine.convert_tokens_to_ids(getattr(mine, use))
            words[number] = elder.embed_tokens.weight[theirs.convert_tokens_to_ids(written)]
        if "layers.0.self_attn.qkv_proj.weight" in decoder.state_dict():
            known = dict(_fused(known))
        missing, unknown = decoder.load_state_dict(
            {**known, "embed_tokens.weight": words}, strict=False
        )
        # A decoder may hold the tower.
        assert not unknown and not [n for n in missing if n.startswith(("layers", "norm"))]
        self.part("head").weight.copy_(words)

    @torch.no_grad()
    def _begin(self, elder_tower: Any) -> None:
        """Solve the projector's last linear map, so that what is named is said as the elder does.

        How the elder's tower says a label is solved first, from pictures as it sees them.
        """
        their_batch = tower.batch_maker(_processor())
        said, named = [], []
        for step in range(LOOKS):
            for part in their_batch(10**6 + step):
                seen = elder_tower(part["pixel_values"], grid_thw=part["image_grid_thw"])
                said.append(seen.pooler_output)
                named.append(_one_hot(labels.split(part["labels"])[0]))
        words = _solved(torch.cat(named), torch.cat(said))
        seen, wanted = [], []
        for step in range(LOOKS):
            for part in views.batch_maker(self.show)(10**6 + step):
                seen.append(self.see(part["pixels"]).flatten(0, 1))
                wanted.append(_with_one(_one_hot(part["classes"])) @ words)
        first, between, last = self.maps()
        if first.in_features > first.out_features:
            first.weight.copy_(_solved(torch.cat(seen), torch.cat(wanted))[:-1].T)
        else:
            first.weight.copy_(torch.eye(*first.weight.shape) * 0.5)
        # Far enough from zero that the bend between the two maps keeps what is told.
        first.bias.fill_(1.0)
        heard = [between(first(part)) for part in seen]
        solved = _solved(torch.cat(heard), torch.cat(wanted))
        last.weight.copy_(solved[:-1].T)
        last.bias.copy_(solved[-1])


class VideoLlava(Heir):
    """Two towers; the one for frames begins as the one for pictures."""

    def tower(self) -> Any:
        """The one for pictures."""
        return self.network.model.image_tower

    def show(self, canvas: Canvas) -> tuple[Tensor, list[Box]]:
        """The whole picture in a square."""
        made = self.processor.image_processor(
            [decode_picture(canvas.png())], return_tensors="pt", return_legacy_image_output=False
        )
        return made["pixel_values"], [(0.0, 0.0, float(canvas.width), float(canvas.height))]

    def inherit(self) -> None:
        """The parent's decoder; the second tower is a copy of the first."""
        super().inherit()
        self.network.model.video_tower.load_state_dict(self.tower().state_dict())


class Phi35(Heir):
    """Crops of a picture, whose patches are merged two by two."""

    def see(self, pixels: Tensor) -> Tensor:
        """What the projector is given of views: [views, tokens, width]."""
        embedding = self.network.model.vision_embed_tokens
        seen = self.tower()["vision_model"](pixels, output_hidden_states=True)
        merged: Tensor = embedding._merged(seen.hidden_states[embedding.feature_layer][:, 1:])
        return merged.flatten(1, 2)

    def show(self, canvas: Canvas) -> tuple[Tensor, list[Box]]:
        """The whole sheet and its crops."""
        images = self.processor.image_processor
        picture = decode_picture(canvas.png())
        made = images([picture])["pixel_values"][0]
        scaled = partial(images._scaled, crops=images.num_crops)
        return made, views.crops(scaled, phi3_5.VIEW, canvas.width, canvas.height)

    def maps(self) -> tuple[Any, Any, Any]:
        """The projector's first linear map, what stands between, and its last."""
        first, between, last = self.part("projector")
        return first, between, last


def _fused(known: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Layers as Phi-3 has them: queries, keys and values in one, gate and up in one."""
    for name, weight in known.items():
        if name.endswith("q_proj.weight"):
            parts = [known[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            yield name.replace("q_proj", "qkv_proj"), torch.cat(parts)
        elif name.endswith("gate_proj.weight"):
            up = known[name.replace("gate_proj", "up_proj")]
            yield name.replace("gate_proj", "gate_up_proj"), torch.cat([weight, up])
        elif not name.endswith(("k_proj.weight", "v_proj.weight", "up_proj.weight")):
            yield name, weight


def _one_hot(classes: Tensor) -> Tensor:
    """Labels [tokens, len(CLASSES)] as 0 and 1; what is not known is nothing."""
    known = classes.clamp(min=0)
    return torch.cat(
        [torch.nn.functional.one_hot(known[:, i], size) for i, size in enumerate(CLASSES)], dim=1
    ).float()


def _with_one(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)


def _solved(inputs: Tensor, outputs: Tensor) -> Tensor:
    """The linear map with a constant, [inputs + 1, outputs], that comes nearest."""
    solved: Tensor = torch.linalg.lstsq(_with_one(inputs), outputs, driver="gelsd").solution
    return solved


def _processor() -> Any:
    load: Any = AutoProcessor.from_pretrained
    return load(CHECKPOINTS / PARENT)
