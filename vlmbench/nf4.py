"""NF4 as bitsandbytes makes it: rounded to while a network learns, and multiplied in any shape.

Paper: arXiv 2305.14314 (NF4, double quantization); official code:
https://github.com/bitsandbytes-foundation/bitsandbytes. The straight-through estimator is that of
arXiv 1308.3432.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes import functional as bnb
from bitsandbytes.nn.modules import Linear4bit
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from vlmbench.anatomy import Anatomy

BLOCK = 64
"""Weights that share a scale."""
_ROWS = 32
"""What the packed product on CPU takes at a time."""


@torch.no_grad()
def rounded(weight: Tensor) -> Tensor:
    """`weight` as it is after loading in 4 bit and unpacking, in its own dtype."""
    flat = weight.to(torch.bfloat16).flatten()
    packed, state = bnb.quantize_4bit(flat, None, None, BLOCK, True, "nf4")
    return bnb.dequantize_4bit(packed, state).view(weight.shape).to(weight.dtype)


def quantizable(network: nn.Module, anatomy: Anatomy) -> list[str]:
    """Names of the linears that loading in 4 bit quantizes: all but the head and what is kept."""
    heads = tuple(f"{head}." for head in anatomy.modules("head"))
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and not f"{name}.".startswith(heads)
        and not anatomy.is_kept(name)
    ]


@contextmanager
def simulated(network: nn.Module, anatomy: Anatomy) -> Iterator[None]:
    """Have every linear that 4 bit quantizes compute as if it were, until the block ends.

    Those of the decoder's layers round anew each time and pass their gradient to the weight as it
    is. All others are rounded once: what cannot learn still is what the decoder learns to live
    with. Weights and their names stay as they are.
    """
    linears: dict[str, Any] = {n: network.get_submodule(n) for n in quantizable(network, anatomy)}
    for name, linear in linears.items():
        if name.startswith(anatomy.layers + "."):
            linear.forward = partial(_straight_through, linear)
        else:
            weight = rounded(linear.weight)
            linear.forward = partial(nn.functional.linear, weight=weight, bias=linear.bias)
    try:
        yield
    finally:
        for linear in linears.values():
            del linear.forward


class _Rounded(torch.autograd.Function):
    """Rounds forward; backward it is as if it did not."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return rounded(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _straight_through(linear: nn.Linear, inputs: Tensor) -> Tensor:
    # While it learns, its columns may be multiplied: what is stored is what is rounded.
    factor = getattr(linear, "evened", 1.0)
    weight = _Rounded.apply(linear.weight / factor) * factor  # type: ignore[no-untyped-call]
    return nn.functional.linear(inputs, weight, linear.bias)


def take_any_shape(network: nn.Module) -> int:
    """Let linears in 4 bit that bitsandbytes cannot multiply on CPU do so; how many there are.

    Its packed product there takes inputs in multiples of 64 and outputs in multiples of 32, which
    ranks of factors seldom are; its other product misreads scales where a row ends within a block.
    These linears are unpacked for each product instead. What they store is the same.
    """
    found: list[Any]
    found = [m for m in network.modules() if isinstance(m, Linear4bit) and _is_odd(m)]
    for linear in found:
        linear.forward = partial(_unpacked_product, linear)
    return len(found)


def _is_odd(linear: Any) -> bool:
    on_cpu = linear.weight.device.type == "cpu"
    return on_cpu and bool(linear.in_features % BLOCK or linear.out_features % _ROWS)


def _unpacked_product(linear: Any, inputs: Tensor) -> Tensor:
    weight, bias = unpacked(linear), linear.bias
    bias = bias if bias is None else bias.to(weight.dtype)
    return nn.functional.linear(inputs.to(weight.dtype), weight, bias).to(inputs.dtype)


def unpacked(linear: Any) -> Tensor:
    """The weight [out, in] of a linear in 4 bit that has not yet been packed for CPU."""
    state = copy.copy(linear.weight.quant_state)
    # As one row: blocks are of the weights in a row, wherever rows of the matrix end.
    state.shape = torch.Size([linear.out_features * linear.in_features])
    flat: Tensor = bnb.dequantize_4bit(linear.weight.data, state)
    return flat.view(linear.out_features, linear.in_features)
