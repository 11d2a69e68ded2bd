"""Embedding the patches of a picture, as the matrix product that it is.

Processors such as Qwen2-VL's hand over patches already cut out, and the network embeds each by a
convolution whose kernel covers all of it. As a convolution that takes a fifth of the time of
answering a batch on CPU, as a product next to none.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def as_products(network: nn.Module) -> int:
    """Let every such convolution of a loaded network multiply; how many there are.

    Weights, names and results stay as they are, but for the rounding of sums. Inputs larger than
    the kernel are convolved as ever.
    """
    from torch import nn

    found = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d) and _plain(m)]
    for convolution in found:
        # accelerate has a forward of its own, which fetches the weight first, and then calls this.
        place = "_old_forward" if hasattr(convolution, "_old_forward") else "forward"
        setattr(convolution, place, MethodType(_embed, convolution))
    return len(found)


def _plain(convolution: nn.Conv2d | nn.Conv3d) -> bool:
    return (
        convolution.groups == 1
        and not any(convolution.padding)
        and set(convolution.dilation) == {1}
        and convolution.kernel_size == convolution.stride
    )


def _embed(convolution: Any, patches: Tensor) -> Tensor:
    from torch import nn

    if tuple(patches.shape[2:]) != convolution.kernel_size:
        plain: Tensor = type(convolution).forward(convolution, patches)
        return plain
    weight = convolution.weight.flatten(1)
    made = nn.functional.linear(patches.flatten(1), weight, convolution.bias)
    return made.view(*made.shape, *[1] * len(convolution.kernel_size))
