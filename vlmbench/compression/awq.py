"""Weights of the decoder in 4 or 3 bits, activations in 16: rounding to nearest, and AWQ.

Paper: arXiv 2306.00978 (AWQ); official code: https://github.com/mit-han-lab/llm-awq. Asymmetric,
in groups of 128 along the input. `rtn_*` rounds and does no more, `awq_*` searches factors of the
input's channels and clips first, `awqs2_*` doubles the salient 1 % of channels instead.

Differs from the reference: calibrated on the prompts and answers of the train splits, pictures
included, where the reference takes text of the Pile; vision tower, projector, embeddings and head
stay bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vlmbench.anatomy import Anatomy, Component, Feed
from vlmbench.spec import CALIBRATION, Mixture, TrainData

if TYPE_CHECKING:
    from torch import nn

    from vlmbench.calibration import Visit


class Preparation(Protocol):
    """What is done to a decoder layer before its weights are rounded."""

    def prepare(self, visit: Visit, feeds: Iterable[Feed], bits: int) -> None:
        """Change the weights of a visited layer, not what it computes but for clipping."""


@dataclass(frozen=True)
class Search:
    """AWQ: the best of `powers` powers of the mean activations, then of `shrinks` clippings."""

    powers: int = 20
    shrinks: int = 10

    def prepare(self, visit: Visit, feeds: Iterable[Feed], bits: int) -> None:
        """Fold the best factor into every feed that takes one, then clip."""
        from vlmbench import rounding, scaling

        for feed in feeds:
            if scaling.foldable(visit.layer, feed):
                factor = rounding.best_factor(visit, feed, bits, self.powers)
                scaling.fold(visit.layer, feed, factor)
        scaling.check_folded(visit)
        rounding.clip(visit, bits, self.shrinks)


@dataclass(frozen=True)
class Salient:
    """A fixed factor on the share of channels (rounded up) that are most active."""

    factor: float = 2.0
    share: float = 0.01

    def prepare(self, visit: Visit, feeds: Iterable[Feed], bits: int) -> None:
        """Fold the factor into every feed that takes one."""
        from vlmbench import rounding, scaling

        for feed in feeds:
            if scaling.foldable(visit.layer, feed):
                mean = rounding.mean_magnitude(visit, feed)
                factor = scaling.salient(mean, self.share, self.factor)
                scaling.fold(visit.layer, feed, factor)
        scaling.check_folded(visit)


@dataclass(frozen=True)
class WeightOnly:
    """Decoder layers' linears in `bits`, packed two to a byte; None prepares nothing."""

    name: str
    bits: int
    preparation: Preparation | None = None
    mixture: Mixture = CALIBRATION
    """What it is calibrated on, where there is a preparation."""

    @property
    def layout(self) -> dict[str, Any]:
        """Bits: those of 3 lie in 4."""
        return {"kind": "Int4Linear", "bits": self.bits}

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """What is not packed is bfloat16, and so are activations."""
        return {"dtype": "bfloat16"}

    def fits(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Refuse a decoder that cannot be split into groups, before anything is done to it."""
        from vlmbench.scaling import check_groups

        check_groups(model, anatomy.layers, self.name)

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Prepare each layer by what it sees, then round it."""
        from vlmbench.calibration import walk
        from vlmbench.rounding import round_layer

        self.fits(model, anatomy)
        if self.preparation:
            for visit in walk(model, anatomy, data.batches(self.mixture)):
                self.preparation.prepare(visit, anatomy.feeds, self.bits)
        layers: Any = model.get_submodule(anatomy.layers)
        for index in range(len(layers)):
            round_layer(model, f"{anatomy.layers}.{index}", self.bits)

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: it is made once."""

    def storage(self, component: Component) -> str:
        """Promise packed codes in the decoder; those of 3 bits lie in four."""
        return "int4" if component == "decoder" else "bfloat16"


RTN_W4 = WeightOnly("rtn_w4a16", 4)
RTN_W3 = WeightOnly("rtn_w3a16", 3)
AWQ_W4 = WeightOnly("awq_w4a16", 4, Search())
AWQ_W3 = WeightOnly("awq_w3a16", 3, Search())
AWQ_S2 = WeightOnly("awqs2_w4a16", 4, Salient())
