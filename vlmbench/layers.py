"""Linears of another make: what recipes put in place, and how a saved network gets them again.

A network's configuration tells under FIELD, by module name, the kind and sizes of every layer that
was put in place, so that a folder as `save_pretrained` writes it is all there is to a checkpoint.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

from torch import nn

from vlmbench.errors import CheckpointError
from vlmbench.packed import Int4Linear, Int8Linear, Sparse24Linear

FIELD = "vlmbench_layers"


class Described(Protocol):
    """A layer that can tell how to make an empty one like it."""

    in_features: int
    out_features: int

    def described(self) -> dict[str, Any]:
        """Its sizes beside those of the linear it stands for, as keyword arguments."""


class Factors(nn.Sequential):
    """A linear as the product of two: out x rank times rank x in; the bias is the second's."""

    def __init__(self, in_features: int, out_features: int, bias: bool, *, rank: int) -> None:
        super().__init__(
            nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features, bias=bias)
        )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank

    def described(self) -> dict[str, Any]:
        """The rank."""
        return {"rank": self.rank}


_KINDS = (Factors, Int4Linear, Int8Linear, Sparse24Linear)
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in _KINDS}


def put(network: nn.Module, name: str, layer: Any) -> None:
    """Put `layer` in the place of the linear `name`, and have the configuration tell of it."""
    network.set_submodule(name, layer)
    told = {"kind": type(layer).__name__, **layer.described()}
    config: Any = network.config
    setattr(config, FIELD, {**getattr(config, FIELD, {}), name: told})


@functools.cache
def shaped(cls: Any) -> Any:
    """`cls`, whose networks are built with the layers that their configuration tells of."""

    class Shaped(cls):  # type: ignore[misc]  # a class of transformers
        # Scales stay float32 where all else is loaded as bfloat16.
        _keep_in_fp32_modules_strict = frozenset(
            {*(cls._keep_in_fp32_modules_strict or ()), "scales"}
        )

        def __init__(self, config: Any, *args: Any, **options: Any) -> None:
            super().__init__(config, *args, **options)
            for name, told in getattr(config, FIELD, {}).items():
                self.set_submodule(name, _empty(self, name, **told))

    # transformers renames the keys only of classes that it takes for its own.
    Shaped.__name__, Shaped.__module__ = cls.__name__, cls.__module__
    return Shaped


def _empty(network: nn.Module, name: str, kind: str, **sizes: Any) -> nn.Module:
    try:
        old: Any = network.get_submodule(name)
        made: nn.Module = KINDS[kind](
            old.in_features, old.out_features, old.bias is not None, **sizes
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"config.json tells of a layer {name} of kind {kind} {sizes}, which cannot be made "
            f"({type(error).__name__}: {error}). Expected what vlmbench compress wrote."
        ) from None
    made._is_hf_initialized = True  # type: ignore[assignment]  # codes cannot be drawn at random
    return made
