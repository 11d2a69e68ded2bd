"""Baseline files: where they are, written whole or not at all, and named when they are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlmbench import baseline, catalogue
from vlmbench.baseline import load, save
from vlmbench.errors import BaselineError
from vlmbench.run import Run, Scored
from vlmbench.spec import Cell

CELL = "qwen2_4bit-docvqa"


def run(score: float) -> Run:
    sample = Scored("hash", "what?", ("right", "also right"), "answer", {"anls": score})
    return Run(CELL, "embedded", {"dataset": "docvqa"}, {}, {}, {"a": sample})


def test_a_missing_baseline_comes_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(BaselineError) as missing:
        load(path, CELL, "embedded")
    assert f"{path} does not exist. Write it:  pytest -k {CELL} --baseline-new" in str(
        missing.value
    )
    with pytest.raises(BaselineError, match=f"pytest -k {CELL} --tier hub --baseline-new"):
        load(path, CELL, "hub")


WHOLE = run(1.0).to_json()


@pytest.mark.parametrize(
    "data",
    [
        *[WHOLE[:-20].encode(), b"", b"[]", b'"text"', b"null", b"{}", b"\xff\xfe"],
        WHOLE.replace('"cell"', '"cells"').encode(),
        WHOLE.replace('["right", "also right"]', "null").encode(),
        WHOLE.replace('{"anls": 1.0}', "null").encode(),
    ],
)
def test_a_damaged_baseline_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(data)
    with pytest.raises(BaselineError, match=r"damaged\.json cannot be read .*--baseline-update"):
        load(path, CELL, "embedded")


def test_where_a_baseline_is() -> None:
    cell = Cell(
        catalogue.models()["qwen2"], catalogue.compressions()["4bit"], catalogue.datasets()["vqav2"]
    )
    folder = Path("baselines")
    assert baseline.path_of(folder, "hub", cell) == folder / "hub/vqav2/qwen2_4bit.json"
    assert baseline.path_of(folder, "hub", cell, "old") == folder / "hub/vqav2/old_4bit.json"


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "embedded" / "docvqa" / "qwen2_4bit.json"
    save(path, run(1.0))
    assert load(path, CELL, "embedded") == run(1.0)

    def half(self: Path, text: str, **options: Any) -> None:
        self.write_bytes(text.encode()[:50])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        save(path, run(0.0))
    assert load(path, CELL, "embedded") == run(1.0)
    assert list(path.parent.iterdir()) == [path]
