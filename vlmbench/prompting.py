"""From turns to model inputs: the one place, for evaluation, calibration and training alike."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmbench.errors import PictureError
from vlmbench.spec import Dataset, Sample, Turn

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    Inputs = dict[str, torch.Tensor]

IGNORED = -100
"""Label of a token that takes no part in the loss."""


def turn(dataset: Dataset, sample: Sample) -> Turn:
    """What is said to a model for one sample of a data set."""
    return Turn(sample.pictures, sample.question, dataset.instruction)


def decode_picture(data: bytes) -> Image:
    """An encoded picture as RGB, turned upright by its EXIF orientation.

    Raises:
        PictureError: the bytes are no readable picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # names an object's address
        reason = "no known format" if unknown else error
        raise PictureError(
            f"a picture of {len(data)} bytes cannot be read ({reason}). Expected a complete image "
            "file (PNG, JPEG, ...); export it again."
        ) from None


def render(processor: Any, turn: Turn) -> str:
    """The turn in the checkpoint's own chat template, generation prompt included."""
    content: list[dict[str, str]] = []
    if turn.instruction:
        content.append({"type": "text", "text": turn.instruction})
    content += [{"type": "image"} for _ in turn.pictures]
    content.append({"type": "text", "text": _spoken(processor.tokenizer, turn.question)})
    messages = [{"role": "user", "content": content}]
    rendered = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(rendered)


def _spoken(tokenizer: Any, text: str) -> str:
    """Text that stays text: what spells a special token ("<|im_end|>") gets a space into it.

    Else a question could end its own turn or claim a picture that is not there. Lone surrogates,
    which no tokenizer takes, become "?".
    """
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text.encode(errors="replace").decode()


def encode(processor: Any, turns: Sequence[Turn]) -> Inputs:
    """A left-padded batch: `input_ids` and `attention_mask` [batch, tokens], and the pictures.

    Raises:
        PictureError: a picture cannot be read or is beyond the processor's limits.
    """
    texts = [render(processor, turn) for turn in turns]
    pictures = [decode_picture(data) for turn in turns for data in turn.pictures]
    try:
        batch = processor(
            text=texts,
            images=pictures or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
    except ValueError as error:
        sizes = ", ".join(f"{p.width}x{p.height}" for p in pictures)
        raise PictureError(
            f"the processor refuses a picture of {sizes} pixels: {error}. Crop or resize it."
        ) from None
    return dict(batch)


def encode_answered(processor: Any, turns: Sequence[Turn], answers: Sequence[str]) -> Inputs:
    """Prompts exactly as `encode` makes them, each followed by its answer and the end of turn.

    `labels` [batch, tokens] is the answer's tokens, IGNORED elsewhere. Answers are padded on the
    right, so that a prompt is the same tokens here and in evaluation.
    """
    import torch

    inputs = encode(processor, turns)
    tokenizer = processor.tokenizer
    spoken = [_spoken(tokenizer, answer) for answer in answers]
    # A tokenizer that begins every text with a special token must not begin an answer with it.
    bare = tokenizer(spoken, add_special_tokens=False)["input_ids"]
    ids = [[*tokens, tokenizer.eos_token_id] for tokens in bare]
    longest = max(map(len, ids))
    tail = torch.full((len(ids), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(tail)
    for row, tokens in enumerate(ids):
        tail[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    ignored = torch.full_like(inputs["input_ids"], IGNORED)
    labels = torch.cat([ignored, tail.masked_fill(mask == 0, IGNORED)], dim=1)
    tails = {"input_ids": tail, "attention_mask": mask, "mm_token_type_ids": torch.zeros_like(tail)}
    grown = {
        name: torch.cat([tensor, tails[name].to(tensor.dtype)], dim=1) if name in tails else tensor
        for name, tensor in inputs.items()
    }
    return {**grown, "labels": labels}
