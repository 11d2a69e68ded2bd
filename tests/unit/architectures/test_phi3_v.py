"""Phi-3.5-vision: the published shape and names, the HD transform, pictures where they belong."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Phi3ForCausalLM, PreTrainedTokenizerFast

from vlmbench.architectures import find
from vlmbench.architectures.phi3_v import Phi3VConfig, Phi3VForCausalLM, in_rows
from vlmbench.architectures.phi3_v_processing import (
    IMAGE_TOKEN,
    Phi3VImageProcessor,
    Phi3VProcessor,
)

SPECIAL = ["<s>", "<|end|>", "<|endoftext|>", "<|user|>", "<|assistant|>", IMAGE_TOKEN]
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + '\n' + message['content'] "
    "+ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
EDGE = 56
GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": 299}
TOWER = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3},
    **{"num_attention_heads": 2, "image_size": EDGE, "patch_size": 14, "projection_dim": 16},
}


def fade(width: int, height: int) -> Image.Image:
    across = np.linspace(0, 255, width)[None, :] + np.linspace(0, 99, height)[:, None]
    return Image.fromarray((np.stack([across, across[::-1], across * 0], -1) % 256).astype("uint8"))


@pytest.fixture(scope="module")
def processor() -> Phi3VProcessor:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bare = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare,
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL,
        chat_template=TEMPLATE,
    )
    return Phi3VProcessor(Phi3VImageProcessor(num_crops=4, crop_size=EDGE), tokenizer)


def config(processor: Phi3VProcessor, **changed: Any) -> Phi3VConfig:
    fields = {
        **{"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 3, "num_attention_heads": 2, "vision_config": TOWER},
        **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
        "image_token_id": processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    }
    return Phi3VConfig(**{**fields, **changed})


@pytest.fixture(scope="module")
def network(processor: Phi3VProcessor) -> Phi3VForCausalLM:
    torch.manual_seed(0)
    made = Phi3VForCausalLM(config(processor)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return made


PLAIN = r"model\.(embed_tokens|norm)\.weight|lm_head\.weight"
LAYER = (
    r"model\.layers\.\d+\.(self_attn\.(qkv_proj|o_proj)|mlp\.(gate_up_proj|down_proj)"
    r"|input_layernorm|post_attention_layernorm)\.weight"
)
SEEING = (
    r"model\.vision_embed_tokens\.(glb_GN|sub_GN|img_projection\.[02]\.(weight|bias)"
    r"|img_processor\.vision_model\.(embeddings|encoder|pre_layrnorm|post_layernorm)\..*)"
)


def test_the_published_checkpoint_fits() -> None:
    """4,146,621,440 parameters under the published names; 292 of the tower's 24 layers and rest."""
    with torch.device("meta"):
        made = Phi3VForCausalLM(Phi3VConfig(max_position_embeddings=131072))
    named = dict(made.named_parameters())
    assert sum(parameter.numel() for parameter in named.values()) == 4_146_621_440
    assert [n for n in named if not re.fullmatch(f"{PLAIN}|{LAYER}|{SEEING}", n)] == []
    assert len(named) == 3 + 32 * 6 + 6 + 24 * 16 + 7
    shapes = {n: tuple(p.shape) for n, p in named.items() if "_GN" in n or "img_projection" in n}
    assert shapes == {
        "model.vision_embed_tokens.glb_GN": (1, 1, 4096),
        "model.vision_embed_tokens.sub_GN": (1, 1, 1, 4096),
        "model.vision_embed_tokens.img_projection.0.weight": (3072, 4096),
        "model.vision_embed_tokens.img_projection.0.bias": (3072,),
        "model.vision_embed_tokens.img_projection.2.weight": (3072, 3072),
        "model.vision_embed_tokens.img_projection.2.bias": (3072,),
    }


def test_the_published_configuration_is_understood() -> None:
    """As config.json has it: `su` scaling, a tower that is named only."""
    factors = {"long_factor": [2.0] * 48, "short_factor": [1.0] * 48}
    made = Phi3VConfig(
        rope_scaling={"type": "su", **factors},
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        img_processor={"name": "clip_vision_model", "num_img_tokens": 144},
    )
    assert made.rope_parameters["rope_type"] == "longrope"
    assert made.vision_config.hidden_size == 1024 and made.vision_config.image_size == 336


