"""How a network's linears were multiplied: small weights are no speed where they are unpacked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def products(network: nn.Module) -> dict[str, int]:
    """Number of linears by the product that ran; `network` has answered before.

    A linear of floats is told by their type, another library's by the name of its class.
    """
    from torch import nn

    linears = (module for module in network.modules() if isinstance(module, nn.Linear))
    return dict(sorted(Counter(map(_product, linears)).items()))


def _product(linear: Any) -> str:
    told = getattr(linear, "product", None)
    if isinstance(told, str):
        return told
    weight: Any = getattr(linear, "weight", None)  # another library may call its own otherwise
    state = getattr(weight, "quant_state", None)
    if state is not None:
        if getattr(state, "packing_format_for_cpu", False) or weight.device.type != "cpu":
            return f"bitsandbytes {state.quant_type}"
        return f"unpacked {state.quant_type}"
    if hasattr(weight, "SCB"):
        return "bitsandbytes int8"
    if weight is None or not weight.is_floating_point():
        return type(linear).__name__
    return str(weight.dtype).removeprefix("torch.")
