"""A random Qwen2-VL of real architecture, saved as `save_pretrained` writes it: seconds, 1 M."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from shipped_folders import made

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# The published template's form, without its count of pictures.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is kept beyond a test, or found from an earlier one."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VLMBENCH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Qwen2-VL checkpoint with its processor."""
    folder: Path = tmp_path_factory.mktemp("tiny_qwen2_vl")
    processor = _processor()
    processor.save_pretrained(folder)
    _network(processor.tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_inputs(tiny: Path) -> Any:
    """Model inputs of one picture and a question."""
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(tiny)
    content = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    picture = Image.radial_gradient("L").resize((56, 56)).convert("RGB")
    return processor(images=[picture], text=[text], return_tensors="pt")


def _processor() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    names = [*sorted(ByteLevel.alphabet()), *SPECIALS]
    tokenizer = Qwen2Tokenizer(
        vocab={name: number for number, name in enumerate(names)},
        merges=[],
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIALS),
    )
    sizes = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    return Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=sizes),
        tokenizer,
        Qwen2VLVideoProcessor(size=sizes),
        chat_template=TEMPLATE,
    )


def _network(tokenizer: Any) -> Any:
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIALS}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 256,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [4, 6, 6],
            },
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "embed_dim": 128,
            "depth": 2,
            "num_heads": 4,
            "mlp_ratio": 2,
            "hidden_size": 128,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    network = Qwen2VLForConditionalGeneration(config)
    # Some published checkpoints ship a generation config that samples, and so does this one.
    network.generation_config.update(do_sample=True, temperature=0.01, top_p=0.001, top_k=1)
    return network


@pytest.fixture(scope="module")
def packed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with packed weights, as the command writes it."""
    return made("rtn_w4a16", tiny, tmp_path_factory)


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    shutil.copytree(packed, tmp_path / "copy")
    return tmp_path / "copy"
