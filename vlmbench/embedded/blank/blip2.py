"""The untrained BLIP-2: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded import vocabulary
from vlmbench.embedded.parts import CLIP_TOWER, PATCH, SHAPE, VIEW, ends, greedy
from vlmbench.models.blip2 import BLIP2

SPECIAL = {"eos_token": "</s>", "pad_token": "<pad>", "bos_token": "<s>"}
QUERIES = 32
LONGEST = 256
"""Tokens that the decoder has positions for."""


def tokenizer() -> Any:
    """The shared words with BLIP-2's special tokens."""
    return vocabulary.tokenizer(SPECIAL, "<image>")


def processor(tokenizer: Any) -> Any:
    """The BLIP-2 processor: a picture becomes a square."""
    from transformers import Blip2Processor, BlipImageProcessor

    make: Any = Blip2Processor
    size: Any = {"height": VIEW, "width": VIEW}
    made = make(BlipImageProcessor(size=size), tokenizer, num_query_tokens=QUERIES)
    made.chat_template = BLIP2.template
    return made


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
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 2,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": SHAPE["vocab_size"],
            "hidden_size": width,
            "word_embed_proj_dim": width,
            "ffn_dim": inner,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "max_position_embeddings": LONGEST,
            # So small a network has nothing to spare.
            "dropout": 0.0,
            **ends(tokenizer),
        },
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return greedy(Blip2ForConditionalGeneration(config), tokenizer)
