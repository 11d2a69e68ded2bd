"""Logits that are no numbers: which samples have them, and the module they first appear in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlmbench.errors import NumericsError

if TYPE_CHECKING:
    from torch import Tensor, nn


class NonFinite(Exception):
    """Some rows of a batch have logits that are NaN or infinite."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(rows)
        self.rows = rows


@contextmanager
def watched(head: nn.Module) -> Iterator[None]:
    """While open, a forward pass whose logits [batch, tokens, vocabulary] are not finite raises.

    Raises:
        NonFinite: with the numbers of the rows.
    """

    def check(module: nn.Module, args: Any, logits: Tensor) -> None:
        finite = logits.isfinite()
        if not bool(finite.all()):
            rows = (~finite.flatten(1).all(1)).nonzero()[:, 0]
            raise NonFinite(rows.tolist())

    hook = head.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def explain(network: Any, inputs: Mapping[str, Any]) -> NumericsError:
    """One pass over the inputs that failed: the error that names the module where it began."""
    import torch

    first: list[str] = []

    def check(name: str, output: Any) -> None:
        tensors = output if isinstance(output, tuple | list) else [output]
        floats = [t for t in tensors if torch.is_tensor(t) and t.is_floating_point()]
        if not first and not all(bool(t.isfinite().all()) for t in floats):
            first.append(name)

    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: check(name, output))
        for name, module in network.named_modules()
        if name and not any(module.children())
    ]
    try:
        network(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    where = f"first in {first[0]}" if first else "though every module's output is finite"
    return NumericsError(
        f"the logits are NaN or infinite, {where}. Look at its weights and at what the recipe did "
        "to them; a wider --dtype shows whether it is overflow."
    )
