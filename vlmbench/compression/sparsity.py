"""Two of every four weights zeroed, the pattern that GPUs compute at twice the speed.

Paper: Wanda (arXiv 2306.11695). Of four consecutive weights along the input the two with the least
|w| * ||x|| go, ||x|| being the 2-norm of the input channel on calibration samples.
Differs from the reference: see `vlmbench.pruning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vlmbench.anatomy import Anatomy, Component
from vlmbench.errors import UsageError
from vlmbench.spec import CALIBRATION, Mixture, TrainData

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TwoOfFour:
    """Linears of the decoder's layers in the 2:4 pattern, stored with their zeros in float32.

    So that others can go on from it.
    """

    layout: ClassVar[dict[str, Any]] = {"sparse24": True}
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
        """Do nothing: it is made once."""

    def storage(self, component: Component) -> str:
        """Promise float32: zeros are stored as any weight."""
        return "float32"


@dataclass(frozen=True)
class Packed(TwoOfFour):
    """The same in bfloat16 without the zeros: 9 bits a weight, sparse products on some GPUs."""

    layout: ClassVar[dict[str, Any]] = {"kind": "Sparse24Linear"}

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """What is not packed is bfloat16, and so are activations."""
        return {"dtype": "bfloat16"}

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Zero the weights, then leave the zeros out.

        Raises:
            UsageError: a linear's sizes do not fit.
        """
        from vlmbench.layers import put
        from vlmbench.packed import Sparse24Linear
        from vlmbench.scaling import linears_of

        super().make(model, anatomy, data)
        for name, linear in linears_of(model.get_submodule(anatomy.layers)).items():
            try:
                put(model, f"{anatomy.layers}.{name}", Sparse24Linear.of(linear))
            except ValueError as error:
                raise UsageError(
                    f"{self.name}: {anatomy.layers}.{name}: {error}. Take prune24, which stores "
                    "them."
                ) from None

    def storage(self, component: Component) -> str:
        """Promise half of the decoder's weights, and their places."""
        return "sparse24" if component == "decoder" else "bfloat16"


PRUNE24 = TwoOfFour("prune24")
PRUNE24_STORED = Packed("prune24s")
