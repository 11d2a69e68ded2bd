"""The parts that several architectures have in common: a CLIP tower, a Llama-like decoder."""

from __future__ import annotations

from typing import Any

from vlmbench.embedded.vocabulary import SIZE

PATCH = 28
"""Pixels: a patch of a CLIP tower shows as much as a visual token of Qwen2-VL."""
VIEW = 168
"""Pixels along the edge of what a CLIP tower sees at once."""
CLIP_TOWER = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "image_size": VIEW,
    "patch_size": PATCH,
    "projection_dim": 128,
}
"""Of five layers four are used: the published models take the features of the last but one."""
DECODER = {
    "vocab_size": SIZE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "tie_word_embeddings": False,
}
"""Qwen2's shape, so that its layers can be taken over."""


def decoder(tokenizer: Any) -> dict[str, Any]:
    """The decoder's configuration with the numbers of its special tokens."""
    named = {f"{use}_token_id": getattr(tokenizer, f"{use}_token_id") for use in _USES}
    return {**DECODER, **named}


_USES = ("bos", "eos", "pad")


def greedy(network: Any, tokenizer: Any) -> Any:
    """The network, set to answer greedily and to end where its tokenizer ends."""
    network.generation_config.update(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return network
