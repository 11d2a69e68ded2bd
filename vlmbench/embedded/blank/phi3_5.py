"""The untrained Phi-3.5-vision: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded import SIDE, vocabulary
from vlmbench.embedded.parts import CLIP_TOWER, decoder, greedy

SPECIAL = {"eos_token": "<|end|>", "pad_token": "<|endoftext|>", "bos_token": "<s>"}
VIEW = 3 * SIDE
CROPS = 9
"""A drawn page is cut into three by three crops without a change of scale."""
CROPS_OF_SEVERAL = 4

# The published template's form.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer() -> Any:
    """The shared words with Phi-3.5's special tokens."""
    return vocabulary.tokenizer(SPECIAL, "<|user|>", "<|assistant|>", "<|image|>")


def processor(tokenizer: Any) -> Any:
    """The Phi-3.5-vision processor."""
    from vlmbench.architectures.phi3_v_processing import Phi3VImageProcessor, Phi3VProcessor

    cut = Phi3VImageProcessor(CROPS, VIEW, CROPS_OF_SEVERAL)
    return Phi3VProcessor(cut, tokenizer, chat_template=CHAT_TEMPLATE)


def network(tokenizer: Any) -> Any:
    """A randomly initialised Phi-3.5-vision of about two million parameters, in float32."""
    from vlmbench.architectures.phi3_v import Phi3VConfig, Phi3VForCausalLM

    config = Phi3VConfig(
        vision_config={**CLIP_TOWER, "image_size": VIEW, "patch_size": SIDE // 2},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        original_max_position_embeddings=2048,
        **decoder(tokenizer),
    )
    return greedy(Phi3VForCausalLM(config), tokenizer)
