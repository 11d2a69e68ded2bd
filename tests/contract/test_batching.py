"""An answer does not depend on which other questions it was batched with."""

import pytest

from vlmbench.answering import answer
from vlmbench.prompting import turn

DATASETS = ("docvqa", "vqav2", "scienceqa", "flickr30k", "clips", "videoqa")
QUANTIZED = ("16bit", "8bit", "4bit", "lm8bit", "lm4bit")
SUBSET = 100
"""Rows a data set and recipe below 32 bit, where one by one is slow."""


def flips(embedded, recipe, dataset, rows):
    """(rows asked, {sample: (alone, in a batch)} where the answers differ)."""
    cells = {cell.id: cell for cell in embedded.cells()}
    cell = cells[f"qwen2_{recipe}-{dataset}"]
    samples = embedded.samples(cell.dataset).items[:rows]
    variant = embedded.variant(cell.model, cell.compression)
    turns = {s.id: turn(cell.dataset, s, cell.model) for s in samples}
    alone, batched = (
        answer(variant, turns, max_new_tokens=cell.dataset.max_new_tokens, batch_size=size)
        for size in (1, 64)
    )
    return len(turns), {
        name: (alone[name].text, batched[name].text)
        for name in turns
        if alone[name].text != batched[name].text
    }


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_answer_at_32_bit_is_the_same_alone_and_in_a_batch(embedded, dataset):
    asked, different = flips(embedded, "32bit", dataset, 500)
    assert asked == 500
    assert different == {}


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_nearly_every_answer_of_the_others_is(embedded, recipe):
    """LLM.int8 picks its outlier columns over the whole batch: a row feels its neighbours."""
    asked, different = 0, {}
    for dataset in DATASETS:
        count, changed = flips(embedded, recipe, dataset, SUBSET)
        asked += count
        different |= {f"{dataset} {name}": pair for name, pair in changed.items()}
    assert len(different) <= 0.01 * asked, different
