"""Weights and activations of the decoder in 8 (or 4) bits: SmoothQuant, and plain W8A8.

Paper: arXiv 2211.10438; official code: https://github.com/mit-han-lab/smoothquant. Symmetric. Where
norms make the inputs, part of a channel's range is moved into the weights first; without that,
`w8a8_tensor`, a few channels that are much larger than the rest take the whole range.

Differs from the reference: calibrated on the prompts and answers of the train splits, pictures
included; products are int8 as well where weights and activations have 4 bits; attention's own
products stay bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vlmbench.anatomy import Anatomy, Component
from vlmbench.spec import CALIBRATION, Mixture, TrainData

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmbench.calibration import Visit


@dataclass(frozen=True)
class SmoothQuant:
    """Decoder layers' linears with int8 products, a scale for each of what is named."""

    name: str
    weights: Literal["tensor", "row", "group"]
    activations: Literal["tensor", "token", "group"]
    bits: int = 8
    group: int = 128
    smooth: bool = True
    mixture: Mixture = CALIBRATION

    @property
    def layout(self) -> dict[str, Any]:
        """What a scale is shared by, and bits."""
        shared = {"weights": self.weights, "activations": self.activations}
        return {"kind": "Int8Linear", **shared, "bits": self.bits}

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """What is not quantized is bfloat16."""
        return {"dtype": "bfloat16"}

    def fits(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Refuse a decoder that cannot be split into groups, before anything is done to it."""
        from vlmbench.scaling import check_groups

        if self.bits == 4 or "group" in (self.weights, self.activations):
            check_groups(model, anatomy.layers, self.name)

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Smooth each layer by what it sees, then quantize it."""
        from vlmbench.calibration import absmax, inputs_of, walk
        from vlmbench.scaling import check_folded, linears_of

        self.fits(model, anatomy)
        for visit in walk(model, anatomy, data.batches(self.mixture)):
            largest = inputs_of(visit.layer, linears_of(visit.layer), visit.calls, absmax)
            if self.smooth:
                largest |= _smoothed(visit.layer, anatomy, largest)
                check_folded(visit)
            self._quantize(model, visit, largest)

    def _quantize(self, model: nn.Module, visit: Visit, largest: dict[str, Tensor]) -> None:
        from vlmbench.layers import put
        from vlmbench.packed import Int8Linear
        from vlmbench.scaling import linears_of

        for name, linear in linears_of(visit.layer).items():
            made = Int8Linear.of(
                linear,
                weights=self.weights,
                activations=self.activations,
                group=self.group,
                bits=self.bits,
                input_absmax=largest[name].max(),
            )
            put(model, f"{visit.name}.{name}", made)

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: it is made once."""

    def storage(self, component: Component) -> str:
        """Promise integers in the decoder."""
        return f"int{self.bits}" if component == "decoder" else "bfloat16"


def _smoothed(layer: nn.Module, anatomy: Anatomy, largest: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold factors into the norms' feeds; the largest inputs of those linears from then on."""
    from vlmbench.scaling import fold, foldable, linears_of, smoothing

    plain = linears_of(layer)
    changed: dict[str, Tensor] = {}
    for feed in anatomy.feeds:
        if feed.source not in plain and foldable(layer, feed):
            factor = smoothing(largest[feed.linears[0]], layer, feed, anatomy.smoothing)
            fold(layer, feed, factor)
            changed |= {name: largest[name] / factor for name in feed.linears}
    return changed


W8A8_TENSOR = SmoothQuant("w8a8_tensor", "tensor", "tensor", smooth=False)
SQ_W8A8_TENSOR = SmoothQuant("sq_w8a8_tensor", "tensor", "tensor")
SQ_W8A8_TOKEN = SmoothQuant("sq_w8a8_token", "row", "token")
SQ_W8A8_GROUP = SmoothQuant("sq_w8a8_group", "group", "group")
SQ_W4A4_GROUP = SmoothQuant("sq_w4a4_group", "group", "group", bits=4)
