"""Activation outliers, as large published models have them, put in without changing the function.

A few channels that leave a norm are made 128 times larger, and the linears behind it divide them
again. Small networks trained from nothing lack such channels, so rounding activations looks
harmless on them; with them it costs what it costs on real checkpoints (arXiv 2208.07339).
"""

from __future__ import annotations

from typing import Any

import torch

FACTOR = 128.0
"""A power of two: the scaled weights keep every bit, in bfloat16 too."""
CHANNELS = 4
_BEHIND = {
    "input_layernorm": ("self_attn", ("q_proj", "k_proj", "v_proj", "qkv_proj")),
    "post_attention_layernorm": ("mlp", ("gate_proj", "up_proj", "gate_up_proj")),
    "self_attn_layer_norm": ("self_attn", ("q_proj", "k_proj", "v_proj")),
    "final_layer_norm": ("", ("fc1",)),
}
"""Which linears stand behind a norm, by every architecture's names."""


def put_in(layers: Any, generator: torch.Generator) -> list[int]:
    """Scale the same few channels in every decoder layer; returns which."""
    return _scale(layers, generator, FACTOR)


def take_out(layers: Any, generator: torch.Generator) -> list[int]:
    """Undo `put_in` with the same generator, to the last bit."""
    return _scale(layers, generator, 1 / FACTOR)


@torch.no_grad()
def _scale(layers: Any, generator: torch.Generator, factor: float) -> list[int]:
    norms = [name for name, _ in layers[0].named_children() if name in _BEHIND]
    width = layers[0].get_submodule(norms[0]).weight.numel()
    channels = torch.randperm(width, generator=generator)[:CHANNELS]
    for layer in layers:
        for norm in norms:
            # An OPT's norms have a bias.
            for parameter in layer.get_submodule(norm).parameters():
                parameter[channels] *= factor
            block, linears = _BEHIND[norm]
            for name, linear in layer.get_submodule(block).named_children():
                if name in linears:
                    linear.weight[:, channels] /= factor
    return sorted(channels.tolist())
