"""Rounding of weights that minds what they are multiplied with: AWQ's searches.

Paper: arXiv 2306.00978; official code: https://github.com/mit-han-lab/llm-awq.

Differs from the reference: a weight's error is taken over all calibration tokens, through the
products of the input's channels with each other, where the reference keeps 512 tokens; both ends
of a group's range shrink, where the reference clips at the larger one's magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from vlmbench.calibration import Visit, inputs_of, within
from vlmbench.layers import put
from vlmbench.packed import GROUP, Int4Linear, group_size, rounded
from vlmbench.scaling import linears_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmbench.anatomy import Feed

_LEAST = 1e-4
"""Of a factor before it is normalised, as in the reference."""
_UNCLIPPED = frozenset(
    "q_proj k_proj qkv_proj query key query_key_value Wqkv wqkv c_attn qkv".split()
)
"""What is multiplied with each other: clipping it would be felt twice."""


def round_layer(network: nn.Module, name: str, bits: int) -> None:
    """Put rounded, packed linears in the place of all linears of the layer `name`."""
    for inner, linear in linears_of(network.get_submodule(name)).items():
        put(network, f"{name}.{inner}", Int4Linear.of(linear, group=GROUP, bits=bits))


def mean_magnitude(visit: Visit, feed: Feed) -> Tensor:
    """Mean magnitude of each channel of the feed's input, [dim]."""

    def add(before: Tensor | None, inputs: Tensor) -> Tensor:
        # The last entry counts the tokens.
        total = pad(inputs.abs(), (0, 1), value=1.0).sum(0, dtype=torch.float64)
        return total if before is None else total + before

    name = feed.linears[0]
    total = inputs_of(visit.layer, [name], visit.calls, add)[name]
    return (total[:-1] / total[-1]).float()


def best_factor(visit: Visit, feed: Feed, bits: int, steps: int) -> Tensor:
    """AWQ's factor of a feed's input, [dim]: that with the least error of the block's output.

    Powers i / steps of the mean magnitudes are tried. Power 0 is plain rounding, so the error is
    never above that.
    """
    mean = mean_magnitude(visit, feed)
    with within(visit, feed.block) as block:
        tried = [candidate(mean, i / steps) for i in range(steps)]
        errors = [factor_error(visit.layer, block, feed, factor, bits) for factor in tried]
    return tried[errors.index(min(errors))]


def candidate(mean: Tensor, power: float) -> Tensor:
    """A power of the mean magnitudes, such that the largest times the smallest is 1."""
    factor = mean.pow(power).clamp(min=_LEAST)
    return factor / (factor.max() * factor.min()).sqrt()


@torch.no_grad()
def factor_error(layer: nn.Module, block: Visit, feed: Feed, factor: Tensor, bits: int) -> float:
    """Squared error of the block's output where the feed's weights are rounded under `factor`."""
    weights = [layer.get_parameter(f"{name}.weight") for name in feed.linears]
    originals = [weight.data for weight in weights]
    try:
        for weight in weights:
            weight.data = rounded(weight.data * factor, GROUP, bits) / factor
        pairs = zip(block.calls, block.after, strict=True)
        return sum(
            float(
                call.tokens(call.run(block.layer) - made.hidden).square().sum(dtype=torch.float64)
            )
            for call, made in pairs
        )
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.data = original


@torch.no_grad()
def clip(visit: Visit, bits: int, steps: int, *, least: float = 0.5) -> None:
    """Clip each group of weights at the share of its range that gives the least output error.

    `steps` shares are tried, from 1 down to (not including) `least`.
    """
    clipped = {
        name: linear
        for name, linear in linears_of(visit.layer).items()
        if not {*name.split(".")} & _UNCLIPPED  # factors stand below their linear
    }

    def add(before: Tensor | None, inputs: Tensor) -> Tensor:
        parts = _grouped(inputs.double()).transpose(0, 1)
        total = parts.mT @ parts
        return total if before is None else total + before

    grams = inputs_of(visit.layer, clipped, visit.calls, add)
    for name, linear in clipped.items():
        linear.weight.copy_(clipped_weight(linear.weight, grams[name], bits, steps, least))


def clipped_weight(weight: Tensor, grams: Tensor, bits: int, steps: int, least: float) -> Tensor:
    """A weight [out, in] whose groups are clipped for the least error, as `clip` says.

    `grams` [groups, width, width] are the products of the input's channels within each group.
    """
    parts = _grouped(weight)
    low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
    best, lowest = parts, torch.full(parts.shape[:2], torch.inf, device=weight.device).double()
    for step in range(steps):
        share = 1 - (1 - least) * step / steps
        cut = parts.clamp(low * share, high * share)
        stored = _grouped(rounded(cut.flatten(1), GROUP, bits))
        missed = (stored - parts).double().transpose(0, 1)
        error = ((missed @ grams) * missed).sum(-1).T
        best = torch.where((error < lowest)[..., None], cut, best)
        lowest = lowest.minimum(error)
    return best.flatten(1)


def _grouped(rows: Tensor) -> Tensor:
    """[rows, in] as [rows, groups, width], the groups those of rounding."""
    return rows.reshape(len(rows), -1, group_size(rows.shape[1], GROUP))
