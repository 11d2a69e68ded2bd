"""What is compared, on what, and what came of it: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder."""

    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    layers: int
    vocabulary: int

    def __str__(self) -> str:
        return (
            f"{self.hidden} wide, {self.layers} layers, mlp {self.mlp}, "
            f"{self.heads} heads on {self.kv_heads}, vocabulary {self.vocabulary}"
        )


@dataclass(frozen=True)
class Speed:
    """How many times as fast as the base; None: nothing is said of it."""

    decode: float | None = None
    prefill: float | None = None


@dataclass(frozen=True)
class Contest:
    """Recipes with their floors, what they are compared with, and on what."""

    shape: Shape
    base: str
    recipes: Mapping[str, Speed]
    prompt: int = 300
    """Tokens of the prompt whose prefill is timed."""
    start: int = 32
    """Tokens of the prompt behind which decoding is timed."""
    steps: int = 16
    """Tokens that are decoded after the first."""


# 16 bit can only keep its floor where a CPU multiplies bfloat16 by tiles (AMX).
CPU = Contest(
    Shape(hidden=1536, mlp=8960, heads=12, kv_heads=2, layers=8, vocabulary=4096),
    "32bit",
    {
        "16bit": Speed(prefill=3.0),
        "8bit": Speed(),
        "4bit": Speed(1.3, 0.5),
        "awq_w4a16": Speed(1.6, 1.0),
        "sq_w8a8_tensor": Speed(),
        "sq_w8a8_token": Speed(1.3, 3.0),
        "sq_w8a8_group": Speed(),
        "sq_w4a4_group": Speed(),
        "depth50": Speed(1.8, 1.0),
        "lowrank50": Speed(1.4, 1.0),
    },
)
CUDA = Contest(
    Shape(hidden=1536, mlp=8960, heads=12, kv_heads=2, layers=28, vocabulary=151936),
    "16bit",
    {
        name: Speed()
        for name in (
            *("8bit", "4bit", "awq_w4a16"),
            *("sq_w8a8_tensor", "sq_w8a8_token", "sq_w8a8_group", "sq_w4a4_group"),
            *("depth50+16bit", "lowrank50+16bit", "prune24s"),
        )
    },
)
"""The shape of Qwen2-VL-2B's decoder; what has no packed weights is bfloat16."""


@dataclass(frozen=True)
class Times:
    """Of one variant, for one prompt."""

    prefill_s: float
    decode_s_per_token: float


@dataclass(frozen=True)
class Result:
    """A recipe beside its base, measured in turns."""

    recipe: str
    floors: Speed
    base: Times
    made: Times
    weight_bytes: int
    product: str
    """How most of the decoder's linears were multiplied."""
    peak_bytes: int | None = None
    """Weights and prefill together, where the device counts them."""

    @property
    def speed(self) -> Speed:
        """The base's times over the recipe's."""
        return Speed(
            self.base.decode_s_per_token / self.made.decode_s_per_token,
            self.base.prefill_s / self.made.prefill_s,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "speed": asdict(self.speed)}
