"""The untrained BLIP-2: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded import vocabulary
from vlmbench.embedded.parts import CLIP_TOWER, PATCH, SHAPE, VIEW, ends, greedy

SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>"}
QUERIES = 32
LONGEST = 256
"""Tokens that the decoder has positions for."""


def tokenizer() -> Any:
    """The shared words with BLIP-2's special tokens."""
    made = vocabulary.tokenizer(SPECIAL, "<image>")
    made.image_token = "<image>"
    return made


def processor(tokenizer: Any) -> Any:
    """The BLIP-2 processor: a picture becomes a square."""
    from transformers import Blip2Processor, BlipImageProcessor

    make: Any = Blip2Processor
    size: Any = {"height": VIEW, "width": VIEW}
    return make(BlipImageProcessor(size=size), tokenizer, num_query_tokens=QUERIES)


def network(tokenizer: Any) -> Any:
    """A randomly initialised BLIP-2 of about two million parameters, in float32."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    width, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    config = Blip2Config(
        vision_config={
            "hidden_size": CLIP_TOWER["hidden_size"],
            "intermediate_size": CLIP_TOWER["intermediate_size"],
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": VIEW,
            "patch_size": PATCH,
            "initializer_range": 0.02,
        },
        qformer_config={
            "vocab_size": 2,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 2,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": SHAPE["vocab_size"],
            "hidden_size": width,
            "word_embed_proj_dim": width,
            "ffn_dim": inner,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": LONGEST,
            **ends(tokenizer),
        },
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return greedy(Blip2ForConditionalGeneration(config), tokenizer)
