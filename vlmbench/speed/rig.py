"""Loads recipes by the product's own path, and times them in turns with what they started from."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vlmbench import catalogue, measure, selection
from vlmbench.artifacts import Store
from vlmbench.compressed import load_once
from vlmbench.models.qwen2 import QWEN2
from vlmbench.products import products
from vlmbench.spec import Model, Source, TrainData
from vlmbench.speed.contest import Contest, Result, Times
from vlmbench.speed.network import RandomTokens, prompt, write

if TYPE_CHECKING:
    from torch import Tensor

    from vlmbench.variant import Variant

_MODEL = replace(QWEN2, name="random")


@dataclass(frozen=True)
class Rig:
    """The network of a contest in a folder, and how its variants are timed."""

    contest: Contest
    folder: Path
    """Takes the network and what is made of it, and is read where it has them."""
    device: str = "cpu"

    @property
    def source(self) -> Source:
        """Where the network is; it is written first where it is not there."""
        folder = self.folder / f"network of {self.contest.shape}"
        if not (folder / "processor_config.json").exists():
            write(self.contest.shape, folder)
        return Source(str(folder))

    def variant(self, recipe: str) -> Variant:
        """The network under a recipe, by name."""
        compression = selection.compression(recipe, catalogue.compressions())
        store = Store(self.folder / "made")
        return load_once(
            _MODEL, compression, self.source, store, self._data, device=self.device, dtype=None
        )

    def _data(self, model: Model, processor: Any, work: Path) -> TrainData:
        return RandomTokens(self.contest.shape.vocabulary, work)

    def results(self, rounds: int = 5) -> Iterator[Result]:
        """Each recipe beside the base; two networks are in memory at a time."""
        base = self.variant(self.contest.base)
        for recipe in self.contest.recipes:
            yield self._result(base, recipe, rounds)
            gc.collect()

    def _result(self, base: Variant, recipe: str, rounds: int) -> Result:
        made = self.variant(recipe)
        before, after = self.in_turns([base, made], rounds)
        peak = self._peak_bytes(made) if self.device.startswith("cuda") else None
        floors = self.contest.recipes[recipe]
        ran = products(made.network.get_submodule(_MODEL.anatomy.layers))
        most = max(ran, key=ran.__getitem__)
        return Result(recipe, floors, before, after, made.census.footprint_bytes, most, peak)

    def in_turns(self, variants: Sequence[Variant], rounds: int) -> list[Times]:
        """Medians of each, after a warm-up; every round measures all, so all see one machine."""
        self._round(variants)
        taken = zip(*(self._round(variants) for _ in range(rounds)), strict=True)
        return [
            Times(median(t.prefill_s for t in own), median(t.decode_s_per_token for t in own))
            for own in taken
        ]

    def _round(self, variants: Sequence[Variant]) -> list[Times]:
        return [Times(self.prefill(variant), self.decode(variant)) for variant in variants]

    def prefill(self, variant: Variant) -> float:
        """Seconds from a long prompt to the first token."""
        return self._seconds(variant, self.contest.prompt, 1)

    def decode(self, variant: Variant) -> float:
        """Seconds for each token after the first, behind a short prompt."""
        start, steps = self.contest.start, self.contest.steps
        first = self._seconds(variant, start, 1)
        return (self._seconds(variant, start, 1 + steps) - first) / steps

    def _seconds(self, variant: Variant, length: int, tokens: int) -> float:
        inputs = self.inputs(length)
        return measure.timed(
            lambda: variant.generate(inputs, max_new_tokens=tokens, min_new_tokens=tokens),
            device=self.device,
        )

    def inputs(self, length: int) -> dict[str, Tensor]:
        """A prompt of random tokens, as model inputs."""
        import torch

        ids = prompt(self.contest.shape.vocabulary, length, seed=0)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _peak_bytes(self, variant: Variant) -> int:
        """The weights, and what a prefill adds to all that is on the device."""
        import torch

        before = torch.cuda.memory_allocated(self.device)
        with measure.peak_memory(self.device) as peak:
            self.prefill(variant)
        return variant.census.footprint_bytes + peak.peak_bytes - before
