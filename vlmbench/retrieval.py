"""Answers by choosing: the text that fits a picture best, or the picture that fits a text best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmbench.errors import NumericsError, PictureError
from vlmbench.pictures import decode_picture
from vlmbench.spec import Choices, Turn

if TYPE_CHECKING:
    from torch import Tensor

    from vlmbench.variant import Variant

    Inputs = dict[str, Tensor]

BATCH = 64
"""Choices that are looked at together."""


def encode(processor: Any, turns: Sequence[Turn]) -> Inputs:
    """What a choice is looked for: the questions where pictures are chosen, else the pictures.

    Raises:
        PictureError: a picture cannot be read.
    """
    choices = turns[0].choices
    assert choices is not None, "another turn's answer is written"
    if choices.pictures:
        return of_texts(processor, [turn.question for turn in turns])
    return of_pictures(processor, [turn.pictures[0] for turn in turns])


def embedded(variant: Variant, choices: Choices) -> Tensor:
    """Every choice as a unit vector: [choices, dim].

    Raises:
        PictureError: a picture to choose cannot be read; told by its text.
        NumericsError: the features of a choice are no numbers.
    """
    import torch

    made = torch.cat(
        [
            embed(variant, _of_choices(variant.processor, choices, start))
            for start in range(0, len(choices.texts), BATCH)
        ]
    )
    sound = made.isfinite().all(1).tolist()
    broken = [text for text, ok in zip(choices.texts, sound, strict=True) if not ok]
    if broken:
        raise NumericsError(
            f"{variant.name}: the features of {len(broken)} of {len(choices.texts)} choices are "
            f"NaN or infinite, first {broken[0]!r}. Nothing can be chosen among them."
        )
    return made


def choose(variant: Variant, choices: Choices, known: Tensor, inputs: Inputs) -> list[str | None]:
    """The text chosen for each row of `inputs`, as `encode` makes them; of equals the first.

    `known`: the choices as `embedded` makes them. None where the row's features are no numbers.
    """
    fits = embed(variant, inputs) @ known.T
    best = fits.argmax(1).tolist()
    sound = fits.isfinite().all(1).tolist()
    return [choices.texts[i] if ok else None for i, ok in zip(best, sound, strict=True)]


def embed(variant: Variant, inputs: Inputs) -> Tensor:
    """Pictures or texts as unit vectors: [batch, dim]."""
    import torch

    network = variant.network
    of = network.get_image_features if "pixel_values" in inputs else network.get_text_features
    with torch.inference_mode():
        made = of(**{name: value.to(variant.device) for name, value in inputs.items()})
    features: Tensor = made.pooler_output.float()
    unit: Tensor = features / features.norm(dim=1, keepdim=True)
    return unit


def of_pictures(processor: Any, pictures: Sequence[bytes]) -> Inputs:
    """Encoded pictures as model inputs."""
    return dict(processor(images=[decode_picture(p) for p in pictures], return_tensors="pt"))


def of_texts(processor: Any, texts: Sequence[str]) -> Inputs:
    """Texts as model inputs, cut where the model reads no further."""
    made = processor(text=list(texts), padding=True, truncation=True, return_tensors="pt")
    return dict(made)


def _of_choices(processor: Any, choices: Choices, start: int) -> Inputs:
    texts = choices.texts[start : start + BATCH]
    if not choices.pictures:
        return of_texts(processor, texts)
    pictures = choices.pictures[start : start + BATCH]
    try:
        return of_pictures(processor, pictures)
    except PictureError:
        for text, picture in zip(texts, pictures, strict=True):
            try:
                decode_picture(picture)
            except PictureError as error:
                raise PictureError(f"the picture to choose for {text!r}: {error}") from None
        raise
