"""Baseline files: where they are, written whole or not at all, and named when they are damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmbench import baseline, catalogue
from vlmbench.baseline import Baseline, check_anchor, load, of_run, over_samples_of, save
from vlmbench.errors import BaselineError
from vlmbench.run import Run, Scored
from vlmbench.spec import Cell, Gate

CELL = "qwen2_4bit-docvqa"
ANLS = Gate("anls", 0.02)


def scored(score: float) -> Scored:
    return Scored("hash", "what?", ("right", "also right"), "answer", {"anls": score}, "0")


def kept(score: float) -> Baseline:
    protocol = {"dataset": "docvqa"}
    return of_run(Run(CELL, "embedded", protocol, {}, {}, {"a": scored(score)}), (ANLS,))


def test_a_missing_baseline_comes_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "qwen2_4bit.json"
    with pytest.raises(BaselineError) as missing:
        load(path, CELL, "embedded")
    assert f"{path} does not exist. Write it:  pytest -k {CELL} --baseline-new" in str(
        missing.value
    )
    with pytest.raises(BaselineError, match=f"pytest -k {CELL} --tier hub --baseline-new"):
        load(path, CELL, "hub")


WHOLE = kept(1.0).to_json()
FIRST = Run(
    CELL,
    "embedded",
    {"dataset": "docvqa"},
    {},
    {},
    {"a": Scored("hash", "what?", ("right",), "answer", {"anls": 1.0})},
)
"""As version 1 kept it."""


def first_version() -> dict[str, Any]:
    data = json.loads(FIRST.to_json())
    del data["samples"]["a"]["cluster"], data["errors"], data["products"]
    return data


def edited(**fields: Any) -> bytes:
    return json.dumps({**first_version(), **fields}).encode()


@pytest.mark.parametrize(
    "data",
    [
        *[WHOLE[:-20].encode(), b"", b"[]", b'"text"', b"null", b"{}", b"\xff\xfe"],
        edited(cells=1),
        edited(protocol=None),
        edited(samples={"a": {"content": "h", "answer": "a", "scores": {"anls": "much"}}}),
        edited(samples={"a": {"content": "h", "scores": {"anls": 1.0}}}),
    ],
)
def test_a_damaged_baseline_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(data)
    with pytest.raises(BaselineError, match=r"damaged\.json cannot be read .*--baseline-update"):
        load(path, CELL, "embedded")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"anls": 1.0', '"anls": 0.5'),
        ('"answer",1', '"answer",0.5'),
        ('0,"answer"', '0,"other"'),
        ('"tier": "embedded"', '"tier": "hub"'),
        ('"cell"', '"cells"'),
    ],
)
def test_an_edit_by_hand_is_told(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "edited.json"
    path.write_text(WHOLE.replace(old, new))
    with pytest.raises(BaselineError, match=r"edited\.json was edited .*--baseline-update"):
        load(path, CELL, "embedded")


SECOND = """{
 "anchor": {"anls": 1.0},
 "cell": "qwen2_4bit-docvqa",
 "census": {},
 "digest": "DIGEST",
 "environment": {},
 "file_bytes": 0,
 "footprint_bytes": 0,
 "health": {},
 "peak_bytes": 0,
 "protocol": {"dataset": "docvqa"},
 "scores": {"anls": 1.0},
 "subject": {},
 "tier": "embedded",
 "version": 2,
 "visible": {},
 "samples": {
  "a": {"answer": "answer", "cluster": "0", "content": "hash", "scores": {"anls": 1.0}}
 }
}
"""
"""As version 2 kept it, but for its digest."""
THIRD = (
    SECOND.replace(
        '"census": {},', '"census": {},\n "columns": ["content", "cluster", "answer", "anls"],'
    )
    .replace('"version": 2', '"version": 3')
    .replace(
        '{"answer": "answer", "cluster": "0", "content": "hash", "scores": {"anls": 1.0}}',
        '["hash", "page", "answer", 1.0]',
    )
)
"""As version 3 kept it, but for its digest."""


@pytest.mark.parametrize(
    ("text", "digest", "answer", "cluster"),
    [
        (SECOND, "33d4151c45152b87", '"answer": "answer"', "0"),
        (THIRD, "40c4a063367392db", '"answer", 1.0', "page"),
    ],
)
def test_an_older_version_is_read_and_its_edits_are_told(
    text: str, digest: str, answer: str, cluster: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text(text.replace("DIGEST", digest))
    samples = {"a": replace(kept(1.0).samples["a"], cluster=cluster)}
    assert load(path, CELL, "embedded") == replace(kept(1.0), samples=samples)
    path.write_text(path.read_text().replace(answer, answer.replace('answer"', 'other"')))
    with pytest.raises(BaselineError, match=r"old\.json was edited"):
        load(path, CELL, "embedded")


def test_who_shares_a_picture_is_kept_by_number(tmp_path: Path) -> None:
    path, clusters = tmp_path / "numbered.json", {"c": "b" * 16, "b": "a" * 16, "a": "b" * 16}
    samples = {name: replace(scored(0.5), cluster=long) for name, long in clusters.items()}
    save(path, of_run(Run(CELL, "embedded", {}, {}, {}, samples)))
    found = load(path, CELL, "embedded")
    assert {name: one.cluster for name, one in found.samples.items()} == {
        "a": "0",
        "b": "1",
        "c": "0",
    }
    save(tmp_path / "again.json", found)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_line_with_a_score_too_many_is_damage(tmp_path: Path) -> None:
    """Also where nothing is to be told of edits."""
    path = tmp_path / "damaged.json"
    path.write_text(WHOLE.replace('"answer",1', '"answer",1,0.5'))
    with pytest.raises(BaselineError, match=r"damaged\.json cannot be read"):
        load(path, CELL, "embedded", edited=True)


def test_the_first_version_is_read_and_a_later_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(edited())
    old = load(path, CELL, "embedded")
    assert old.samples["a"].answer == "answer" and old.samples["a"].cluster == "a"
    assert old.anchor == {}
    path.write_text(WHOLE.replace('"version": 4', '"version": 5'))
    with pytest.raises(BaselineError, match="is of version 5; this vlmbench reads up to 4"):
        load(path, CELL, "embedded")


def test_the_best_there_was_is_carried_on() -> None:
    best = kept(0.9)
    worse = of_run(replace(FIRST, samples={"a": scored(0.87)}), (ANLS,), before=best)
    assert worse.anchor == {"anls": 0.9}
    assert of_run(replace(FIRST, samples={"a": scored(0.95)}), (ANLS,), before=best).anchor == {
        "anls": 0.95
    }
    check_anchor(replace(FIRST, samples={"a": scored(0.86)}), worse, (ANLS,))
    first = replace(best, anchor={})
    with pytest.raises(BaselineError, match="more than 2 margins"):
        check_anchor(replace(FIRST, samples={"a": scored(0.85)}), first, (ANLS,))
    with pytest.raises(BaselineError, match=r"more than 2 margins below 0\.9000"):
        check_anchor(replace(FIRST, samples={"a": scored(0.85)}), worse, (ANLS,))


def test_where_a_baseline_is() -> None:
    cell = Cell(
        catalogue.models()["qwen2"], catalogue.compressions()["4bit"], catalogue.datasets()["vqav2"]
    )
    folder = Path("baselines")
    assert baseline.path_of(folder, "hub", cell) == folder / "hub/vqav2/qwen2_4bit.json"
    assert baseline.path_of(folder, "hub", cell, "a_b") == folder / "hub/vqav2/a_b.json"


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "embedded" / "docvqa" / "qwen2_4bit.json"
    save(path, kept(1.0))
    assert load(path, CELL, "embedded") == kept(1.0)

    def half(self: Path, text: str, **options: Any) -> None:
        self.write_bytes(text.encode()[:50])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        save(path, kept(0.0))
    assert load(path, CELL, "embedded") == kept(1.0)
    assert list(path.parent.iterdir()) == [path]


def test_fewer_samples_are_compared_by_scores_over_fewer() -> None:
    """CIDEr's weights are those of the samples that are scored together."""
    texts = ["a red star", "a blue moon", "two green hearts", "a red moon above a star"]
    samples, metrics = {}, {name: catalogue.metrics()[name] for name in ("cider", "anls")}
    score = metrics["cider"].score
    columns = {name: m.score(texts, [[text] for text in texts]) for name, m in metrics.items()}
    for i, text in enumerate(texts):
        scores = {name: column[i] for name, column in columns.items()}
        samples[str(i)] = Scored("c", "?", (text,), text, scores, str(i))
    whole = Run("qwen2_4bit-flickr30k", "embedded", {}, {}, {}, samples)
    kept = of_run(whole)
    assert over_samples_of(whole, kept, metrics) is kept
    fewer = replace(whole, samples={"0": samples["0"], "1": samples["1"]})
    made = over_samples_of(fewer, kept, metrics)
    expected = score(texts[:2], [[text] for text in texts[:2]])
    assert [made.samples[name].scores["cider"] for name in "01"] == expected
    assert expected[0] != kept.samples["0"].scores["cider"]
    assert all(made.samples[name].scores["anls"] == 1.0 for name in "0123")
