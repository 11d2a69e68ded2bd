"""Answers by choosing: the text that fits a picture best, or the picture that fits a text best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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


def search(variant: Variant, text: str, folder: Path) -> tuple[list[tuple[float, Path]], int]:
    """Pictures of a folder by how well they fit a text, best first, and how many files are none.

    A fit is a cosine; a path is told from the folder on.

    Raises:
        NumericsError: what is made of the text or of a picture is no number.
    """
    wanted = embed(variant, of_texts(variant.processor, [text]))[0]
    fits: list[tuple[float, Path]] = []
    passed = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            inputs = of_pictures(variant.processor, [path.read_bytes()])
        except (OSError, PictureError):
            passed += 1
        else:
            fit = _numbers(variant, embed(variant, inputs) @ wanted, str(path))
            fits.append((float(fit), path.relative_to(folder)))
    return sorted(fits, key=lambda found: -found[0]), passed


def label(variant: Variant, picture: bytes, labels: Sequence[str]) -> list[float]:
    """How likely a picture is of each label, were it of one of them: zero-shot classification.

    Source: Radford et al., arXiv 2103.00020, 3.1.2.

    Raises:
        PictureError: the picture cannot be read.
        NumericsError: what is made of the picture or of a label is no number.
    """
    shown = embed(variant, of_pictures(variant.processor, [picture]))[0]
    fits = embed(variant, of_texts(variant.processor, labels)) @ shown
    scaled = (
        _numbers(variant, fits, "the picture and its labels") * variant.network.logit_scale.exp()
    )
    chances: list[float] = scaled.softmax(0).tolist()
    return chances


def _numbers(variant: Variant, fits: Tensor, what: str) -> Tensor:
    if not fits.isfinite().all():
        raise NumericsError(
            f"{variant.name}: the features of {what} are NaN or infinite. Nothing can be compared."
        )
    return fits


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
