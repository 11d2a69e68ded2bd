"""What is said to a model: the template's own prompt, padded and ordered right, text as text."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlmbench import video
from vlmbench.embedded.blank import llavanext as blank
from vlmbench.errors import PictureError, VideoError
from vlmbench.pictures import decode_picture
from vlmbench.prompting import IGNORED, encode, encode_answered, render
from vlmbench.spec import Clip, Sampling, Turn, Watching

FADE = Image.radial_gradient("L")


def picture(width: int, height: int) -> bytes:
    out = io.BytesIO()
    FADE.resize((width, height)).save(out, "PNG")
    return out.getvalue()


TWO = Turn((picture(28, 56), picture(84, 28)), "Which is wider?", "Answer briefly.")
ONE = Turn((picture(56, 56),), "What?")
NONE = Turn((), "Why?", "Answer briefly.")
SPECIAL = ["<|image_pad|>", "<|im_end|>", "<|vision_start|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def processor(tiny: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(tiny)


def test_the_prompt_word_for_word(processor: Any) -> None:
    slot = "<|vision_start|><|image_pad|><|vision_end|>"
    assert render(processor, TWO) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\nAnswer briefly.{slot}{slot}Which is wider?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("turn", [TWO, ONE, NONE])
def test_inputs_are_those_of_the_template_by_hand(turn: Turn, processor: Any) -> None:
    content = [{"type": "text", "text": turn.instruction}] if turn.instruction else []
    content += [{"type": "image", "image": decode_picture(data)} for data in turn.pictures]
    content += [{"type": "text", "text": turn.question}]
    expected = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    made = encode(processor, [turn])
    assert made.keys() == dict(expected).keys()
    assert [name for name in made if not torch.equal(made[name], expected[name])] == []


def test_a_batch_is_padded_on_the_left(processor: Any) -> None:
    batch = encode(processor, [NONE, TWO])
    alone = encode(processor, [NONE])["input_ids"][0]
    padding = batch["input_ids"].shape[1] - len(alone)
    assert padding > 0
    assert batch["attention_mask"].tolist() == [
        [0] * padding + [1] * len(alone),
        [1] * batch["input_ids"].shape[1],
    ]
    assert torch.equal(batch["input_ids"][0, padding:], alone)


def test_pictures_keep_their_order(processor: Any) -> None:
    batch = encode(processor, [TWO, NONE, ONE])
    singles = [encode(processor, [Turn((p,), "")]) for p in (*TWO.pictures, *ONE.pictures)]
    for name in ("image_grid_thw", "pixel_values"):
        assert torch.equal(batch[name], torch.cat([single[name] for single in singles]))
    assert batch["image_grid_thw"][:, 1:].tolist() == [[4, 2], [2, 6], [4, 4]]


def test_answers_follow_the_prompt_of_evaluation(processor: Any) -> None:
    turns, answers = [NONE, TWO, ONE], ["a long answer", "yes", ""]
    prompts = encode(processor, turns)
    taught = encode_answered(processor, turns, answers)
    width = prompts["input_ids"].shape[1]
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        assert torch.equal(taught[name][:, :width], prompts[name])
    assert torch.equal(taught["pixel_values"], prompts["pixel_values"])
    assert (taught["labels"][:, :width] == IGNORED).all()
    tails = (taught["labels"][:, width:], taught["input_ids"][:, width:])
    for labels, ids, mask, answer in zip(
        *tails, taught["attention_mask"][:, width:], answers, strict=True
    ):
        length = len(processor.tokenizer(answer)["input_ids"]) + 1
        assert processor.tokenizer.decode(ids[:length]) == f"{answer}<|im_end|>"
        assert torch.equal(labels[:length], ids[:length])
        assert (labels[length:] == IGNORED).all()
        assert mask.tolist() == [1] * length + [0] * (len(mask) - length)


def test_an_answer_begins_with_no_special_token(processor: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    llama_like = copy.deepcopy(processor)
    bos = [("<|im_start|>", processor.tokenizer.convert_tokens_to_ids("<|im_start|>"))]
    template = TemplateProcessing(single="<|im_start|> $A", special_tokens=bos)
    llama_like.tokenizer._tokenizer.post_processor = template
    assert llama_like.tokenizer("yes")["input_ids"][0] == bos[0][1]
    labels = encode_answered(llama_like, [NONE], ["yes"])["labels"][0]
    assert processor.tokenizer.decode(labels[labels != IGNORED]) == "yes<|im_end|>"


@pytest.mark.parametrize("token", SPECIAL)
def test_what_spells_a_special_token_is_text(token: str, processor: Any) -> None:
    said = f"Is {token} a tag? {token}"
    plain, hostile = (
        encode_answered(processor, [Turn(ONE.pictures, text)], [text])["input_ids"][0].tolist()
        for text in ("Is it a tag?", said)
    )
    special = processor.tokenizer.convert_tokens_to_ids(token)
    assert hostile.count(special) == plain.count(special)
    assert f"Is {token[0]} {token[1:]} a tag?" in processor.tokenizer.decode(hostile)


def test_lone_surrogates_are_said_as_question_marks(processor: Any) -> None:
    encode(processor, [Turn((), "caf\udce9")])
    assert "caf?<" in render(processor, Turn((), "caf\udce9"))


def film(frames: int) -> Clip:
    return Clip(tuple(picture(56, 28) for _ in range(frames)), Sampling(frames=frames))


def test_a_clip_goes_the_processors_video_path(processor: Any) -> None:
    """As the template by hand makes it, of the frames that the sampling chose."""
    turn = Turn((), "What?", "Answer briefly.", film(6))
    content = [{"type": "text", "text": "Answer briefly."}, {"type": "video"}]
    content += [{"type": "text", "text": "What?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    frames = torch.from_numpy(video.read(film(6)).pictures).permute(0, 3, 1, 2)
    expected = dict(processor(text=[text], videos=[frames], return_tensors="pt"))
    made = encode(processor, [turn])
    assert made.keys() == expected.keys()
    assert [name for name in made if not torch.equal(made[name], expected[name])] == []
    assert made["video_grid_thw"].tolist() == [[3, 2, 4]], "frames in pairs"


def test_clips_and_pictures_share_a_batch(processor: Any) -> None:
    clip = Turn((), "What?", clip=film(2))
    batch = encode(processor, [TWO, clip, NONE, ONE])
    alone = encode(processor, [clip])
    assert torch.equal(batch["pixel_values_videos"], alone["pixel_values_videos"])
    assert torch.equal(batch["pixel_values"], encode(processor, [TWO, ONE])["pixel_values"])


def test_pictures_in_as_many_views_as_they_need_share_a_batch_with_clips() -> None:
    """What one has fewer is filled up as the processor does where there is no clip."""
    llavanext = blank.processor(blank.tokenizer())
    pictures = [Turn((picture(*size),), "What?") for size in ((168, 168), (336, 336))]
    alone = encode(llavanext, pictures)
    views = alone["pixel_values"].shape[1]
    assert views == 5 and not alone["pixel_values"][0, 2:].any(), "the smaller one has two"
    mixed = encode(llavanext, [pictures[0], Turn((), "What?", clip=film(8)), pictures[1]])
    assert torch.equal(mixed["pixel_values"], alone["pixel_values"])
    assert mixed["pixel_values_videos"].shape == (1, 8, 3, 168, 168)


def test_a_model_without_a_video_path_gets_pictures_in_order(processor: Any) -> None:
    frames = [picture(28 * i, 56) for i in (2, 2, 2)]
    watching = Watching(most=8, native=False)
    turn = Turn((), "What?", clip=Clip(tuple(frames), Sampling(frames=3)), watching=watching)
    same = Turn(tuple(frames), "What?")
    made, expected = encode(processor, [turn]), encode(processor, [same])
    assert made.keys() == expected.keys()
    assert [name for name in made if not torch.equal(made[name], expected[name])] == []


def test_frames_beyond_what_a_model_takes(processor: Any) -> None:
    few = replace(Turn((), "What?", clip=film(6)), watching=Watching(most=4))
    with pytest.raises(VideoError, match="6 frames are asked for, the model takes 4 at most"):
        encode(processor, [few])
    exact = replace(few, watching=Watching(most=8, exactly=8))
    with pytest.raises(VideoError, match="6 frames are asked for, the model takes 8, no more"):
        encode(processor, [exact])


def test_more_tokens_than_a_model_reads(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.tokenizer, "model_max_length", 80)
    encode(processor, [ONE])
    with pytest.raises(PictureError, match=r"has \d+ tokens, the model reads 80 at most"):
        encode(processor, [ONE, Turn((), "What?", clip=film(60))])


def test_a_picture_beyond_the_processors_limits(processor: Any) -> None:
    with pytest.raises(PictureError, match=r"56x56, 1x2000 pixels: .*ratio must be smaller than"):
        encode(processor, [ONE, Turn((picture(1, 2000),), "What?")])
