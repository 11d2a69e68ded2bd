"""Linears to be packed, and what goes through them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.packed import Int4Linear, Int8Linear

FEW, MANY = 5, 90
PRODUCTS = (FEW, MANY)
Make = Callable[[nn.Linear], Any]


def linear(inputs: int = 256, outputs: int = 192, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def tokens(*shape: int, seed: int = 1) -> Tensor:
    """Activations whose channels and tokens are of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-1, 1, shape[-2])[:, None] if len(shape) > 1 else torch.ones(1)
    return (torch.randn(*shape, generator=generator) * sizes).bfloat16()


def int8(weights: str, activations: str, bits: int = 8) -> Make:
    return partial(
        Int8Linear.of,
        weights=weights,
        activations=activations,
        bits=bits,
        input_absmax=torch.tensor(30.0),
    )


INTEGERS = {
    "tensor_tensor": int8("tensor", "tensor"),
    "tensor_token": int8("tensor", "token"),
    "row_token": int8("row", "token"),
    "row_tensor": int8("row", "tensor"),
    "group_group": int8("group", "group"),
    "group_token": int8("group", "token"),
    "row_group": int8("row", "group"),
    "w4a4": int8("group", "group", bits=4),
    "w4a4_row": int8("row", "token", bits=4),
}
MAKES: dict[str, Make] = {
    "int4": Int4Linear.of,
    "int4_64": partial(Int4Linear.of, group=64),
    "int3": partial(Int4Linear.of, bits=3),
    **INTEGERS,
}


def in_float64(layer: Int8Linear, inputs: Tensor) -> Tensor:
    """What the layer should give, with every rounding spelt out and none by the way."""
    parts = layer.groups if layer.activations == "group" else 1
    pieces = inputs.double().view(len(inputs), parts, -1)
    scales = pieces.abs().amax(2, keepdim=True).float() / layer.most
    if layer.activations == "tensor":
        scales = layer.input_scales
    codes = (pieces.float() / scales).round().clamp(-layer.most, layer.most)
    values = (codes.double() * scales.double()).flatten(1)
    out = values @ layer.dequantized(torch.float64).T
    return out if layer.bias is None else out + layer.bias.double()