@pytest.mark.parametrize(
    ("size", "crops", "grid"),
    [
        ((336, 336), 4, (2, 2)),
        ((1000, 500), 4, (1, 2)),
        ((500, 1000), 4, (2, 1)),
        ((1000, 300), 4, (1, 3)),
        ((5000, 40), 4, (1, 4)),
        ((640, 480), 16, (3, 4)),
        ((100, 100), 1, (1, 1)),
    ],
)
def test_the_hd_transform(size: tuple[int, int], crops: int, grid: tuple[int, int]) -> None:
    cut = Phi3VImageProcessor(num_crops=crops)
    made = cut([fade(*size)])
    rows, columns = grid
    assert made["image_sizes"].tolist() == [[336 * rows, 336 * columns]]
    assert made["pixel_values"].shape == (1, 1 + rows * columns, 3, 336, 336)
    assert cut.tokens(336 * rows, 336 * columns) == (rows * columns + 1) * 144 + 1 + (rows + 1) * 12
    # The published rule: as many crops in a row as the rows that they need allow.
    ratio = max(size) / min(size)
    best = max(s for s in range(1, crops + 1) if s * math.ceil(s / ratio) <= crops)
    assert max(grid) == best


def test_white_above_and_below_and_crops_in_reading_order() -> None:
    cut = Phi3VImageProcessor(num_crops=4, crop_size=56, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    black = Image.new("RGB", (200, 150))
    black.paste((255, 0, 0), (100, 0, 200, 75))
    views = cut([black])["pixel_values"][0]
    _, top_left, top_right, bottom_left, bottom_right = views
    assert views.shape == (5, 3, 56, 56)
    # 112x84 on 112x112: 14 white rows above and below.
    assert top_left[:, :14].min() == 1 and top_left[:, 14:, :-4].max() == 0
    assert bottom_left[:, -14:].min() == 1 and bottom_right[:, :-14].max() < 1
    # Red ends with the crop: its last row is mixed with the black below.
    assert top_right[0, 20:-1, 4:].min() > 0.9 and top_right[1:, 20:].max() == 0


def test_rows_end_in_a_separator_and_the_whole_comes_last(network: Phi3VForCausalLM) -> None:
    """Two crops beside each other: a row of the picture runs through both."""
    embedding = network.model.vision_embed_tokens
    dim = embedding.sub_GN.shape[-1]
    numbers = torch.arange(8.0).view(2, 2, 2, 1).expand(-1, -1, -1, dim)
    rows = in_rows(numbers, 1, 2, embedding.sub_GN)
    assert rows.shape == (2 * 5, dim)
    assert rows[:, 0][[0, 1, 2, 3, 5, 6, 7, 8]].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert torch.equal(rows[[4, 9]], embedding.sub_GN[0, 0].expand(2, -1))
    patches = torch.arange(16.0).view(1, 16, 1).expand(-1, -1, 32)
    merged = embedding._merged(patches)[0, :, :, ::32]
    assert merged.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]], [[8, 9, 12, 13], [10, 11, 14, 15]]]


def prompt(*pictures: Image.Image, question: str = "What?") -> list[dict[str, Any]]:
    parts = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def asked(processor: Any, *turns: tuple[Image.Image, ...]) -> Any:
    texts = [
        processor.apply_chat_template(prompt(*turn), tokenize=False, add_generation_prompt=True)
        for turn in turns
    ]
    pictures = [picture for turn in turns for picture in turn]
    return processor(
        images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt"
    )


def test_the_prompt_word_for_word(processor: Phi3VProcessor) -> None:
    turn = prompt(fade(9, 9), fade(9, 9))
    text = processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>\n<|image_1|>\n<|image_2|>\nWhat?<|end|>\n<|assistant|>\n"


def test_every_picture_gets_its_places(processor: Phi3VProcessor) -> None:
    inputs = asked(processor, (fade(100, 50), fade(50, 50)), (fade(30, 90),))
    place = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    tokens = [processor.image_processor.tokens(h, w) for h, w in inputs["image_sizes"]]
    assert (inputs["input_ids"] == place).sum(1).tolist() == [tokens[0] + tokens[1], tokens[2]]


