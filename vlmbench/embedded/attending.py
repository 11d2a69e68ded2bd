"""Attention in plain products, for training on CPUs.

There the backward pass of `scaled_dot_product_attention` is the larger half of a training step;
that of two products in bfloat16 takes half of its time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "vlmbench_products"
"""What `set_attn_implementation` calls it."""


def products(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """As transformers asks for it: [batch, heads, tokens, dim] to [batch, tokens, heads, dim].

    Queries of all heads that share keys stand in one product. `attention_mask` is of bool, and
    what it does not tell is seen: nothing here is causal by itself.
    """
    batch, heads, length, dim = query.shape
    scale = dim**-0.5 if scaling is None else scaling
    if options.get("dropout") or options.get("softcap"):
        raise ValueError(f"attention in products has neither dropout nor softcap, got {options}")
    half = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if half else query.dtype
    with torch.autocast("cpu", enabled=False):
        keys, values = (part.to(kind).flatten(0, 1) for part in (key, value))
        queries = (query.to(kind) * scale).reshape(len(keys), -1, dim)
        looks = (queries @ keys.transpose(1, 2)).view(batch, heads, length, -1)
        if attention_mask is not None:
            # Not by infinity: what sees nothing at all, padding, would become NaN.
            looks = looks.masked_fill(~attention_mask, torch.finfo(kind).min)
        seen = looks.softmax(-1).view(len(keys), -1, looks.shape[-1]) @ values
    return seen.view(batch, heads, length, dim).transpose(1, 2).contiguous(), None


def mask(*args: Any, **options: Any) -> Tensor | None:
    """As `sdpa_mask`, but never left out for being causal."""
    made: Tensor | None = sdpa_mask(*args, **options | {"allow_is_causal_skip": False})
    return made


AttentionInterface.register(NAME, products)
AttentionMaskInterface.register(NAME, mask)
