"""Factors of a feed's channels: divided out of what makes them, multiplied into what takes them.

The layer computes what it did, but its weights and activations have other ranges, which rounding
can tell apart. SmoothQuant (arXiv 2211.10438, https://github.com/mit-han-lab/smoothquant) and AWQ
(arXiv 2306.00978, https://github.com/mit-han-lab/llm-awq) differ in how they choose the factors.

Differs from the references: one set of factors for all architectures, by their anatomies; a fused
linear's last channels can be a source, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vlmbench.errors import UsageError
from vlmbench.packed_codes import GROUP, group_size

if TYPE_CHECKING:
    from torch import Tensor

    from vlmbench.anatomy import Feed
    from vlmbench.calibration import Visit

_UNCHANGED = 1e-2
"""Relative change of what a layer adds, from which on it computes something else."""
_LEAST = 1e-5
"""Least range of a channel: one that is never used would be divided by zero."""


def linears_of(layer: nn.Module) -> dict[str, nn.Linear]:
    """Every plain linear of a decoder layer by its name in there."""
    return {name: part for name, part in layer.named_modules() if type(part) is nn.Linear}


def check_groups(network: nn.Module, layers: str, recipe: str) -> None:
    """Refuse a decoder that cannot be packed by groups, before anything is done to it.

    Raises:
        UsageError: a linear's input has no such groups, as factors of an odd rank have none.
    """
    for name, linear in linears_of(network.get_submodule(layers)).items():
        try:
            group_size(linear.in_features, GROUP)
        except ValueError as error:
            raise UsageError(
                f"{recipe}: {layers}.{name}: {error}. Take 8bit or 4bit in its place, or leave out "
                "what made this linear."
            ) from None


def foldable(layer: nn.Module, feed: Feed) -> bool:
    """Whether every output channel of the feed's source is one channel of the linears' input.

    It is not under grouped-query attention, where a value feeds several heads, and where a linear
    has been replaced or a norm has no weight.

    Raises:
        UsageError: the layer has no such modules.
    """
    _check(layer, feed)
    plain = linears_of(layer)
    if not all(name in plain for name in feed.linears):
        return False
    source: Any = layer.get_submodule(feed.source)
    owner = layer.get_submodule(feed.source.rpartition(".")[0])
    shared = getattr(owner, "num_key_value_groups", 1) != 1
    if not isinstance(source, nn.Linear):
        return multiplies(source)
    return feed.source in plain and not shared


@torch.no_grad()
def multiplies(norm: Any) -> bool:
    """Whether what a norm puts out is a multiple of its weight [dim], but for a bias.

    Not where it has none, and not of Gemma's, which multiply with 1 + weight.
    """
    weight: Tensor | None = getattr(norm, "weight", None)
    if weight is None or weight.ndim != 1:
        return False
    inputs = torch.arange(len(weight), dtype=weight.dtype, device=weight.device)[None]
    made = torch.func.functional_call(norm, {"weight": torch.zeros_like(weight)}, (inputs,))
    bias = getattr(norm, "bias", None)
    return torch.equal(made[0], torch.zeros_like(made[0]) if bias is None else bias)


@torch.no_grad()
def check_folded(visit: Visit) -> None:
    """Refuse a layer that computes something else since factors were folded into it.

    Raises:
        UsageError: the anatomy's feeds are not those of the architecture.
    """
    call, after = next(iter(visit.calls)), next(iter(visit.after)).hidden
    adds = after - call.hidden if after.shape == call.hidden.shape else after
    missed = (call.run(visit.layer) - after).norm() / adds.norm()
    if not missed < _UNCHANGED:
        raise UsageError(
            f"{visit.name}: factors folded by the anatomy's feeds change what "
            f"{type(visit.layer).__name__} computes ({float(missed):.0%} off): a feed names a "
            "source that is not all its linears take. Give the model's anatomy the feeds of its "
            "architecture."
        )


def _check(layer: nn.Module, feed: Feed) -> None:
    there = dict(layer.named_modules())
    missing = [name for name in (feed.source, *feed.linears, feed.block) if name not in there]
    if missing:
        raise UsageError(
            f"the anatomy says that {feed.source} feeds {', '.join(feed.linears)}, but "
            f"{type(layer).__name__} has no {missing[0]!r}. Expected names within a decoder layer: "
            "give the model's anatomy the feeds of its architecture."
        )


@torch.no_grad()
def fold(layer: nn.Module, feed: Feed, factor: Tensor) -> None:
    """Divide `factor` [dim] out of the feed's source, multiply it into its linears' columns."""
    source: Any = layer.get_submodule(feed.source)
    # Of a fused linear, the last channels are those of the values, or of the gated half.
    made = slice(source.weight.shape[0] - len(factor), None)
    source.weight[made] /= factor.view(-1, *[1] * (source.weight.ndim - 1))
    if getattr(source, "bias", None) is not None:
        source.bias[made] /= factor
    for linear in _taking(layer, feed):
        linear.weight *= factor


def _taking(layer: nn.Module, feed: Feed) -> list[Any]:
    """The feed's linears; of two factors, the first takes the inputs."""
    found: list[Any] = [layer.get_submodule(name) for name in feed.linears]
    return [one[0] if isinstance(one, nn.Sequential) else one for one in found]


def smoothing(largest: Tensor, layer: nn.Module, feed: Feed, alpha: float) -> Tensor:
    """SmoothQuant's factor, [dim]: `alpha` of the inputs' range moves into the weights.

    `largest` [dim] is each input channel's largest magnitude.
    """
    weights = [
        layer.get_parameter(f"{name}.weight").detach().abs().amax(0) for name in feed.linears
    ]
    of_weights = torch.stack(weights).amax(0).clamp(min=_LEAST)
    factor = largest.clamp(min=_LEAST) ** alpha / of_weights ** (1 - alpha)
    return factor.clamp(min=_LEAST)


@contextmanager
def evened(layers: Iterable[nn.Module], feeds: Iterable[Feed]) -> Iterator[None]:
    """Have norms make all channels about as loud until the block ends.

    What is computed is the same. Behind a channel that is much louder than others stand weights
    that are as much smaller. An optimizer that takes equal steps everywhere (AdamW, Muon) would
    move them too far, by what they do. Factors are powers of two: nothing is rounded. A linear
    knows what its inputs' columns were multiplied with as `evened`, [in].
    """
    made = [
        (layer, feed, _loudness(gain.detach()))
        for layer in layers
        for feed in feeds
        if (gain := _gain(layer, feed)) is not None
    ]
    for layer, feed, factor in made:
        fold(layer, feed, factor)
        for linear in _taking(layer, feed):
            linear.evened = factor
    yield
    for layer, feed, factor in made:
        fold(layer, feed, 1 / factor)
        for linear in _taking(layer, feed):
            del linear.evened


def _gain(layer: nn.Module, feed: Feed) -> Tensor | None:
    _check(layer, feed)
    source: Any = layer.get_submodule(feed.source)
    return source.weight if multiplies(source) else None


def _loudness(gain: Tensor) -> Tensor:
    gain = gain.abs()
    return 2.0 ** (gain / gain.median().clamp(min=_LEAST)).clamp(min=1.0).log2().round()


def salient(mean: Tensor, share: float, factor: float) -> Tensor:
    """`factor` for that share of channels, rounded up, whose mean magnitude is largest; else 1."""
    made = torch.ones_like(mean)
    made[mean.topk(ceil(share * len(mean))).indices] = factor
    return made
