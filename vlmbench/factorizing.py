"""A linear's weight as a product of two smaller ones, plain or with regard to its inputs.

Papers: truncated SVD; whitening from SVD-LLM (arXiv 2403.07378,
https://github.com/AIoT-MLSys-Lab/SVD-LLM).
Differs from the reference: everything is computed in float64; a ridge is added only where the
inputs do not tell all channels apart, and then is as small as float64 allows; all layers are
calibrated on what they see in the network as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from vlmbench.layers import Factors

if TYPE_CHECKING:
    from torch import Tensor

# Of the mean energy of a channel: below this a pivot of the Cholesky factor is rounding noise.
_NOISE = 1e-10


@dataclass(frozen=True)
class Split:
    """A weight [out, in] as left @ diag(singular) @ right, largest first, in float64."""

    left: Tensor
    """[out, k]"""
    singular: Tensor
    """[k]"""
    right: Tensor
    """[k, in]"""

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """The two weights at a rank: [rank, in] and [out, rank]; the root of S goes to each."""
        root = self.singular[:rank].sqrt()
        return root[:, None] * self.right[:rank], self.left[:, :rank] * root


def split(weight: Tensor, gram: Tensor | None = None) -> Split:
    """Decompose `weight` [out, in]; `gram` [in, in] is X^T X of its inputs X [tokens, in].

    With it, the dropped singular values squared add up to the squared error of the output on X,
    and no product of that rank has a smaller one.
    """
    wide = weight.detach().double()
    if gram is None:
        return Split(*torch.linalg.svd(wide, full_matrices=False))
    root = whitening(gram)
    left, singular, right = torch.linalg.svd(wide @ root, full_matrices=False)
    return Split(
        left, singular, torch.linalg.solve_triangular(root, right, upper=False, left=False)
    )


def whitening(gram: Tensor) -> Tensor:
    """The lower triangular S with S S^T = `gram`, with a ridge where that is singular."""
    least = _NOISE * gram.diagonal().mean()
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(gram)
    if failed or root.diagonal().square().min() < least:
        ridge = torch.full_like(gram.diagonal(), 10 * float(least)).diag()
        root = torch.linalg.cholesky(gram + ridge)
    return root


def whole(layer: nn.Module) -> list[str]:
    """Names of the linears of a layer that are neither packed nor factors already."""
    inner = {id(part) for made in layer.modules() if isinstance(made, Factors) for part in made}
    named = layer.named_modules()
    return [name for name, m in named if type(m) is nn.Linear and id(m) not in inner]


def rank_at(singular: Tensor, share: float) -> int:
    """The least rank that retains `share` of the variance (the sum of squared singular values)."""
    retained = singular.double().square().cumsum(0)
    short = int((retained < share * retained[-1]).sum())
    return min(short + 1, len(singular))


def pays(rank: int, linear: nn.Linear) -> bool:
    """Whether factors of that rank have fewer weights than the linear."""
    return rank * (linear.in_features + linear.out_features) < linear.weight.numel()


@torch.no_grad()
def factorized(linear: nn.Linear, parts: Split, rank: int) -> Factors:
    """`linear` as two linears; the bias, where there is one, is the second's."""
    has_bias = linear.bias is not None
    made = Factors(linear.in_features, linear.out_features, has_bias, rank=rank)
    made.to(linear.weight)
    state = dict(zip(("0.weight", "1.weight"), parts.factors(rank), strict=True))
    if has_bias:
        state["1.bias"] = linear.bias
    made.load_state_dict(state)
    return made
