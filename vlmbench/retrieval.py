"""Answers by choosing: the text that fits a picture best, or the picture that fits a text best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlmbench.pictures import decode_picture
from vlmbench.spec import Choices, Turn

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmbench.variant import Variant

    Inputs = dict[str, Tensor]

BATCH = 64
"""Choices that are looked at together."""
_known: WeakKeyDictionary[nn.Module, dict[Choices, Tensor]] = WeakKeyDictionary()


def encode(processor: Any, turns: Sequence[Turn]) -> Inputs:
    """What a choice is looked for: the questions where pictures are chosen, else the pictures.

    Raises:
        PictureError: a picture cannot be read.
    """
    choices = turns[0].choices
    assert choices is not None, "another turn's answer is written"
    if choices.pictures:
        return _texts(processor, [turn.question for turn in turns])
    return _pictures(processor, [turn.pictures[0] for turn in turns])


def choose(variant: Variant, choices: Choices, inputs: Inputs) -> list[str | None]:
    """The text chosen for each row of `inputs`, as `encode` makes them; of equals the first.

    None where the row's features are no numbers.
    """
    fits = similarities(variant, choices, inputs)
    best = fits.argmax(1).tolist()
    sound = fits.isfinite().all(1).tolist()
    return [choices.texts[i] if ok else None for i, ok in zip(best, sound, strict=True)]


def similarities(variant: Variant, choices: Choices, inputs: Inputs) -> Tensor:
    """Cosine of each row of `inputs` with each choice: [rows, choices], -1 to 1."""
    fits: Tensor = _embedded(variant, inputs) @ _of(variant, choices).T
    return fits


def _of(variant: Variant, choices: Choices) -> Tensor:
    """Every choice, embedded: [choices, dim]."""
    import torch

    known = _known.setdefault(variant.network, {})
    if choices not in known:
        processor = variant.processor
        parts = [
            _pictures(processor, choices.pictures[start : start + BATCH])
            if choices.pictures
            else _texts(processor, choices.texts[start : start + BATCH])
            for start in range(0, len(choices.texts), BATCH)
        ]
        known[choices] = torch.cat([_embedded(variant, part) for part in parts])
    return known[choices]


def _embedded(variant: Variant, inputs: Inputs) -> Tensor:
    """Unit vectors [batch, dim] of pictures or texts."""
    import torch

    network = variant.network
    of = network.get_image_features if "pixel_values" in inputs else network.get_text_features
    with torch.inference_mode():
        made = of(**{name: value.to(variant.device) for name, value in inputs.items()})
    features: Tensor = made.pooler_output.float()
    unit: Tensor = features / features.norm(dim=1, keepdim=True)
    return unit


def _pictures(processor: Any, pictures: Sequence[bytes]) -> Inputs:
    return dict(processor(images=[decode_picture(p) for p in pictures], return_tensors="pt"))


def _texts(processor: Any, texts: Sequence[str]) -> Inputs:
    made = processor(text=list(texts), padding=True, truncation=True, return_tensors="pt")
    return dict(made)
