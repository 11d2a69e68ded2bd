"""Weights as codes of 4 bits, two in a byte: rounding, and the orders that bytes are kept in.

Paper: arXiv 2306.00978 (AWQ), section 2; official code: github.com/mit-han-lab/llm-awq.

Differs from the reference: a group's range takes in zero, so that groups of one sign keep their
largest weights; a scale is a bfloat16 number (held in float32), as packed products want it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

GROUP = 128
"""Input channels that share a scale, where a recipe does not say."""
_LEAST_GROUP = 8

Order = Callable[[Tensor, int], Tensor]
"""(bytes [out, in / 2], in_features) -> codes uint8 [out, in]."""


def group_size(in_features: int, group: int) -> int:
    """The largest even divisor of `in_features` that is no larger than `group`.

    Raises:
        ValueError: there is none of at least 8, so scales would weigh as much as the weights.
    """
    sizes = range(min(group, in_features), _LEAST_GROUP - 1, -1)
    found = next((size for size in sizes if size % 2 == 0 and in_features % size == 0), None)
    if found is None:
        raise ValueError(
            f"{in_features} input channels cannot be split into equal groups of an even number "
            f"from {_LEAST_GROUP} to {group}: keep this linear as it is"
        )
    return found


def quantized(weight: Tensor, group: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Round each group of `weight` [out, in] to the nearest of 2^bits even steps.

    Returns codes uint8 [out, in], scales float32 and zeros uint8 [out, groups]; a weight is about
    (code - zero) * scale. Where a weight is not finite, its group's scale is not either.
    """
    most = 2**bits - 1
    size = group_size(weight.shape[1], group)
    groups = weight.detach().float().reshape(len(weight), -1, size)
    low, high = groups.amin(2).clamp_max(0), groups.amax(2).clamp_min(0)
    scales = ((high - low) / most).bfloat16().float()
    scales[scales == 0] = 1
    zeros = (-low / scales).round_().clamp_(0, most)
    codes = groups.div(scales[..., None]).round_().add_(zeros[..., None]).clamp_(0, most)
    return codes.flatten(1).to(torch.uint8), scales, zeros.to(torch.uint8)


def restored(codes: Tensor, scales: Tensor, zeros: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights [out, in] that codes stand for: (code - zero) * scale, rounded once to `dtype`.

    The difference is made in bytes, where it wraps, and read with a sign.
    """
    signed = codes.view(*scales.shape, -1).sub(zeros[..., None]).view(torch.int8)
    return signed.to(dtype).mul_(scales[..., None].to(dtype)).flatten(1)


def rounded(weight: Tensor, group: int = GROUP, bits: int = 4) -> Tensor:
    """What quantizing leaves of `weight` [out, in]: float32, to the bit what a layer keeps."""
    return restored(*quantized(weight, group, bits), torch.float32)


def parts(total: int, size: int, device: torch.device) -> Iterator[slice]:
    """Slices of `total` rows: on CPU so small that they stay in its cache, elsewhere one.

    One, too, where they are compiled: their number would be a graph of its own for each length.
    """
    if device.type != "cpu" or torch.compiler.is_compiling():
        return iter([slice(0, total)])
    return (slice(first, min(first + size, total)) for first in range(0, total, size))


def halves(codes: Tensor) -> Tensor:
    """Codes [out, in] as they are saved: a byte has one of the row's first half low."""
    first, second = codes.chunk(2, dim=1)
    return first | (second << 4)


def of_halves(packed: Tensor, in_features: int) -> Tensor:
    """Inverse of `halves`."""
    return torch.cat([packed & 15, packed >> 4], dim=1)


def of_blocks(packed: Tensor, in_features: int, block: int) -> Tensor:
    """Codes from the order of CPU products: by blocks of rows, transposed, halves of rows paired.

    The block is 64 rows with AVX-512 and 32 with AVX2.
    """
    pairs = packed.view(-1, in_features, block // 2).transpose(1, 2).contiguous()
    return torch.stack([pairs & 15, pairs >> 4], dim=1).view(-1, in_features)


def of_tiles(packed: Tensor, in_features: int) -> Tensor:
    """Codes from the order of CUDA products: 8 x 16 tiles, 8 along the input, a lane's together."""
    words = packed.view(-1, in_features // 128, 8, 4, 4, 2, 2)
    pairs = torch.stack([words & 15, words >> 4], dim=-1)
    # rows of a tile; then tiles, pairs of tiles, tile, half, lane, and the pair in a lane
    return pairs.permute(0, 2, 1, 4, 6, 7, 3, 5).reshape(-1, in_features)


def for_products(codes: Tensor, group: int) -> tuple[Tensor, Order] | None:
    """Codes [out, in] in the order of the device's packed product, and what undoes it exactly.

    None where there is no such product for the device and shape, or the order is not known.
    """
    if group not in (32, 64, 128, 256):
        return None
    try:
        packed, orders = _packed(codes)
        found = (order for order in orders if torch.equal(order(packed, codes.shape[1]), codes))
        return next(((packed, order) for order in found), None)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, RuntimeError):  # what torch raises for what it lacks
        return None


def _packed(codes: Tensor) -> tuple[Tensor, list[Order]]:
    if codes.device.type == "cpu":
        blocks = (block for block in (64, 32) if len(codes) % block == 0)
        orders: list[Order] = [partial(of_blocks, block=block) for block in blocks]
        return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1), orders
    pairs = (codes[:, ::2] << 4) | codes[:, 1::2]
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    return packed.view(torch.uint8).view(len(codes), -1), [of_tiles]
