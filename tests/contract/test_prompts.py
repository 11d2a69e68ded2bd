"""What each model is told of each data set's first sample: a changed template is seen as such."""

import checkpoints
import pytest

from vlmbench import catalogue
from vlmbench.prompting import render, turn, watch

ASKED = [
    (model.name, dataset)
    for model in catalogue.models().values()
    for dataset in model.datasets
    if model.writes
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return checkpoints.Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.mark.parametrize(("model", "dataset"), ASKED, ids=map("-".join, ASKED))
def test_what_is_said(embedded, made, snapshot, model, dataset):
    entry = catalogue.datasets()[dataset]
    first = turn(entry, embedded.samples(entry).items[0], catalogue.models()[model])
    watched = watch(first)
    frames = len(watched.indices) if watched else 0
    assert render(made.variant(model).processor, first, frames) == snapshot
