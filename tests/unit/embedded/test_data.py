"""The stored splits: whole, in the published columns, apart from one another, rebuilt exactly."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmbench import catalogue
from vlmbench.embedded import DATA, rows, store
from vlmbench.spec import Clip
from vlmbench.video import read

# As published.
COLUMNS = {
    "docvqa": {"id", "image", "query", "answers"},
    "vqav2": {"question_id", "image_id", "image", "question", "multiple_choice_answer", "answers"},
    "flickr30k": {"image", "caption", "sentids", "split", "img_id", "filename"},
    "scienceqa": {
        *("image", "question", "choices", "answer", "hint", "task", "grade", "subject"),
        *("topic", "category", "skill", "lecture", "solution"),
    },
    "clips": {"video_id", "video", "caption"},
    "videoqa": {"video_id", "question_id", "question", "answer", "answers"},
}
STORED = [(dataset, split) for dataset in COLUMNS for split in ("test", "validation")]
FILMS = ("clips", "videoqa")
Rows = list[dict[str, Any]]


def stored(dataset: str, split: str) -> Rows:
    import pyarrow.parquet as pq

    table: Rows = pq.read_table(DATA / dataset / f"{split}.parquet").to_pylist()
    return table


def shown(dataset: str, split: str) -> Rows:
    """The rows with what they show: videoqa names the films of clips."""
    if dataset != "videoqa":
        return stored(dataset, split)
    films = {row["video_id"]: row["video"] for row in stored("clips", split)}
    return [{**row, "video": films[row["video_id"]]} for row in stored(dataset, split)]


def pictures(drawn: Rows) -> list[bytes]:
    """What they show: pictures or films."""
    cells = [row.get("image") or row.get("video") for row in drawn]
    return [one["bytes"] for one in cells if one]


def keys(dataset: str, split: str) -> list[str]:
    return [rows.picture_key(png) for png in pictures(shown(dataset, split))]


@pytest.mark.parametrize(("dataset", "split"), STORED)
def test_a_stored_split_is_whole(dataset: str, split: str) -> None:
    drawn = stored(dataset, split)
    pngs = pictures(shown(dataset, split))
    twice = 2 if dataset == "videoqa" else 1
    assert len(pngs) == {"test": 500, "validation": 100}[split] * twice
    assert len(drawn) - len(pngs) == (len(drawn) // 13 if dataset == "scienceqa" else 0)
    assert {frozenset(row) for row in drawn} == {frozenset(COLUMNS[dataset])}
    for png in set(pngs):
        if dataset in FILMS:
            assert read(Clip(png)).pictures.shape == (8, 140, 140, 3)
            continue
        picture = Image.open(io.BytesIO(png))
        picture.verify()
        assert picture.format == "PNG"


@pytest.mark.parametrize("dataset", COLUMNS)
def test_no_picture_is_in_two_splits(dataset: str) -> None:
    test, validation = set(keys(dataset, "test")), set(keys(dataset, "validation"))
    assert test & validation == set()
    assert rows.held_out(dataset) == test | validation
    train = itertools.islice(rows.train(dataset, frozenset()), 100 if dataset in FILMS else 500)
    assert {rows.picture_key(png) for png in pictures(list(train))} & (test | validation) == set()


def test_train_passes_over_what_is_held_out() -> None:
    first, second, *_ = (rows.draw("docvqa", "train", number) for number in range(3))
    left_out = frozenset({rows.picture_key(pictures(first)[0])})
    assert next(rows.train("docvqa", left_out)) == second[0]
    assert next(rows.train("docvqa", frozenset())) == first[0]


def test_a_split_passes_over_what_was_seen() -> None:
    first, second = (rows.draw("docvqa", "validation", number) for number in range(2))
    kept = store.split_rows("docvqa", "validation", {rows.picture_key(pictures(first)[0])})
    assert kept[0] == second[0]
    assert len(kept) == 100


@pytest.mark.parametrize("dataset", ["docvqa", "vqav2"])
def test_some_questions_share_a_picture(dataset: str) -> None:
    found = keys(dataset, "test")
    assert len(set(found)) == pytest.approx(len(found) / 2, abs=5)
    entry = catalogue.datasets()[dataset]
    samples = [entry.read(row, i) for i, row in enumerate(stored(dataset, "test"))]
    assert {s.cluster for s in samples if s} == set(found)


def test_ten_annotators_do_not_always_agree() -> None:
    drawn = stored("vqav2", "test")
    answers = [[entry["answer"] for entry in row["answers"]] for row in drawn]
    assert {len(ten) for ten in answers} == {10}
    for row, ten in zip(drawn, answers, strict=True):
        assert ten.count(row["multiple_choice_answer"]) >= 7
        assert [entry["answer_id"] for entry in row["answers"]] == list(range(1, 11))
    assert 0.1 < sum(len(set(ten)) > 1 for ten in answers) / len(answers) < 0.6


@pytest.mark.parametrize("dataset", ["flickr30k", "clips"])
def test_five_captions_that_differ(dataset: str) -> None:
    drawn = stored(dataset, "test")
    assert {len(set(row["caption"])) for row in drawn} == {5}


def test_two_questions_on_every_clip() -> None:
    drawn = stored("videoqa", "test")
    films = [row["video_id"] for row in stored("clips", "test")]
    assert [row["video_id"] for row in drawn] == [film for film in films for _ in range(2)]
    assert {len(row["answers"]) for row in drawn} == {10}


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 5e6


@pytest.mark.parametrize("dataset", COLUMNS)
def test_train_is_drawn_the_same_again(dataset: str) -> None:
    pinned = json.loads((DATA / f"{dataset}.json").read_text())["train"]
    assert store.train_digest(dataset, rows.held_out(dataset)) == pinned


@pytest.mark.parametrize("dataset", ["vqav2", "clips", "videoqa"])
def test_it_is_rebuilt_byte_for_byte(tmp_path: Path, dataset: str) -> None:
    store.write(dataset, tmp_path)
    for name in (f"{dataset}/test.parquet", f"{dataset}/validation.parquet", f"{dataset}.json"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


@pytest.mark.parametrize("dataset", COLUMNS)
def test_demos_are_named(dataset: str) -> None:
    demos = catalogue.datasets()[dataset].demos
    # Three clips, and the two questions on each.
    assert len(set(demos)) == len(demos) == {"clips": 3, "videoqa": 6}.get(dataset, 10)
    # Or `-k sq` would ask every model for its square.
    assert not [name for name in demos for chosen in ("awq", "sq", "bit", "rank") if chosen in name]
