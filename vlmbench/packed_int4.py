"""The linear of 4 bit weights and 16 bit activations (W4A16).

Codes of 3 bits are kept in 4 as well: they show what 3 bits cost in answers, not what they save.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmbench.packed_codes import (
    GROUP,
    Order,
    for_products,
    group_size,
    halves,
    of_halves,
    parts,
    quantized,
    restored,
)

# Up to so many tokens the packed product is the faster one.
_FEW_TOKENS = 64
# Rows unpacked at a time on CPU; a multiple of every block of rows.
_ROWS = 256


class Int4Linear(nn.Linear):
    """A linear of 4 bit weights: `weight` uint8 [out, in / 2], `scales` and `zeros` by groups.

    Few tokens are multiplied with the packed weights, many with weights unpacked to bfloat16. The
    first forward brings the bytes into the order of the packed product, where that can be undone;
    a layer that is saved, loaded or moved has them in its own order again.

    Differs from the reference: packed products round a group's offset, (8 - zero) * scale, to
    bfloat16, where unpacked weights are rounded one by one.
    """

    scales: Tensor
    zeros: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        *,
        group: int = GROUP,
        bits: int = 4,
    ) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make the float weight first
        if bits not in (3, 4):
            raise ValueError(f"weights of {bits} bits were asked for; expected 3 or 4")
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        self.group = group_size(in_features, group)
        weight = torch.empty(out_features, in_features // 2, dtype=torch.uint8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        grouped = (out_features, in_features // self.group)
        self.register_buffer("scales", torch.empty(grouped, dtype=torch.float32))
        self.register_buffer("zeros", torch.empty(grouped, dtype=torch.uint8))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)
        self._order: Order = of_halves
        self._table: Tensor | None = None
        self._tried = False

    @classmethod
    def of(cls, linear: nn.Linear, *, group: int = GROUP, bits: int = 4) -> Int4Linear:
        """`linear` with each weight rounded to the nearest code."""
        has_bias = linear.bias is not None
        with linear.weight.device:
            made = cls(linear.in_features, linear.out_features, has_bias, group=group, bits=bits)
        codes, made.scales, made.zeros = quantized(linear.weight, group, bits)
        made.weight.data = halves(codes)
        if has_bias:
            made.bias.data = linear.bias.detach().clone()
        return made

    def described(self) -> dict[str, Any]:
        """Group size and bits."""
        return {"group": self.group, "bits": self.bits}

    def extra_repr(self) -> str:
        """Sizes, as other linears tell them."""
        return f"{super().extra_repr()}, group={self.group}, bits={self.bits}"

    @property
    def product(self) -> str:
        """How few tokens are multiplied; many are by unpacked weights in any case."""
        return "unpacked bfloat16" if self._tried and self._table is None else "int4pack"

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights [out, in] that the codes stand for."""
        return self._floats(slice(None), dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply in bfloat16; the output has the input's dtype."""
        rows = input.reshape(-1, input.shape[-1]).bfloat16()
        if getattr(getattr(self, "_hf_hook", None), "offload", False):
            # accelerate has just put the file's bytes back, past all that a layer is told of.
            self._order, self._table, self._tried = of_halves, None, False
        if not self._tried:
            self.pack()
        few = self._table is not None and 0 < len(rows) <= _FEW_TOKENS
        out = (self._by_packed(rows) if few else self._by_unpacked(rows)).to(input.dtype)
        out = out if self.bias is None else out.add_(self.bias)
        return out.view(*input.shape[:-1], self.out_features)

    def _by_packed(self, rows: Tensor) -> Tensor:
        operators: Any = torch.ops.aten
        if rows.device.type == "cpu":
            multiply: Callable[..., Tensor] = operators._weight_int4pack_mm_for_cpu
            return multiply(rows, self.weight, self.group, self._table)
        tiles = self.weight.view(torch.int32).view(self.out_features // 8, -1, 32, 4)
        out: Tensor = operators._weight_int4pack_mm(rows, tiles, self.group, self._table)
        return out

    def _by_unpacked(self, rows: Tensor) -> Tensor:
        out = rows.new_empty(len(rows), self.out_features)
        for some in parts(self.out_features, _ROWS, rows.device):
            out[:, some] = functional.linear(rows, self._floats(some, rows.dtype))
        return out

    def _floats(self, some: slice, dtype: torch.dtype) -> Tensor:
        codes = self._order(self.weight[some], self.in_features)
        return restored(codes, self.scales[some], self.zeros[some], dtype)

    @torch.inference_mode(False)
    def pack(self) -> None:
        """Bring the bytes into the order of the packed product, where there is one."""
        self._tried = True
        found = for_products(of_halves(self.weight, self.in_features), self.group)
        if found:
            offsets = (8 - self.zeros.float()) * self.scales
            table = torch.stack([self.scales, offsets], dim=-1).transpose(0, 1)
            self._table = table.bfloat16().contiguous()
            packed, self._order = found
            self.weight = nn.Parameter(packed, requires_grad=False)

    @torch.inference_mode(False)
    def _unpack(self) -> None:
        """Bring the bytes into the layer's own order again."""
        if self._table is not None:
            codes = self._order(self.weight, self.in_features)
            self.weight = nn.Parameter(halves(codes), requires_grad=False)
        self._order, self._table, self._tried = of_halves, None, False

    def _save_to_state_dict(self, *args: Any) -> None:
        self._unpack()
        super()._save_to_state_dict(*args)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._unpack()
        super()._load_from_state_dict(*args)

    def _apply(self, *args: Any, **options: Any) -> Int4Linear:
        self._unpack()
        super()._apply(*args, **options)  # type: ignore[no-untyped-call]  # torch's own
        return self
