"""Which module of a checkpoint is what, as data: compressions read it and never name a model.

Stdlib only, as `spec`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Component = Literal["vision", "projector", "decoder", "head"]
COMPONENTS: tuple[Component, ...] = ("vision", "projector", "decoder", "head")


@dataclass(frozen=True)
class Feed:
    """Linears of a decoder layer that share an input, and what makes it.

    A factor of the input's channels can be divided out of `source` and multiplied into `linears`
    without a change of the layer's function. Names are those within a layer.
    """

    source: str
    """A norm, or a linear: its output channels are the input's, of a fused one the last."""
    linears: tuple[str, ...]
    block: str
    """The module in which these linears work together."""


LLAMA_LIKE = (
    Feed(
        "input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn"
    ),
    Feed("self_attn.v_proj", ("self_attn.o_proj",), "self_attn.o_proj"),
    Feed("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), "mlp"),
    Feed("mlp.up_proj", ("mlp.down_proj",), "mlp.down_proj"),
)
"""The decoders of Llama, Mistral and Qwen2."""

SMOOTHING = 0.85
"""SmoothQuant's alpha for them: the share of a range that moves from activations into weights."""


@dataclass(frozen=True)
class Anatomy:
    """Which module of a checkpoint is what: dotted names of the loaded model."""

    vision: str | tuple[str, ...]
    """The tower, or several."""
    projector: str | tuple[str, ...]
    """What joins the tower to the decoder."""
    decoder: str
    layers: str
    """The decoder's list of layers."""
    head: str | tuple[str, ...]
    """What makes logits; () where none are made."""
    kept: tuple[str, ...] = field(default=(), repr=False)
    """What the architecture's own class lets no loader quantize."""
    feeds: tuple[Feed, ...] = field(default=LLAMA_LIKE, repr=False)
    """Which norm or linear feeds which linears in a decoder layer."""
    smoothing: float = field(default=SMOOTHING, repr=False)
    """Share of the activations' range that SmoothQuant moves into the weights."""

    def is_kept(self, module: str) -> bool:
        """Whether `module` (a dotted name) is part of what is kept."""
        return any(module == part or module.startswith(part + ".") for part in self.kept)

    def modules(self, component: Component) -> tuple[str, ...]:
        """The names of the modules that make up a component."""
        named: str | tuple[str, ...] = getattr(self, component)
        return (named,) if isinstance(named, str) else named

    def component(self, module: str) -> Component:
        """The component that `module` (a dotted name) belongs to; the longest match wins."""
        owners = [
            (part, component)
            for component in COMPONENTS
            for part in self.modules(component)
            if module == part or module.startswith(part + ".")
        ]
        if not owners:
            raise KeyError(f"module {module!r} is in no component of this anatomy")
        return max(owners, key=lambda owner: len(owner[0]))[1]
