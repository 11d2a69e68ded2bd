"""What can be left out of a decoder: whole layers, and two weights of every four.

Papers: ShortGPT (arXiv 2403.03853) for block influence, Wanda (arXiv 2306.11695,
https://github.com/locuslab/wanda) for weights.
Differs from the reference: a layer is judged by what it sees in the network as it came, not behind
layers that have been pruned before it; padding does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vlmbench.calibration import inputs_of, walk
from vlmbench.errors import UsageError
from vlmbench.layers import FIELD
from vlmbench.packed_sparse import GROUP, in_pattern

if TYPE_CHECKING:
    from torch import Tensor

    from vlmbench.anatomy import Anatomy

    Batches = Sequence[Mapping[str, Any]]


def block_influence(network: nn.Module, anatomy: Anatomy, batches: Batches) -> list[float]:
    """How far each decoder layer turns what it is given: 1 - mean cosine over all real tokens."""
    influence = []
    for visit in walk(network, anatomy, batches):
        cosines = [
            nn.functional.cosine_similarity(
                call.tokens(call.hidden).double(), call.tokens(after.hidden).double(), dim=-1
            )
            for call, after in zip(visit.calls, visit.after, strict=True)
        ]
        influence.append(1 - torch.cat(cosines).mean().item())
    return influence


def keep_layers(network: nn.Module, anatomy: Anatomy, kept: Sequence[int]) -> None:
    """Shorten the decoder in place to the layers `kept`; configurations and indices follow.

    Without the configurations a reload would make up the missing layers at random; without the
    indices a cache would be asked for layers it does not have.

    Raises:
        UsageError: no layer would be left, or none dropped.
    """
    layers: Any = network.get_submodule(anatomy.layers)
    if not 0 < len(kept) < len(layers):
        raise UsageError(
            f"{len(kept)} of {len(layers)} layers in {anatomy.layers} would be kept: expected at "
            "least one kept and one dropped. Take a recipe that drops less, or a deeper network."
        )
    for config in _configs(network, anatomy.layers):
        _shorten(config, kept)
    _rename(network.config, anatomy.layers, kept)
    network.set_submodule(anatomy.layers, nn.ModuleList(layers[i] for i in kept))
    for index, old in enumerate(kept):
        for module in layers[old].modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index


def _configs(network: nn.Module, layers: str) -> list[Any]:
    """Every configuration that tells of these layers: of all modules around them, once each."""
    parts = layers.split(".")
    around = [network.get_submodule(".".join(parts[:depth])) for depth in range(len(parts))]
    inside = list(network.get_submodule(layers).modules())
    found = [getattr(module, "config", None) for module in (*around, *inside)]
    texts = [config.get_text_config() for config in found if config is not None]
    return list({id(config): config for config in texts}.values())


def _shorten(config: Any, kept: Sequence[int]) -> None:
    """What it tells layer by layer follows: their kinds, which of them rotate positions, ..."""
    count, config.num_hidden_layers = config.num_hidden_layers, len(kept)
    for name, told in vars(config).items():
        if isinstance(told, list | tuple) and len(told) == count:
            setattr(config, name, type(told)(told[i] for i in kept))


def _rename(config: Any, layers: str, kept: Sequence[int]) -> None:
    """Have the configuration tell of replaced linears by the names that they have from now on."""
    told = getattr(config, FIELD, None)
    if told is None:
        return
    numbers = {str(old): str(new) for new, old in enumerate(kept)}
    renamed = {}
    for name, layer in told.items():
        inner = name.removeprefix(f"{layers}.")
        number, _, rest = inner.partition(".")
        if inner == name:
            renamed[name] = layer
        elif number in numbers:
            renamed[f"{layers}.{numbers[number]}.{rest}"] = layer
    setattr(config, FIELD, renamed)


@torch.no_grad()
def prune_two_of_four(network: nn.Module, anatomy: Anatomy, batches: Batches) -> None:
    """Zero two of every four weights of the decoder's linears, those that matter least.

    A linear whose inputs are no multiple of four is left as it is.
    """
    for visit in walk(network, anatomy, batches):
        linears = {
            name: module
            for name, module in visit.layer.named_modules()
            if type(module) is nn.Linear and module.in_features % GROUP == 0
        }
        energies = inputs_of(visit.layer, linears, visit.calls, energy)
        for name, linear in linears.items():
            linear.weight.copy_(two_of_four(linear.weight, energies[name].sqrt()))


@contextmanager
def zeros_kept(layers: nn.Module) -> Iterator[int]:
    """Have 2:4 weights learn what is not zero alone, until the block ends; how many there are.

    A weight without a gradient is not moved by AdamW, and none is decayed away from zero.
    """
    held = [
        weight.register_hook((weight != 0).to(weight.dtype).mul)  # type: ignore[no-untyped-call]
        for weight in layers.parameters()
        if weight.requires_grad and weight.any() and in_pattern(weight)
    ]
    yield len(held)
    for handle in held:
        handle.remove()


def energy(before: Tensor | None, inputs: Tensor) -> Tensor:
    """Each channel's sum of squares, [dim] in float64: a reduction for `inputs_of`."""
    squares = inputs.double().square().sum(0)
    return squares if before is None else before + squares


def two_of_four(weight: Tensor, norms: Tensor) -> Tensor:
    """`weight` [out, in] without the two of every four that have the least |w| * norm.

    `norms` [in]: the 2-norm of each input channel over all tokens. Of equals the first goes.
    """
    groups = (weight.abs() * norms).view(len(weight), -1, GROUP)
    least = groups.argsort(dim=-1, stable=True)[..., : GROUP // 2]
    kept = torch.ones_like(groups, dtype=torch.bool).scatter_(-1, least, False)
    return weight * kept.flatten(1)
