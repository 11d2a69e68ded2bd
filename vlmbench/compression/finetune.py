"""Fine-tuning: what a decoder has lost by a recipe before it, it learns again from train samples.

Loss, masking and prompts are those of evaluation: only the answer's tokens count. AdamW with a
warm-up of 50 steps, then a cosine down to 2 %, weight decay 0.01, gradients clipped at 1.0, three
epochs; an answer counts by the root of its length (`finetuning.answer_loss`).

Papers: arXiv 1711.05101 (AdamW), arXiv 2106.09685 (LoRA, through peft), arXiv 2203.03466 (muP: the
wider the matrices, the smaller AdamW's steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vlmbench.spec import Anatomy, Component, Mixture, TrainData

if TYPE_CHECKING:
    from torch import nn

SAMPLES = 1536
EVENLY = Mixture(SAMPLES)


@dataclass(frozen=True)
class FineTune:
    """The decoder learns on `mixture`; tower, projector and head stay as they are."""

    trains: ClassVar[bool] = True
    width: ClassVar[int] = 128
    """Hidden size up to which `rate` holds; wider decoders take proportionally smaller steps."""
    name: str
    mixture: Mixture = EVENLY
    rate: float = 1e-3
    """Peak learning rate of a decoder `width` wide; for one of 3072 it is the published 4e-5.

    With half of the embedded Qwen2-VL's layers dropped, 1.5e-3 brought more of docvqa and flickr30k
    back on validation than 4e-4 (0.36 and 0.63 exact, against 0.25 and 0.52), all else alike.
    """
    epochs: int = 3
    batch: int = 16
    lora_rank: int | None = None
    """Of the low-rank updates that are learnt in place of the weights (peft); None: all weights."""

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """As it was trained."""
        return {"dtype": "float32"}

    def make(self, model: nn.Module, anatomy: Anatomy, data: TrainData) -> None:
        """Train, going on where an earlier session stopped."""
        from vlmbench.finetuning import finetune

        finetune(model, anatomy, data, self)

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: it is learnt."""

    def storage(self, component: Component) -> str:
        """Promise float32, everywhere."""
        return "float32"


def _on(dataset: str) -> FineTune:
    return FineTune(f"ft_on_{dataset}", Mixture(SAMPLES, (dataset,)))


FT = FineTune("ft")
LORA = FineTune("lora", lora_rank=8, rate=2e-3)
ON_DOCVQA, ON_VQAV2, ON_SCIENCEQA = _on("docvqa"), _on("vqav2"), _on("scienceqa")
ON_FLICKR30K, ON_CLIPS, ON_VIDEOQA = _on("flickr30k"), _on("clips"), _on("videoqa")
