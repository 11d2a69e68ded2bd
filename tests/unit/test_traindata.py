"""Train samples: evenly from every data set, as evaluation puts them, never those of the test."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmbench import catalogue, samples, traindata
from vlmbench.errors import DataError, UnknownNameError
from vlmbench.models.clip import CLIP
from vlmbench.models.qwen2 import QWEN2
from vlmbench.prompting import IGNORED
from vlmbench.spec import Mixture, Source
from vlmbench.traindata import TrainSamples, train_samples

DATASETS = catalogue.datasets()


@pytest.fixture(scope="module")
def processor() -> Any:
    from vlmbench.embedded.blank import qwen2

    return qwen2.processor(qwen2.tokenizer())


@pytest.fixture
def data(processor: Any, tmp_path: Path) -> TrainSamples:
    return TrainSamples(DATASETS, "embedded", QWEN2, processor, tmp_path)


def test_every_data_set_has_its_share_in_turn(data: TrainSamples) -> None:
    asked = data.batches(Mixture(15)).asked  # type: ignore[attr-defined]
    names = [dataset.name for dataset, _ in asked]
    assert names[:6] == list(QWEN2.datasets)
    assert sorted(Counter(names).values()) == [2, 2, 2, 3, 3, 3]
    again = data.batches(Mixture(15)).asked  # type: ignore[attr-defined]
    assert asked == again
    other = data.batches(Mixture(15, seed=1)).asked  # type: ignore[attr-defined]
    assert not {sample.pictures for _, sample in other} & {s.pictures for _, s in asked} - {()}


def test_what_chooses_learns_from_nothing_it_cannot_write(processor: Any, tmp_path: Path) -> None:
    data = TrainSamples(DATASETS, "embedded", CLIP, processor, tmp_path)
    with pytest.raises(DataError, match="clip writes no answers"):
        data.batches(Mixture(4))


def test_batches_are_prompts_with_answers(data: TrainSamples) -> None:
    batches = data.batches(Mixture(5, ("vqav2",)), size=2)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 2, 1]
    labels, ids = batches[0]["labels"], batches[0]["input_ids"]
    said = labels[0][labels[0] != IGNORED]
    assert ids[0][labels[0] != IGNORED].tolist() == said.tolist()
    text = data.processor.tokenizer.decode(ids[0])
    sample = train_samples(DATASETS["vqav2"], "embedded", 1, 0)[0]
    assert sample.question in text and "<|im_start|>assistant\n" in text
    alone = data.processor.tokenizer.decode(batches[2]["input_ids"][0])
    assert alone.endswith("<|im_end|>")
    with pytest.raises(IndexError):
        batches[3]


@pytest.mark.parametrize("told", ["alike", "otherwise"])
def test_no_train_sample_is_a_test_sample(
    data: TrainSamples, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = samples.read(DATASETS["docvqa"], DATASETS["docvqa"].sources["embedded"], limit=3)
    same = test.items[1]
    if told == "otherwise":
        same = replace(same, id="x", question=f" {same.question.upper()}", references=("else",))
    mixed = [*train_samples(DATASETS["docvqa"], "embedded", 2, 0), same]
    monkeypatch.setattr(traindata, "train_samples", lambda *wanted: mixed)
    with pytest.raises(DataError, match=rf"1 train samples of docvqa.*first '{same.id}'"):
        data.batches(Mixture(3, ("docvqa",)))


def test_a_mixture_of_what_there_is_not(data: TrainSamples) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'docvq'. Did you mean 'docvqa'"):
        data.batches(Mixture(3, ("docvq",)))


def test_a_train_split_of_ones_own(tmp_path: Path) -> None:
    validation = Source(DATASETS["docvqa"].sources["embedded"].location, split="validation")
    mine = replace(DATASETS["docvqa"], train={"embedded": validation})
    first, second = (train_samples(mine, "embedded", 20, seed) for seed in (0, 1))
    assert len(first) == 20 and first != second
    assert first == train_samples(mine, "embedded", 20, 0)
    read: list[int] = []
    noting = replace(mine, read=lambda row, number: read.append(number) or mine.read(row, number))
    assert [sample.id for sample in train_samples(noting, "embedded", 20, 0)] == [
        sample.id for sample in first
    ]
    assert len(read) == 20, "pictures of all others stay where they are"
    everything = train_samples(mine, "embedded", 200, 0)
    assert len(everything) == 100 and everything[:20] == first
    with pytest.raises(DataError, match="has 100 samples, the recipe wants 201, or half"):
        train_samples(mine, "embedded", 201, 0)
    with pytest.raises(DataError, match="docvqa has no train split in tier 'hub'"):
        train_samples(replace(mine, train={}), "hub", 1, 0)
