"""What a recipe promises of the decoder's linears beyond how they are stored.

The census tells int8 from int4. It cannot tell scales of a token from scales of a tensor, 3 bits
that lie in 4 from 4, weights in the 2:4 pattern from others, factors from a whole linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vlmbench.errors import CensusError
from vlmbench.shipped import parts_of

if TYPE_CHECKING:
    from torch import nn

    from vlmbench.spec import Anatomy, Compression

Layout = Mapping[str, Any]
"""What a recipe's `layout` says: the `kind` of its packed linears and what they are `described` by;
`sparse24` where those of floats have the pattern, `factors` where there are some."""


def check(network: nn.Module, compression: Compression, anatomy: Anatomy) -> None:
    """Hold a loaded network against the layouts that the parts of a recipe promise.

    Raises:
        CensusError: a linear is of another.
    """
    layers = network.get_submodule(anatomy.layers)
    for part in parts_of(compression):
        faults = list(_faults(layers, getattr(part, "layout", {})))
        if faults:
            raise CensusError(
                f"the loaded model is not what {part.name!r} promises: {anatomy.layers}."
                f"{faults[0]} ({len(faults)} linears are so). The recipe's layout promises what "
                "its make does not do, or the checkpoint is another recipe's. Never compare scores "
                "of this model."
            )


def _faults(layers: nn.Module, layout: Layout) -> Iterator[str]:
    from torch import nn

    from vlmbench.layers import Factors
    from vlmbench.packed_sparse import in_pattern

    factored = [name for name, m in layers.named_modules() if isinstance(m, Factors)]
    if layout.get("factors") and not factored:
        yield "*: expected linears of two factors, found none"
    wanted = {key: value for key, value in layout.items() if key not in ("factors", "sparse24")}
    for name, linear in layers.named_modules():
        if not isinstance(linear, nn.Linear):
            continue
        if described := getattr(linear, "described", None):
            told = {"kind": type(linear).__name__, **described()}
            found = {key: told.get(key) for key in wanted}
            if found != wanted:
                yield f"{name}: expected {wanted}, found {found}"
        elif layout.get("sparse24") and name.rpartition(".")[0] not in factored:
            fits = linear.weight.is_floating_point() and linear.in_features % 4 == 0
            if fits and not in_pattern(linear.weight):
                yield f"{name}: expected at most two of every four weights, found more"
