"""Reading a data set: whole and in order, or one error that says where it broke."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmbench.catalogue import datasets
from vlmbench.errors import DataError
from vlmbench.samples import read
from vlmbench.spec import Source

Rows = list[dict[str, Any]]
IMAGE = {"bytes": b"encoded", "path": None}
ROW: dict[str, Any] = {
    **{"id": "a", "image": IMAGE, "query": {"en": "why?"}, "answers": ["yes", "no"]},
    "split": "test",
}
DOCVQA = datasets()["docvqa"]
WHERE = ("split", "test")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(rows: Rows, folder: Path, split: str = "test") -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows or [ROW]).slice(0, len(rows))
    pq.write_table(table, folder / f"{split}.parquet")
    return Source(str(folder))


def test_rows_become_samples(folder: Path) -> None:
    rows = [ROW, {**ROW, "id": "b", "image": {"bytes": b"other", "path": None}}, {**ROW, "id": "c"}]
    a, b, c = read(DOCVQA, write(rows, folder)).items
    assert [a.id, b.id, c.id] == ["a", "b", "c"]
    assert (a.pictures, a.question, a.references) == ((b"encoded",), "why?", ("yes", "no"))
    assert a.cluster == c.cluster != b.cluster


def test_a_limit_takes_the_first(folder: Path) -> None:
    source = write([{**ROW, "id": name} for name in "abc"], folder)
    assert [sample.id for sample in read(DOCVQA, source, limit=2).items] == ["a", "b"]
    assert len(read(DOCVQA, source, limit=9).items) == 3


def test_rows_without_a_picture_are_counted(folder: Path) -> None:
    dataset = datasets()["scienceqa"]
    samples = read(dataset, dataset.sources["embedded"])
    assert (len(samples.items), samples.left_out) == (500, 41)


@pytest.mark.parametrize("answer", [-1, 2, None])
def test_the_number_of_no_choice_is_refused(answer: int | None) -> None:
    row = {"image": ROW["image"], "question": "?", "choices": ["a", "b"], "answer": answer}
    with pytest.raises(DataError, match=f"answer {answer} is the number of none of 2 choices"):
        datasets()["scienceqa"].read(row, 0)


def test_an_id_of_zero_is_an_id() -> None:
    row = {"image": ROW["image"], "question": "?", "multiple_choice_answer": "x"}
    assert datasets()["vqav2"].read({**row, "question_id": 0}, 7).id == "0"
    assert datasets()["vqav2"].read({**row, "question_id": None}, 7).id == "7"


def test_only_rows_of_the_wanted_value(folder: Path) -> None:
    rows = [{**ROW, "id": "a", "split": "train"}, {**ROW, "id": "b"}, {**ROW, "id": "c"}]
    samples = read(DOCVQA, replace(write(rows, folder), where=WHERE))
    assert [sample.id for sample in samples.items] == ["b", "c"]
    assert samples.left_out == 1


def test_a_fallback_is_read_by_its_own_rules(folder: Path) -> None:
    fallback = replace(write([{**ROW, "split": "other"}], folder, "validation"), split="validation")
    moved = Source("/no/such/folder", where=WHERE, fallbacks=(fallback,))
    assert [sample.id for sample in read(DOCVQA, moved).items] == ["a"]
    with pytest.raises(DataError) as unread:
        read(DOCVQA, replace(moved, fallbacks=(replace(fallback, split="none"),)))
    assert "  /no/such/folder: FileNotFoundError" in str(unread.value)
    assert f'  {folder}: ValueError: Unknown split "none"' in str(unread.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "DatasetGenerationError"),
        ([{"id": "a", "answers": ["x"]}], r"lacks column\(s\) image; it has id, answers"),
        ([{**ROW, "image": None}, ROW], "row 0 of docvqa .* expected an image column"),
        ([ROW, {**ROW, "id": "b", "answers": None}], "row 1 of docvqa .* cannot be read: TypeErr"),
        ([{**ROW, "query": "why?"}], "row 0 of docvqa .* cannot be read: TypeError"),
        ([{**ROW, "image": "no_such.png"}], "row 0 of docvqa .*No such file"),
        ([{**ROW, "image": 3}], "cannot be read.*\n.*Unsupported cast"),
        ([ROW, ROW], "1 sample ids occur twice, first 'a'. Ids must be unique"),
        ([ROW, {**ROW, "id": "b", "answers": []}], "1 samples have no reference, first 'b'"),
        ([{**ROW, "answers": "x"}], "row 0 of docvqa .*expected a list of texts, got 'x'"),
        ([{**ROW, "split": "train"}], r"has no sample \(1 rows are not part of the task\)"),
    ],
)
def test_rows_that_cannot_be_judged(rows: Rows, says: str, folder: Path) -> None:
    with pytest.raises(DataError, match=says):
        read(DOCVQA, replace(write(rows, folder), where=WHERE))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "EmptyDatasetError.*\nName a folder with test.parquet.*--data docvqa=FOLDER"),
        ({"train.parquet": None}, 'Unknown split "test". Should be one of'),
        ({"test.parquet": b"PAR1 nonsense"}, "not a parquet file"),
        ({"test.parquet": b""}, "docvqa .split test. cannot be read"),
    ],
)
def test_folders_that_hold_no_such_split(
    files: dict[str, bytes | None], says: str, folder: Path
) -> None:
    for name, data in files.items():
        write([ROW], folder, Path(name).stem)
        if data is not None:
            (folder / name).write_bytes(data)
    with pytest.raises(DataError, match=says):
        read(DOCVQA, Source(str(folder)))


@pytest.mark.parametrize("location", ["/no/such/folder", "./no/such/folder", "no such id!"])
def test_addresses_of_nothing(location: str) -> None:
    with pytest.raises(DataError, match=f"{location}: .*\nName a folder with test.parquet"):
        read(DOCVQA, Source(location))


def test_an_unreachable_hub_is_one_error() -> None:
    """In a process of its own: the hub's client reads the variable when it is imported."""
    script = """
from vlmbench.catalogue import datasets
from vlmbench.errors import DataError
from vlmbench.samples import read
try:
    read(datasets()["docvqa"], datasets()["docvqa"].sources["hub"])
except DataError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *tried, last = done.stdout.splitlines()
    assert first == "docvqa (split test) cannot be read:"
    assert [line.split(":")[0].strip() for line in tried] == [
        "nielsr/docvqa_1200_examples",
        "lmms-lab/DocVQA",
    ]
    assert last.endswith("--data docvqa=FOLDER")
