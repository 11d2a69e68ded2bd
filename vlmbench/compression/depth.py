"""Decoder layers left out: every other one, or those that change least what they are given.

Paper: ShortGPT (arXiv 2403.03853) for block influence. Meant to be followed by fine-tuning.
Differs from the reference: by influence, the first and the last layer are always kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmbench.anatomy import Anatomy, Component
from vlmbench.spec import CALIBRATION, Mixture, TrainData

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class EveryOther:
    """Layers 0, 2, 4, ... stay."""

    def kept(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> list[int]:
        """Numbers of the layers that stay; no data is needed."""
        layers: Any = model.get_submodule(anatomy.layers)
        return list(range(0, len(layers), 2))


@dataclass(frozen=True)
class LeastInfluence:
    """The layers of least block influence go, a `share` of all, rounded down."""

    share: float
    learns: Mixture = CALIBRATION
    """Calibration samples."""

    def kept(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> list[int]:
        """Numbers of the layers that stay, the first and the last among them."""
        from vlmbench.pruning import block_influence

        influence = block_influence(model, anatomy, data.batches(self.learns))
        inner = sorted(range(1, len(influence) - 1), key=influence.__getitem__)
        dropped = set(inner[: int(self.share * len(influence))])
        return [i for i in range(len(influence)) if i not in dropped]


@dataclass(frozen=True)
class Depth:
    """A decoder with fewer layers, in float32."""

    name: str
    rule: EveryOther | LeastInfluence

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As `32bit`."""
        return {"dtype": "float32"}

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Drop the layers; configurations and layer indices follow."""
        from vlmbench.pruning import keep_layers

        keep_layers(model, anatomy, self.rule.kept(model, anatomy, data))

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: the checkpoint is shorter."""

    def storage(self, component: Component) -> str:
        """Promise float32: what stays is as it was."""
        return "float32"


DEPTH50 = Depth("depth50", EveryOther())
DEPTH50BI = Depth("depth50bi", LeastInfluence(0.5))
DEPTH25BI = Depth("depth25bi", LeastInfluence(0.25))
