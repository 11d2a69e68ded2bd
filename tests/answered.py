"""A few answered samples, for every architecture to learn from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image

from vlmbench.prompting import encode_answered, taken_by
from vlmbench.spec import Mixture, Model, Turn

SAID = (
    ("What color is the star?", "The star is red, and it is beside a blue circle."),
    ("How many moons are there?", "There are two moons in the snow."),
    ("Describe the picture.", "A green cross is above an orange square on the sand."),
    ("What is the city?", "MALMO"),
)


@dataclass(frozen=True)
class Few:
    """Train data of two samples, whatever is asked for; the mixture's seed says which."""

    model: Model
    processor: Any
    work: Path

    def batches(self, mixture: Mixture, size: int = 1) -> list[dict[str, Any]]:
        drawn = Random(mixture.seed).sample(range(len(SAID)), 2)
        return [inputs(self.model, self.processor, *drawn[i : i + size]) for i in range(0, 2, size)]


def inputs(model: Model, processor: Any, *numbers: int) -> dict[str, Any]:
    """A batch of answered samples by their numbers."""
    if not model.writes:
        return _to_choose(processor, numbers)
    turns = [taken_by(model, Turn((_png(i),), SAID[i][0], "Answer briefly.")) for i in numbers]
    return encode_answered(processor, turns, [SAID[i][1] for i in numbers])


def _to_choose(processor: Any, numbers: Sequence[int]) -> dict[str, Any]:
    texts = [SAID[i][1] for i in numbers]
    pictures = [_picture(i) for i in numbers]
    return dict(processor(text=texts, images=pictures, padding=True, return_tensors="pt"))


def _picture(seed: int) -> Any:
    pixels = torch.rand(5, 5, 3, generator=torch.Generator().manual_seed(seed)) * 255
    return Image.fromarray(pixels.byte().numpy()).resize((140, 140), Image.Resampling.NEAREST)


def _png(seed: int) -> bytes:
    out = io.BytesIO()
    _picture(seed).save(out, "PNG")
    return out.getvalue()
