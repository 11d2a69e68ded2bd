"""Two of every four weights zeroed, the pattern that GPUs compute at twice the speed.

Paper: Wanda (arXiv 2306.11695). Of four consecutive weights along the input the two with the least
|w| * ||x|| go, ||x|| being the 2-norm of the input channel on calibration samples.
Differs from the reference: see `vlmbench.pruning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmbench.anatomy import Anatomy, Component
from vlmbench.spec import CALIBRATION, Mixture, TrainData

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TwoOfFour:
    """Linears of the decoder's layers in the 2:4 pattern, stored with their zeros in float32."""

    name: str
    learns: Mixture = CALIBRATION
    """Calibration samples."""

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As `32bit`."""
        return {"dtype": "float32"}

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Zero the weights."""
        from vlmbench.pruning import prune_two_of_four

        prune_two_of_four(model, anatomy, data.batches(self.learns))

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: torch's semi-structured weights would lose some of these.

        In float32 they keep one of every two weights, not two of every four, and drop in silence
        what does not fit (torch 2.13). In bfloat16 they would fit.
        """

    def storage(self, component: Component) -> str:
        """Promise float32: zeros are stored as any weight."""
        return "float32"


PRUNE24 = TwoOfFour("prune24")
