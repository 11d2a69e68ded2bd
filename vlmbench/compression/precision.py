"""Plain precisions, nothing quantized; and weights as a checkpoint has them, whatever that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmbench.spec import Anatomy, Component

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Precision:
    """All weights as `dtype` (a torch name)."""

    name: str
    dtype: str

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Always name the dtype: without it a checkpoint loads as it happens to be stored."""
        return {"dtype": self.dtype}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: the loader has done it."""

    def storage(self, component: Component) -> str:
        """Promise the one dtype, everywhere."""
        return self.dtype


AS_STORED = "as stored"
"""What a recipe promises that leaves it to the checkpoint."""


@dataclass(frozen=True)
class Stored:
    """All weights as the checkpoint has them: one that was compressed here, or by its vendor."""

    name: str

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """The dtype that config.json tells."""
        return {"dtype": "auto"}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: the loader has done it."""

    def storage(self, component: Component) -> str:
        """Promise nothing: what vlmbench compressed is held against its own census."""
        return AS_STORED


FLOAT32 = Precision("32bit", "float32")
BFLOAT16 = Precision("16bit", "bfloat16")
STORED = Stored("stored")
