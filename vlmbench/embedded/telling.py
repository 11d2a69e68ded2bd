"""What stands in place of a tower and projector while labels are shown, not pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from vlmbench.embedded import inheritance


class Tower(nn.Module):
    """Says labels as `words` do, which stay as they are, in place of what a tower sees of views.

    Hidden states stand behind a token of the whole, which says what an empty label does; LLaVAs
    take it off, but for Video-LLaVA's films.
    """

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words, requires_grad=False)

    def forward(self, pixel_values: Tensor, **options: Any) -> BaseModelOutput:
        """Of labels [views, numbers, side, side]."""
        shown = pixel_values.flatten(2).transpose(1, 2)
        shown = torch.nn.functional.pad(shown, (0, 0, 1, 0))
        states = inheritance.said(shown.flatten(0, 1), self.words).view(*shown.shape[:2], -1)
        # Whichever of the last layers is asked for.
        return BaseModelOutput(last_hidden_state=states[:, 1:], hidden_states=(states, states))


class Projector(nn.Module):
    """Hands on what is said already; frames may have been pooled before."""

    def forward(self, said: Tensor, **options: Any) -> Tensor:
        """As it is: [views, tokens, dim]."""
        return said


@contextmanager
def in_place(model: nn.Module, stand_ins: Mapping[str, nn.Module]) -> Iterator[None]:
    """Show labels to a `model`, whose modules are replaced by name."""
    before = {name: getattr(model, name) for name in stand_ins}
    for name, stand_in in stand_ins.items():
        setattr(model, name, stand_in)
    try:
        yield
    finally:
        for name, module in before.items():
            setattr(model, name, module)


def shaped(labels: Tensor, side: int) -> Tensor:
    """Labels [views, tokens, numbers] in the shape of pixels: [views, numbers, side, side]."""
    return labels.transpose(1, 2).reshape(len(labels), -1, side, side)
