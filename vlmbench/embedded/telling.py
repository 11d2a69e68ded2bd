"""What stands in place of a tower and projector while labels are shown, not pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from vlmbench.embedded import inheritance


class _Tower(nn.Module):
    """Hands labels on as what a tower sees of views, or as its hidden states.

    The latter stand behind a token of the whole, which LLaVAs take off.
    """

    def forward(self, pixel_values: Tensor, **options: Any) -> BaseModelOutput:
        """Of labels [views, numbers, side, side]."""
        shown = pixel_values.flatten(2).transpose(1, 2)
        states = torch.cat([torch.zeros_like(shown[:, :1]), shown], dim=1)
        # Whichever of the last layers is asked for.
        return BaseModelOutput(last_hidden_state=shown, hidden_states=(states, states))


class _Projector(nn.Module):
    """Says labels [views, tokens, numbers] as `words` do, which stay as they are."""

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words, requires_grad=False)

    def forward(self, shown: Tensor, **options: Any) -> Tensor:
        """What the decoder is given: [views, tokens, dim]."""
        return inheritance.said(shown.flatten(0, 1), self.words).view(*shown.shape[:2], -1)


@contextmanager
def told(model: Any, sees: tuple[str, str], words: Tensor) -> Iterator[None]:
    """Show labels to a `model`; `sees` names its tower and its projector."""
    before = [getattr(model, name) for name in sees]
    for name, stand_in in zip(sees, (_Tower(), _Projector(words)), strict=True):
        setattr(model, name, stand_in)
    try:
        yield
    finally:
        for name, module in zip(sees, before, strict=True):
            setattr(model, name, module)


def shaped(labels: Tensor, side: int) -> Tensor:
    """Labels [views, tokens, numbers] in the shape of pixels: [views, numbers, side, side]."""
    return labels.transpose(1, 2).reshape(len(labels), -1, side, side)
