"""bitsandbytes through transformers: LLM.int8 and NF4 with double quantization.

Papers: arXiv 2208.07339 (LLM.int8), arXiv 2305.14314 (NF4). `8bit` and `4bit` quantize every
linear but the head, which is what transformers does by itself; `lm8bit` and `lm4bit` quantize the
decoder alone and keep vision tower and projector, which 4 bit is known to ruin first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vlmbench.spec import Anatomy, Component

if TYPE_CHECKING:
    from torch import nn

# What is not quantized stays bfloat16, as the checkpoints were published. LLM.int8 casts the input
# of each quantized linear to float16 by itself; a network that is float16 throughout would avoid
# that cast, but its residual stream overflows at 65504 and half of CPU kernels are slow in it.
_KEPT = "bfloat16"


@dataclass(frozen=True)
class BitsAndBytes:
    """Linears stored as `kind`, except in the components that are `kept`."""

    name: str
    kind: Literal["int8", "nf4"]
    kept: frozenset[Component]

    def load_options(self, anatomy: Anatomy) -> dict[str, Any]:
        """Skip the kept components, each by its full dotted name.

        A name is matched from the start of a module's full name (`visual` would skip nothing of
        `model.visual`), and any list at all replaces the default protection of the head.
        """
        from transformers import BitsAndBytesConfig

        kept = [name for component in self.kept for name in anatomy.modules(component)]
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers' own
            load_in_8bit=self.kind == "int8",
            load_in_4bit=self.kind == "nf4",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=_KEPT,
            llm_int8_skip_modules=sorted(kept),
        )
        return {"dtype": _KEPT, "quantization_config": config}

    def apply(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Do nothing: the loader has done it."""

    def storage(self, component: Component) -> str:
        """Promise the quantized kind, or the dtype of what is kept."""
        return _KEPT if component in self.kept else self.kind


_HEAD: frozenset[Component] = frozenset({"head"})
_ALL_BUT_DECODER: frozenset[Component] = frozenset({"vision", "projector", "head"})

INT8 = BitsAndBytes("8bit", "int8", _HEAD)
NF4 = BitsAndBytes("4bit", "nf4", _HEAD)
LM_INT8 = BitsAndBytes("lm8bit", "int8", _ALL_BUT_DECODER)
LM_NF4 = BitsAndBytes("lm4bit", "nf4", _ALL_BUT_DECODER)
