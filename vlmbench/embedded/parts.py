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
SHAPE = {
    "vocab_size": SIZE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
"""Of every Llama-like decoder: what qwen2's has learnt can be taken over."""


def ends(tokenizer: Any) -> dict[str, int]:
    """The numbers of the tokens that begin, end and fill up a text."""
    return {f"{use}_token_id": getattr(tokenizer, f"{use}_token_id") for use in _USES}


_USES = ("bos", "eos", "pad")


def decoder(tokenizer: Any) -> dict[str, Any]:
    """The decoder's configuration with the numbers of its special tokens."""
    rope = {"rope_type": "default", "rope_theta": 1e4}
    made = {**SHAPE, "head_dim": 64, "rope_parameters": rope, "tie_word_embeddings": False}
    return {**made, **ends(tokenizer)}


def greedy(network: Any, tokenizer: Any) -> Any:
    """The network, set to answer greedily and to end where its tokenizer ends."""
    network.generation_config.update(do_sample=False, **ends(tokenizer))
    return network
