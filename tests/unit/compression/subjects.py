"""Networks of every architecture to be compressed, and a few samples for each to learn from."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any, NamedTuple

import answered
import checkpoints
import torch
from transformers import AutoProcessor

from vlmbench import architectures, catalogue
from vlmbench.anatomy import Anatomy
from vlmbench.layers import shaped
from vlmbench.models.clip import CLIP
from vlmbench.prompting import IGNORED
from vlmbench.spec import Maker

NAMES = checkpoints.NAMES
WRITERS = [name for name in NAMES if name != CLIP.name]


class Given(NamedTuple):
    """Train data that is there already."""

    inputs: list[dict[str, Any]]

    def batches(self, mixture: object, size: int = 1) -> list[dict[str, Any]]:
        return self.inputs


class Subject(NamedTuple):
    """A network as it came, never to be changed."""

    cls: Any
    anatomy: Anatomy
    network: Any
    data: Given
    padded: dict[str, Any]
    """Two samples of other lengths in one batch."""

    def made(self, recipe: Maker) -> Any:
        """A copy that `recipe` has changed."""
        network = copy.deepcopy(self.network)
        recipe.make(network, self.anatomy, self.data)
        return network

    def reloaded(self, network: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
        """What `save_pretrained` writes, loaded again, and what the loader has to report."""
        network.save_pretrained(folder)
        again, report = shaped(self.cls).from_pretrained(
            folder, dtype="float32", output_loading_info=True
        )
        return again.eval(), report


class Subjects:
    """Subjects by name, each loaded once, and what recipes make of them."""

    def __init__(self, folder: Path) -> None:
        self.of = functools.cache(functools.partial(_loaded, folder))
        self.made = functools.cache(lambda name, recipe: self.of(name).made(recipe))


def _loaded(folder: Path, name: str) -> Subject:
    model, source = catalogue.models()[name], checkpoints.source_of(name, folder)
    cls = architectures.find(model.architecture)
    network = cls.from_pretrained(source.location, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(source.location)
    processor.chat_template = getattr(processor, "chat_template", None) or model.template

    given = functools.partial(answered.inputs, model, processor)
    data = Given([given(i) for i in range(len(answered.SAID))])
    return Subject(cls, model.anatomy, network, data, given(0, 3))


@torch.no_grad()
def seen(network: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What the inputs are to a network: logits, or what it chooses by."""
    made = network(**{name: value for name, value in inputs.items() if name != "labels"})
    shown = made.logits if "logits" in made else made.logits_per_image
    assert isinstance(shown, torch.Tensor)
    return shown


@torch.no_grad()
def generated(network: Any, inputs: dict[str, Any], *, use_cache: bool) -> list[list[int]]:
    """Eight tokens, greedily, after what is asked."""
    answer = int((inputs["labels"] != IGNORED).sum())
    length = inputs["input_ids"].shape[1] - answer
    asked = {
        name: value[:, :length] if value.shape == inputs["labels"].shape else value
        for name, value in inputs.items()
        if name != "labels"
    }
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    ids = network.generate(**asked, **options, use_cache=use_cache)
    made: list[list[int]] = ids[:, length:].tolist()
    return made
