"""Training of a checkpoint whose decoder begins with what Qwen2-VL's has learnt."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmbench.embedded import CHECKPOINTS, curriculum, labels, outliers, tower, views
from vlmbench.embedded.labels import CLASSES
from vlmbench.embedded.school import SEED, School
from vlmbench.training import Plan

NAMING = Plan(steps=1500, muon_rate=6e-3, adamw_rate=2e-3, save_every=100)
PARENT = "qwen2"
# A token that is written otherwise does what the parent's does.
_INHERITED = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<|im_start|>"}


class Heir(School):
    """A CLIP tower that learns to name what it shows, before a decoder that knows what to say."""

    def run(self) -> None:
        """Every stage, one after another."""
        self.name_what_is_seen()
        self.inherit()
        self.answer(curriculum.SETTLING)

    def name_what_is_seen(self) -> None:
        """The tower alone, on what its patches show."""
        held_out, _ = views.batch_maker(self.processor, "validation")(0)
        batch_at = views.batch_maker(self.processor)
        namer = self._namer()
        measure = partial(namer.accuracy, held_out)
        self.learn("naming", NAMING, namer, batch_at, namer.loss, measure)

    def inherit(self) -> None:
        """The parent's decoder, and a projector that says what the parent's tower says."""
        parent: Any = AutoModelForImageTextToText.from_pretrained(
            CHECKPOINTS / PARENT, dtype=torch.float32
        )
        elder: Any = parent.model.language_model
        outliers.take_out(elder.layers, torch.Generator().manual_seed(SEED))
        self._take_over(elder)
        self._begin(parent.model.visual)

    def _namer(self) -> views.Namer:
        return views.Namer(self.part("vision"), self.network.config.vision_feature_layer)

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
            words[number] = known_word(elder, theirs, written)
        decoder.load_state_dict({**known, "embed_tokens.weight": words})
        self.part("head").weight.copy_(words)

    @torch.no_grad()
    def _begin(self, elder_tower: Any) -> None:
        """Solve the projector's last linear map, so that what is named is said as the elder does.

        How the elder's tower says a label is solved first, from pictures as it sees them.
        """
        their_batch = tower.batch_maker(_processor())
        said, named = [], []
        for step in range(10):
            for part in their_batch(10**6 + step):
                seen = elder_tower(part["pixel_values"], grid_thw=part["image_grid_thw"])
                said.append(seen.pooler_output)
                named.append(_one_hot(labels.split(part["labels"])[0]))
        words = _solved(torch.cat(named), torch.cat(said))
        namer, projector = self._namer(), self.part("projector")
        projector.linear_1.weight.copy_(torch.eye(*projector.linear_1.weight.shape) * 0.5)
        projector.linear_1.bias.fill_(1.0)
        heard, wanted = [], []
        for step in range(10):
            for part in views.batch_maker(self.processor)(10**6 + step):
                features = namer.see(part["pixels"]).flatten(0, 1)
                heard.append(projector.act(projector.linear_1(features)))
                wanted.append(_with_one(_one_hot(part["classes"])) @ words)
        solved = _solved(torch.cat(heard), torch.cat(wanted))
        projector.linear_2.weight.copy_(solved[:-1].T)
        projector.linear_2.bias.copy_(solved[-1])
        error = (_with_one(torch.cat(heard)) @ solved - torch.cat(wanted)).square().mean()
        print(f"projector: {float(error / torch.cat(wanted).var(0).mean()):.3f} unexplained")


def known_word(elder: Any, tokenizer: Any, written: str) -> Tensor:
    """What a token means to the elder."""
    word: Tensor = elder.embed_tokens.weight[tokenizer.convert_tokens_to_ids(written)]
    return word


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
