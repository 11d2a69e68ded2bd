"""The untrained CLIP: configuration, tokenizer, processor."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded import vocabulary
from vlmbench.embedded.parts import CLIP_TOWER, SHAPE, VIEW, ends

SPECIAL = {"eos_token": "<|endoftext|>", "pad_token": "<pad>", "bos_token": "<|startoftext|>"}
LONGEST = 77


def tokenizer() -> Any:
    """The shared words between CLIP's two special tokens."""
    made = vocabulary.tokenizer(SPECIAL, ends=True)
    made.model_max_length, made.padding_side = LONGEST, "right"
    return made


def processor(tokenizer: Any) -> Any:
    """The CLIP processor: the middle of a picture."""
    from transformers import CLIPImageProcessor, CLIPProcessor

    make: Any = CLIPProcessor
    return make(
        CLIPImageProcessor(size={"shortest_edge": VIEW}, crop_size={"height": VIEW, "width": VIEW}),
        tokenizer,
    )


def network(tokenizer: Any) -> Any:
    """A randomly initialised CLIP of about 1.5 million parameters, in float32."""
    from transformers import CLIPConfig, CLIPModel

    text = {name: SHAPE[name] for name in ("vocab_size", "hidden_size", "intermediate_size")}
    config = CLIPConfig(
        text_config={
            **text,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": LONGEST,
            "projection_dim": 128,
            **ends(tokenizer),
        },
        vision_config={**CLIP_TOWER, "num_hidden_layers": 4},
        projection_dim=128,
    )
    return CLIPModel(config)
