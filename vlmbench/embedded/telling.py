"""What stands in place of a LLaVA's tower and projector while labels are shown, not pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from vlmbench.embedded import inheritance


class _Tower(nn.Module):
    """Hands labels on as the hidden states of views, behind a token of the whole."""

    def forward(self, labels: Tensor, **options: Any) -> BaseModelOutput:
        """Of `labels` [views, numbers, side, side]."""
        shown = labels.flatten(2).transpose(1, 2)
        states = torch.cat([torch.zeros_like(shown[:, :1]), shown], dim=1)
        # Whichever of the last layers is asked for.
        return BaseModelOutput(hidden_states=(states, states))


class _Projector(nn.Module):
    """Says labels [views, tokens, numbers] as `words` do, which stay as they are."""

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words, requires_grad=False)

    def forward(self, shown: Tensor) -> Tensor:
        """What the decoder is given: [views, tokens, dim]."""
        return inheritance.said(shown.flatten(0, 1), self.words).view(*shown.shape[:2], -1)


@contextmanager
def told(model: Any, tower: str, words: Tensor) -> Iterator[None]:
    """Show labels to a LLaVA's `model`, in which pictures are seen by the module named `tower`."""
    seen = getattr(model, tower), model.multi_modal_projector
    setattr(model, tower, _Tower())
    model.multi_modal_projector = _Projector(words)
    try:
        yield
    finally:
        setattr(model, tower, seen[0])
        model.multi_modal_projector = seen[1]


def shaped(labels: Tensor, side: int) -> Tensor:
    """Labels [views, tokens, numbers] in the shape of pixels: [views, numbers, side, side]."""
    return labels.transpose(1, 2).reshape(len(labels), -1, side, side)
