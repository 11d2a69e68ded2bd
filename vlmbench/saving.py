"""What a loaded network is on disk: how many bytes, and how it is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def file_bytes(network: nn.Module) -> int:
    """Bytes of the tensors `save_pretrained` would write: weight files less their headers.

    Only before the first forward pass: on CPU, NF4's `state_dict` then rounds its scales again.
    """
    written = {}
    for tensor in network.state_dict(keep_vars=True).values():
        # Tied tensors are written once; those left on disk have no address.
        written[(tensor.data_ptr() or id(tensor), tuple(tensor.shape))] = tensor
    return sum(tensor.numel() * tensor.element_size() for tensor in written.values())


def write(network: Any, processor: Any, folder: Path, *, dtype: str) -> None:
    """Write a float32 network as `save_pretrained` does, its weights as `dtype` (a torch name).

    Scales of packed weights stay float32.
    """
    import torch

    wanted = getattr(torch, dtype)
    state = {
        name: tensor.to(wanted) if tensor.is_floating_point() and "scales" not in name else tensor
        for name, tensor in network.state_dict().items()
    }
    network.config.dtype = wanted
    network.save_pretrained(folder, state_dict=state)
    processor.save_pretrained(folder)