def test_a_question_cannot_claim_a_picture(processor: Phi3VProcessor) -> None:
    turn = prompt(fade(9, 9), question="Is <|image_2|> here?")
    text = processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert "<|image_1|>\nIs <| image_2|> here?" in text
    processor(images=[fade(9, 9)], text=[text])
    with pytest.raises(ValueError, match="the texts name 1 pictures, 2 are given"):
        processor(images=[fade(9, 9)] * 2, text=[text])
    with pytest.raises(ValueError, match="the texts name 2 pictures, 1 are given"):
        processor(images=[fade(9, 9)], text=[text, text])
    with pytest.raises(ValueError, match=r"this text has \[2\]"):
        processor(images=[fade(9, 9)], text=["<|image_2|>"])


def test_text_alone_is_phi3(network: Phi3VForCausalLM) -> None:
    plain = Phi3ForCausalLM(network.config).eval()
    missing = plain.load_state_dict(network.state_dict(), strict=False)
    assert missing.missing_keys == []
    ids = torch.randint(10, 200, (2, 9))
    with torch.no_grad():
        assert torch.equal(network(ids).logits, plain(ids).logits)


@torch.no_grad()
def test_pictures_reach_the_answer_alone_and_in_a_batch(
    processor: Phi3VProcessor, network: Phi3VForCausalLM
) -> None:
    turns = [(fade(100, 50), fade(50, 50)), (fade(30, 90),), (fade(80, 80),)]
    batch = asked(processor, *turns)
    together = network(**batch).logits[:, -1]
    for turn, logits in zip(turns, together, strict=True):
        assert torch.allclose(network(**asked(processor, turn)).logits[0, -1], logits, atol=1e-3)
    other = network(**asked(processor, (fade(80, 80).rotate(90),))).logits[0, -1]
    assert not torch.allclose(other, together[2], atol=3e-3)


@torch.no_grad()
def test_generation_with_a_cache_is_generation_without(
    processor: Phi3VProcessor, network: Phi3VForCausalLM
) -> None:
    inputs = asked(processor, (fade(100, 50),), (fade(30, 90),))
    with_cache, without = (
        network.generate(**inputs, use_cache=use, **GREEDY) for use in (True, False)
    )
    assert torch.equal(with_cache, without)


@torch.no_grad()
def test_long_prompts_use_the_long_factors(processor: Phi3VProcessor) -> None:
    torch.manual_seed(0)
    scaling = {"type": "su", "long_factor": [4.0] * 8, "short_factor": [1.0] * 8}
    limits = {"original_max_position_embeddings": 16, "max_position_embeddings": 64}
    made = Phi3VForCausalLM(config(processor, rope_scaling=scaling, **limits)).eval()
    ids = torch.randint(10, 200, (1, 20))
    short, long = made(ids[:, :16]).logits[0, 15], made(ids).logits[0, 15]
    assert not torch.allclose(short, long, atol=1e-4)
    cached, whole = (made.generate(ids[:, :14], use_cache=use, **GREEDY) for use in (True, False))
    assert torch.equal(cached, whole), "the cache is made anew where the factors change"


def test_a_picture_that_does_not_fit_its_places(
    processor: Phi3VProcessor, network: Phi3VForCausalLM
) -> None:
    inputs = asked(processor, (fade(100, 50),))
    shorter = {**inputs, "input_ids": inputs["input_ids"][:, 9:], "attention_mask": None}
    with pytest.raises(ValueError, match=r"the pictures are \d+ tokens, the prompt has room for"):
        network(**shorter)


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(
    processor: Phi3VProcessor, network: Phi3VForCausalLM, tmp_path: Path
) -> None:
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert find("Phi3VForCausalLM") is Phi3VForCausalLM and find("NoSuchClass") is None
    again, info = Phi3VForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    reader = AutoProcessor.from_pretrained(tmp_path)
    assert type(reader) is Phi3VProcessor
    inputs = asked(processor, (fade(100, 50),))
    read = asked(reader, (fade(100, 50),))
    assert all(torch.equal(inputs[name], read[name]) for name in inputs)
    assert torch.equal(network(**inputs).logits, again.eval()(**read).logits)
