"""Where a network's weights go: to one device, or in part to memory and else to disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmbench.errors import UsageError


def placement(options: Mapping[str, Any], device: str, *, quantized: bool) -> dict[str, Any]:
    """The `device_map` for `from_pretrained`: the recipe's where it has one, else the device.

    Raises:
        UsageError: weights are to stay on disk that cannot.
    """
    if "device_map" not in options:
        return {"device_map": {"": device}}
    if device != "cpu":
        raise UsageError(
            f"offload keeps weights in memory and on disk, to compute on the CPU, and the device "
            f"is {device!r}. Leave out the one or the other."
        )
    if quantized:
        raise UsageError(
            "offload reads weights from disk as they are, and bitsandbytes keeps what it quantizes "
            "in memory. Chain offload with recipes that bitsandbytes has no part in."
        )
    return {"device_map": options["device_map"]}
