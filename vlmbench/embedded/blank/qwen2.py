"""The untrained Qwen2-VL: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded import SIDE
from vlmbench.embedded.parts import SHAPE
from vlmbench.embedded.vocabulary import vocabulary

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# The published template: a default system turn, contents in the order given.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> Any:
    """A Qwen2 tokenizer whose merges come from what is asked and said."""
    from transformers import Qwen2Tokenizer

    words, merges = vocabulary()
    make: Any = Qwen2Tokenizer
    made = make(
        vocab=words,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        extra_special_tokens=list(SPECIAL[1:]),
        model_max_length=32768,
    )
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return made


def processor(tokenizer: Any) -> Any:
    """The Qwen2-VL processor with pixel limits that suit the drawn pictures."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    make: Any = Qwen2VLProcessor

    size = {"shortest_edge": 4 * SIDE**2, "longest_edge": 80 * SIDE**2}
    return make(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=True),
        chat_template=CHAT_TEMPLATE,
    )


def network(tokenizer: Any) -> Any:
    """A randomly initialised Qwen2-VL of about two million parameters, in float32."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text = {
        **SHAPE,
        # Rows and columns take the frequencies after time's (mrope). In the published shares a
        # neighbouring column is 0.003 rad away, which so small a network never tells apart.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 4, 26],
        },
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {"depth": 4, "embed_dim": 128, "hidden_size": 128, "mlp_ratio": 2, "num_heads": 4}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    made = Qwen2VLForConditionalGeneration(config)
    made.generation_config.do_sample = False
    made.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    made.generation_config.pad_token_id = ids["<|endoftext|>"]
    return made
