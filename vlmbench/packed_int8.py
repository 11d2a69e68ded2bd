"""The linear of 8 bit weights and 8 bit activations (W8A8), multiplied as integers.

Paper: arXiv 2211.10438 (SmoothQuant), section 4; official code: github.com/mit-han-lab/smoothquant.
With 4 bits a code (W4A4) two are kept in a byte and multiplied as 8 bit integers: no device here
has a product of 4 bit integers.

Differs from the reference: products are really of integers, not of floats that were rounded, and
nothing saturates at -128, which no code takes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmbench.packed_codes import GROUP, group_size, parts

Weights = Literal["tensor", "row", "group"]
Activations = Literal["tensor", "token", "group"]

# Inputs that are rounded, and sums that are rescaled, at a time on CPU: they stay in its cache.
_INPUTS, _SUMS = 2**16, 2**18
# Keeps the scale of zeros from being zero; far below what a bfloat16 activation means.
_LEAST = 1e-30


class Int8Linear(nn.Linear):
    """A linear of integers: `weight` int8 [out, in], or [out, in / 2] of 4 bits; `scales`.

    `scales` is float32: [1], [out] or [out, groups]. `input_scales` [1], where activations share
    one, was measured beforehand; else each token, or each group of it, has its own.
    """

    scales: Tensor
    input_scales: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool,
        *,
        weights: Weights,
        activations: Activations,
        group: int = GROUP,
        bits: int = 8,
    ) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make the float weight first
        if bits not in (4, 8):
            raise ValueError(f"integers of {bits} bits were asked for; expected 4 or 8")
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        self.weights, self.activations = weights, activations
        grouped = "group" in (weights, activations)
        self.group = group_size(in_features, group) if grouped or bits == 4 else group
        self.groups = in_features // self.group if grouped else 1
        shape = {"tensor": (1,), "row": (out_features,), "group": (out_features, self.groups)}
        weight = torch.empty(out_features, in_features * bits // 8, dtype=torch.int8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scales", torch.empty(shape[weights], dtype=torch.float32))
        if activations == "tensor":
            self.register_buffer("input_scales", torch.empty(1, dtype=torch.float32))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)

    @classmethod
    def of(
        cls, linear: nn.Linear, *, input_absmax: Tensor | None = None, **sizes: Any
    ) -> Int8Linear:
        """`linear` with each weight rounded to the nearest code; `sizes` as for a new one.

        `input_absmax` is the largest absolute input, needed where activations share one scale.
        """
        has_bias = linear.bias is not None
        with linear.weight.device:
            made = cls(linear.in_features, linear.out_features, has_bias, **sizes)
        weights = linear.weight.detach().float().reshape(made.scales.numel(), -1)
        scales = weights.abs().amax(1).clamp_min(_LEAST) / made.most
        codes = (weights / scales[:, None]).round_().clamp_(-made.most, made.most).to(torch.int8)
        codes = codes.view(linear.weight.shape)
        made.weight.data = codes if made.bits == 8 else _halves(codes)
        made.scales = scales.view_as(made.scales)
        if made.activations == "tensor":
            if input_absmax is None:
                raise ValueError("activations that share a scale need input_absmax, got None")
            made.input_scales.copy_(input_absmax.max().clamp_min(_LEAST) / made.most)
        if has_bias:
            made.bias.data = linear.bias.detach().clone()
        return made

    def described(self) -> dict[str, Any]:
        """What shares a scale, group size and bits."""
        named = ("weights", "activations", "group", "bits")
        return {name: getattr(self, name) for name in named}

    def extra_repr(self) -> str:
        """Sizes, as other linears tell them."""
        return ", ".join([super().extra_repr(), *(f"{k}={v}" for k, v in self.described().items())])

    @property
    def most(self) -> int:
        """The largest code: 127, or 7 of 4 bits; the least is its negative."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def product(self) -> str:
        """Which product runs, on every device."""
        return "int8 x int8" if self.bits == 8 else "int8 x int8 of unpacked int4"

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights [out, in] that the codes stand for."""
        rows = self._integers(slice(None)).float().view(self.scales.numel(), -1)
        weights = rows.mul_(self.scales.view(-1, 1)).view(self.out_features, self.in_features)
        return weights.to(dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply as integers and rescale in float32; the output has the input's dtype."""
        rows = input.reshape(-1, input.shape[-1])
        codes, scales = self._rounded(rows)
        out = rows.new_empty(len(rows), self.out_features)
        (self._by_groups if self.groups > 1 else self._at_once)(codes, scales, out)
        return out.view(*input.shape[:-1], self.out_features)

    def _rounded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Codes int8 [tokens, in] and scales [tokens, 1 or groups].

        A scale that is not finite marks the tokens that are not: integers cannot.
        """
        shared = self.activations == "tensor"
        count = self.groups if self.activations == "group" else 1
        codes = torch.empty_like(rows, dtype=torch.int8)
        scales = rows.new_empty(len(rows), count, dtype=torch.float32)
        for some in parts(len(rows), max(1, _INPUTS // self.in_features), rows.device):
            part = rows[some].to(torch.float32, copy=True)
            pieces = part.view(-1, count, self.in_features // count)
            peaks = pieces.abs().amax(2, keepdim=True)
            if shared:
                peaks.mul_(0).add_(self.input_scales)
            else:
                peaks.clamp_min_(_LEAST).div_(self.most)
            scales[some] = peaks.squeeze(2)
            pieces.div_(peaks).round_()
            # Where each has its own scale, none is beyond the largest code.
            codes[some] = part.clamp_(-self.most, self.most) if shared else part
        return codes, scales

    def _at_once(self, codes: Tensor, scales: Tensor, out: Tensor) -> None:
        sums = _product(codes, self._integers(slice(None)))
        row_scales = self.scales.flatten()
        for some in parts(len(out), max(1, _SUMS // self.out_features), out.device):
            part = sums[some].float().mul_(row_scales).mul_(scales[some])
            out[some] = part if self.bias is None else part.add_(self.bias)

    def _by_groups(self, codes: Tensor, scales: Tensor, out: Tensor) -> None:
        """One product a group, summed in float32."""
        token_scales = scales.expand(-1, self.groups)
        row_scales = self.scales.view(len(self.scales), -1).expand(self.out_features, self.groups)
        spans = [slice(g * self.group, (g + 1) * self.group) for g in range(self.groups)]
        for some in parts(self.out_features, max(64, _SUMS // max(1, len(out))), out.device):
            weight = self._integers(some)
            part = torch.zeros(len(out), len(weight), device=out.device)
            for g, span in enumerate(spans):
                sums = _product(codes[:, span], weight[:, span]) * token_scales[:, g, None]
                part.addcmul_(sums, row_scales[some, g])
            out[:, some] = part if self.bias is None else part.add_(self.bias[some])

    def _integers(self, some: slice) -> Tensor:
        """Codes of some rows as int8 [rows, in]."""
        packed = self.weight[some]
        return packed if self.bits == 8 else torch.cat([packed << 4 >> 4, packed >> 4], dim=1)


def _halves(codes: Tensor) -> Tensor:
    """Two signed codes in a byte: one of the row's first half low."""
    first, second = codes.chunk(2, dim=1)
    return (first & 15) | (second << 4)


def _product(codes: Tensor, weight: Tensor) -> Tensor:
    """Integer products [tokens, out] of codes [tokens, in] and weight [out, in].

    CUDA wants more than 16 tokens, and channels by eights.
    """
    tokens, (rows, channels) = len(codes), weight.shape
    if codes.device.type != "cuda":
        return torch._int_mm(codes, weight.t())
    if channels % 8 or rows % 8:
        weight = functional.pad(weight, (0, -channels % 8, 0, -rows % 8))
    codes = functional.pad(codes, (0, -channels % 8, 0, max(0, 17 - tokens)))
    return torch._int_mm(codes, weight.t())[:tokens, :rows]
