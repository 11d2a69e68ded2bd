"""From turns to model inputs: the one place, for evaluation, calibration and training alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmbench import video
from vlmbench.errors import PictureError, VideoError
from vlmbench.pictures import decode_picture
from vlmbench.spec import Choices, Dataset, Model, Sample, Turn

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    Inputs = dict[str, torch.Tensor]

IGNORED = -100
"""Label of a token that takes no part in the loss."""
_PER_TOKEN = ("attention_mask", "mm_token_type_ids")


def turn(dataset: Dataset, sample: Sample, model: Model | None = None) -> Turn:
    """What is said to a model for one sample of a data set."""
    made = Turn(
        sample.pictures,
        sample.question,
        dataset.instruction,
        sample.clip,
        captions=dataset.captions,
    )
    return taken_by(model, made) if model else made


def turns(
    dataset: Dataset, asked: Iterable[Sample], model: Model, choices: Choices | None
) -> dict[str, Turn]:
    """What is said to a model for each sample, by name, and what it chooses its answers from."""
    return {s.id: replace(turn(dataset, s, model), choices=choices) for s in asked}


def taken_by(model: Model, turn: Turn) -> Turn:
    """The turn as the model takes one: its video, and whether it asks for a description."""
    if turn.captions and model.captions_unasked:
        turn = replace(turn, question="", instruction="")
    return replace(turn, watching=model.watching) if model.watching else turn


def render(processor: Any, turn: Turn, frames: int = 0) -> str:
    """The turn in the checkpoint's own chat template, generation prompt included.

    `frames`: of the turn's video, for a model that takes them as pictures.
    """
    content: list[dict[str, str]] = []
    if turn.instruction:
        content.append({"type": "text", "text": turn.instruction})
    content += [{"type": "image"} for _ in turn.pictures]
    if turn.clip:
        content += [{"type": "video"}] if turn.watching.native else [{"type": "image"}] * frames
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
    """A left-padded batch: `input_ids` and `attention_mask` [batch, tokens], and what is seen.

    Raises:
        PictureError: a picture or video cannot be read or is beyond the model's limits.
    """
    # One by one where there are videos: a batch of them, undiminished, may be many gigabytes.
    apart = any(turn.clip and turn.watching.native for turn in turns)
    groups = [[turn] for turn in turns] if apart else [turns]
    batch = _joined(processor, [_encoded(processor, group) for group in groups])
    longest, most = int(batch["attention_mask"].sum(1).max()), processor.tokenizer.model_max_length
    if longest > most:
        raise PictureError(
            f"with what is shown a prompt has {longest} tokens, the model reads {most} at most. "
            "Show fewer frames or smaller pictures."
        )
    return batch


def _encoded(processor: Any, turns: Sequence[Turn]) -> Inputs:
    watched = [watch(turn) for turn in turns]
    texts = [
        render(processor, turn, len(frames.indices) if frames else 0)
        for turn, frames in zip(turns, watched, strict=True)
    ]
    return process(processor, texts, turns, watched, padding=True, padding_side="left")


def _joined(processor: Any, parts: Sequence[Inputs]) -> Inputs:
    """Batches as one, padded on the left."""
    import torch

    padding = {"input_ids": processor.tokenizer.pad_token_id, **dict.fromkeys(_PER_TOKEN, 0)}
    longest = max(part["input_ids"].shape[1] for part in parts)
    joined = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        tensors = [part[name] for part in parts if name in part]
        if name in padding:
            tensors = [
                torch.nn.functional.pad(one, (longest - one.shape[1], 0), value=padding[name])
                for one in tensors
            ]
        if "video" in name and len({one.shape[1:] for one in tensors}) > 1:
            shapes = ", ".join(sorted({str(tuple(one.shape[1:])) for one in tensors}))
            raise VideoError(
                f"the model takes videos of one length at a time, these are {shapes}. Answer them "
                "one by one (--batch-size 1), or show as many frames of each (--frames)."
            )
        joined[name] = together(tensors)
    return joined


def together(shown: Sequence[torch.Tensor]) -> torch.Tensor:
    """What several turns show; fewer views, and smaller ones, are filled up with nothing."""
    import torch

    most = [max(sizes) for sizes in zip(*(one.shape[1:] for one in shown), strict=True)]
    return torch.cat([torch.nn.functional.pad(one, _missing(one, most)) for one in shown])


def _missing(one: torch.Tensor, most: list[int]) -> list[int]:
    """What `pad` adds behind every dimension but the first; it names the last one first."""
    gaps = [full - size for full, size in zip(most, one.shape[1:], strict=True)]
    return [side for gap in reversed(gaps) for side in (0, gap)]


def watch(turn: Turn) -> video.Frames | None:
    """The frames of a turn's video, within what the model takes; None where it has none.

    Raises:
        VideoError: it cannot be read, or is beyond the model's limits.
    """
    if turn.clip is None:
        return None
    frames = video.read(turn.clip, most=turn.watching.most)
    exactly = turn.watching.exactly
    if exactly and len(frames.indices) != exactly:
        raise VideoError(
            f"{len(frames.indices)} frames are asked for, the model takes {exactly}, no more and "
            f"no fewer. Ask for {exactly} frames."
        )
    return frames


def process(
    processor: Any,
    texts: Sequence[str],
    turns: Sequence[Turn],
    watched: Sequence[video.Frames | None],
    **options: Any,
) -> Inputs:
    """Texts with what their turns show, as the checkpoint's own processor makes them.

    Raises:
        PictureError: a picture cannot be read or is beyond the processor's limits.
    """
    import torch

    pictures: list[Image] = []
    videos = []
    for turn, frames in zip(turns, watched, strict=True):
        pictures += [decode_picture(data) for data in turn.pictures]
        if frames and turn.watching.native:
            videos.append(torch.from_numpy(frames.pictures).permute(0, 3, 1, 2))
        elif frames:
            pictures += frames.images()
    if videos:
        # Which frames are shown is decided once, by the sampling.
        options |= {"videos": videos, "do_sample_frames": False}
    try:
        made = processor(text=list(texts), images=pictures or None, return_tensors="pt", **options)
    except ValueError as error:
        sizes = [p.size for p in pictures] + [(v.shape[3], v.shape[2]) for v in videos]
        shown = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise PictureError(
            f"the processor refuses a picture of {shown} pixels: {error}. Crop or resize it."
        ) from None
    return dict(made)


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
