"""What the embedded checkpoints must be able to do before it means anything to compress them.

All on test splits that were never trained on.
"""

import dataclasses
import io
from statistics import fmean

import pytest
from PIL import Image

from vlmbench.embedded.facts import facts_right
from vlmbench.evaluate import evaluate
from vlmbench.samples import Samples

FLOORS = {
    "docvqa": {"anls": 0.85},
    "vqav2": {"vqa_accuracy": 0.85},
    "scienceqa": {"letter_accuracy": 0.85},
    "flickr30k": {"bertscore": 0.93},
}
BLIND = {"docvqa": {"anls": 0.35}, "vqav2": {"vqa_accuracy": 0.60}}
"""Scores on blank pictures must stay below: who does not look cannot answer."""


def cell_of(embedded, dataset, compression="32bit"):
    name = f"qwen2_{compression}-{dataset}"
    return next(cell for cell in embedded.cells() if cell.id == name)


@pytest.mark.parametrize("dataset", FLOORS)
def test_scores_are_above_their_floors(embedded, dataset):
    run = embedded.run(cell_of(embedded, dataset))
    assert len(run.samples) == 500
    for metric, floor in FLOORS[dataset].items():
        assert run.mean(metric) >= floor


def test_captions_are_true(embedded):
    run = embedded.run(cell_of(embedded, "flickr30k"))
    assert fmean(facts_right("test", int(n), s.answer) for n, s in run.samples.items()) >= 0.80


@pytest.mark.parametrize("dataset", BLIND)
def test_blank_pictures_are_not_answered_well(embedded, dataset):
    cell = cell_of(embedded, dataset)
    seen = embedded.samples(cell.dataset)
    items = tuple(
        dataclasses.replace(s, pictures=tuple(map(blank, s.pictures))) for s in seen.items
    )
    variant = embedded.variant(cell.model, cell.compression)
    run = evaluate(
        cell,
        variant,
        Samples(items, seen.left_out),
        embedded.entries.metrics,
        tier="embedded",
        batch_size=64,
    )
    for metric, ceiling in BLIND[dataset].items():
        assert run.mean(metric) <= ceiling


def blank(picture):
    """A white picture of the same size."""
    out = io.BytesIO()
    size = Image.open(io.BytesIO(picture)).size
    Image.new("RGB", size, "white").save(out, "PNG")
    return out.getvalue()
