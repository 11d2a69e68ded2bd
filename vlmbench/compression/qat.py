"""Quantization-aware fine-tuning: the decoder learns with weights as 4 bit will round them.

Papers: LLM-QAT (arXiv 2305.17888) for the way, arXiv 1308.3432 for the gradient that passes the
rounding straight through. To be followed by `4bit`: the chain is `qat4bit`.
Differs from the reference: it learns from the train splits' answers, without a teacher; NF4 with
doubly quantized scales in place of integers; activations and the cache are not quantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vlmbench.compression.finetune import FineTune
from vlmbench.errors import UsageError
from vlmbench.spec import Anatomy, Component, TrainData

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class QuantizationAware:
    """Fine-tuning while every linear but the head computes as if in NF4.

    Tower and projector are rounded as well, as `4bit` rounds them, though the decoder alone learns:
    it learns to live with what it will be given.
    """

    trains: ClassVar[bool] = True
    name: str
    tuning: FineTune

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As it was trained."""
        return {"dtype": "float32"}

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Train; the weights that were learnt are kept unrounded.

        Raises:
            UsageError: low-rank updates would be learnt beside rounded weights, and rounded later.
        """
        from vlmbench.finetuning import finetune
        from vlmbench.nf4 import simulated

        if self.tuning.lora_rank is not None:
            raise UsageError(
                f"{self.name}: low-rank updates would be learnt beside the rounded weights, and be "
                "rounded with them later: another network. Fine-tune all weights."
            )
        with simulated(model, anatomy):
            finetune(model, anatomy, data, self.tuning)

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: it is learnt."""

    def storage(self, component: Component) -> str:
        """Promise float32, everywhere."""
        return "float32"


QAT = QuantizationAware("qat", FineTune("qat"))
