"""The linear whose zeros, two of every four weights, are not stored (2:4 sparsity).

The bytes lie in the order of CUTLASS, as torch converts them, so that GPUs of compute capability
8.x (A100, RTX 30 and 40, Jetson Orin) multiply them as they are and skip the zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUP = 4
"""Consecutive weights along the input, of which two are zeroed."""
_ROWS, _COLUMNS = 32, 64
"""What sizes must be multiples of; torch states it for its products (16-bit floats)."""


class Sparse24Linear(nn.Linear):
    """A linear of two weights in four: `weight` bfloat16 [out, in / 2]; `places` [out, in / 16].

    A number of `places`, int16, tells of four times four weights which two of each are kept.
    Where no product skips zeros, weights are unpacked for every product.
    """

    places: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make the float weight first
        if in_features % _COLUMNS or out_features % _ROWS:
            raise ValueError(
                f"a linear of {out_features} x {in_features} cannot be stored without its zeros: "
                f"expected multiples of {_ROWS} x {_COLUMNS}"
            )
        self.in_features, self.out_features = in_features, out_features
        weight = torch.empty(out_features, in_features // 2, dtype=torch.bfloat16)
        self.weight = nn.Parameter(weight, requires_grad=False)
        places = torch.empty(out_features, in_features // 16, dtype=torch.int16)
        self.register_buffer("places", places)
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)

    @classmethod
    def of(cls, linear: nn.Linear) -> Sparse24Linear:
        """`linear` in bfloat16 without its zeros.

        Raises:
            ValueError: its sizes do not fit, or more than two of some four weights are not zero.
        """
        has_bias = linear.bias is not None
        with linear.weight.device:
            made = cls(linear.in_features, linear.out_features, has_bias)
        dense = linear.weight.detach().bfloat16()
        if not in_pattern(dense):
            raise ValueError("more than two of four weights are not zero: prune them first")
        made.weight.data, made.places = _cutlass().sparse_semi_structured_from_dense_cutlass(dense)
        if has_bias:
            made.bias.data = linear.bias.detach().clone()
        return made

    def described(self) -> dict[str, Any]:
        """Nothing beside the sizes of the linear."""
        return {}

    @property
    def product(self) -> str:
        """Which product runs: one that skips zeros, or one of unpacked weights."""
        return "2:4 sparse" if _skips_zeros(self.weight.device) else "unpacked bfloat16"

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights [out, in], zeros included."""
        packed = self.weight, self.places
        dense: Tensor = _cutlass().sparse_semi_structured_to_dense_cutlass(*packed)
        return dense.to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply in bfloat16; the output has the input's dtype."""
        rows = input.reshape(-1, self.in_features).bfloat16()
        sparse = len(rows) and _skips_zeros(rows.device)
        weight = self._as_sparse() if sparse else self.dequantized(torch.bfloat16)
        out = functional.linear(rows, weight).to(input.dtype)
        out = out if self.bias is None else out.add_(self.bias)
        return out.view(*input.shape[:-1], self.out_features)

    def _as_sparse(self) -> Tensor:
        """A view of the stored tensors as torch's tensor of its own kind."""
        kind = torch.sparse.SparseSemiStructuredTensorCUTLASS
        size = torch.Size([self.out_features, self.in_features])
        return kind(size, self.weight.data, self.places, None, None, None)


def in_pattern(weight: Tensor) -> bool:
    """Whether of every four weights [out, in] along the input at least two are zero."""
    if weight.ndim != 2 or weight.shape[1] % GROUP:
        return False
    return bool(((weight.view(len(weight), -1, GROUP) != 0).sum(-1) <= GROUP // 2).all())


def _cutlass() -> Any:
    from torch.sparse import _semi_structured_conversions

    return _semi_structured_conversions


def _skips_zeros(device: torch.device) -> bool:
    """Whether torch has a product for the device that takes CUTLASS's order."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 8
