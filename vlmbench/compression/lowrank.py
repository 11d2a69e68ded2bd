"""Decoder linears as products of two smaller ones, by truncated SVD.

Papers: SVD-LLM (arXiv 2403.07378) for whitening. `lowrank80` retains 0.8 of the variance of each
weight; `lowrank80w` of each output, on calibration samples. `lowrankp60` and `lowrankp60w` keep 0.6
of the parameters of each linear that is replaced, so that the two ways compare at one size.
Differs from the reference: ranks are whole multiples of what hardware likes; a linear that would
grow is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from vlmbench.anatomy import Anatomy, Component
from vlmbench.errors import UsageError
from vlmbench.spec import CALIBRATION, Mixture, TrainData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmbench.factorizing import Split

MULTIPLE = 16
"""What ranks are multiples of, where they are large: matrix units compute in tiles."""
LARGE = 64


@dataclass(frozen=True)
class Variance:
    """The least rank that retains a `share` of the variance."""

    share: float

    def rank(self, parts: Split, linear: nn.Linear) -> int:
        """The rank, rounded up where it is large."""
        from vlmbench.factorizing import pays, rank_at

        exact = rank_at(parts.singular, self.share)
        rounded = math.ceil(exact / MULTIPLE) * MULTIPLE
        return rounded if exact >= LARGE and pays(rounded, linear) else exact


@dataclass(frozen=True)
class Parameters:
    """The largest rank whose factors have no more than a `share` of the linear's weights."""

    share: float

    def rank(self, parts: Split, linear: nn.Linear) -> int:
        """The rank, rounded down where it is large."""
        sides = linear.in_features + linear.out_features
        exact = max(1, int(self.share * linear.weight.numel() / sides))
        return exact // MULTIPLE * MULTIPLE if exact >= LARGE else exact


@dataclass(frozen=True)
class LowRank:
    """Linears of the decoder's layers as `Factors`, in float32."""

    layout: ClassVar[dict[str, Any]] = {"factors": True}
    name: str
    rule: Variance | Parameters
    whitened: bool = False
    """Whether errors are weighed as the inputs of calibration samples do."""
    spared: float = 0.25
    """Share of the layers, counted from the last, that are left as they are."""
    learns: Mixture = CALIBRATION
    """Calibration samples; only where whitened."""

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As `32bit`."""
        return {"dtype": "float32"}

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Replace every linear whose factors are smaller, but for the head and spared layers.

        Raises:
            UsageError: there is none.
        """
        made = [
            self._replace(model, name, gram) for name, gram in self._linears(model, anatomy, data)
        ]
        if not any(made):
            raise UsageError(
                f"{self.name}: no linear of {anatomy.layers} has smaller factors; those that had "
                "may be factors already. Leave it out, or begin with the checkpoint before."
            )

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: the checkpoint is made of factors."""

    def storage(self, component: Component) -> str:
        """Promise float32: factors are linears."""
        return "float32"

    def _linears(
        self, model: nn.Module, anatomy: Anatomy, data: TrainData
    ) -> Iterator[tuple[str, Tensor | None]]:
        """Every linear's dotted name, with X^T X of its inputs where that is to be regarded."""
        from vlmbench.calibration import gram, inputs_of, walk
        from vlmbench.factorizing import whole

        layers: Any = model.get_submodule(anatomy.layers)
        count = len(layers) - math.ceil(self.spared * len(layers))
        if not self.whitened:
            for index, layer in enumerate(layers[:count]):
                for name in whole(layer):
                    yield f"{anatomy.layers}.{index}.{name}", None
            return
        for visit in islice(walk(model, anatomy, data.batches(self.learns)), count):
            for name, seen in inputs_of(visit.layer, whole(visit.layer), visit.calls, gram).items():
                yield f"{visit.name}.{name}", seen

    def _replace(self, model: nn.Module, name: str, gram: Tensor | None) -> bool:
        from vlmbench.factorizing import factorized, pays, split
        from vlmbench.layers import put

        linear: Any = model.get_submodule(name)
        parts = split(linear.weight, gram)
        rank = self.rule.rank(parts, linear)
        smaller = pays(rank, linear)
        if smaller:
            put(model, name, factorized(linear, parts, rank))
        return smaller


LOWRANK80 = LowRank("lowrank80", Variance(0.8))
LOWRANK50 = LowRank("lowrank50", Variance(0.5))
LOWRANK80W = LowRank("lowrank80w", Variance(0.8), whitened=True)
LOWRANKP60 = LowRank("lowrankp60", Parameters(0.6))
LOWRANKP60W = LowRank("lowrankp60w", Parameters(0.6), whitened=True)
