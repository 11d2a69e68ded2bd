"""A session: each thing made once, one variant at a time, baselines written only when asked."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset as Rows

from vlmbench import catalogue, compressed, evaluate, samples, selection
from vlmbench.artifacts import Journal
from vlmbench.bench import Bench
from vlmbench.embedded import rows
from vlmbench.errors import BaselineError, DataError
from vlmbench.options import Options, catalogued
from vlmbench.run import Run, Scored
from vlmbench.samples import Samples
from vlmbench.spec import Cell, Mixture, Sample, Source

ENTRIES = catalogued()
THREE = Samples(tuple(Sample(n, (), f"{n}?", ("yes",), n) for n in "abc"), 0)


def bench(**options: Any) -> Bench:
    return Bench(Options(**options), ENTRIES)


def test_samples_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session, seen = bench(data=("docvqa=/my/pages",), limit=3), []

    def read(dataset: Any, source: Source, limit: int) -> Samples:
        seen.append((source.location, limit))
        return Samples((), 0)

    monkeypatch.setattr(samples, "read", read)
    (dataset,) = session.datasets
    assert session.samples(dataset) is session.samples(dataset)
    assert seen == [("/my/pages", 3)]


class Loaded:
    def __init__(self, name: str) -> None:
        self.name = name


def test_one_variant_at_a_time_each_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session = bench(device="cuda:1", dtype="float16")
    loaded: list[weakref.ref[Loaded]] = []

    def load(
        model: Any, compression: Any, source: Source, store: Any, data: Any, **options: Any
    ) -> Loaded:
        assert [ref() for ref in loaded if ref()] == [], "the one before is still in memory"
        assert (options.pop("learns") is None) != selection.makes(compression)
        assert options == {"device": "cuda:1", "dtype": "float16", "fresh": False}
        assert source == model.sources["embedded"]
        made = Loaded(f"{model.name}_{compression.name}")
        loaded.append(weakref.ref(made))
        return made

    monkeypatch.setattr(compressed, "load_once", load)
    names = [session.variant(cell.model, cell.compression).name for cell in session.cells()]
    assert names == [cell.variant for cell in session.cells()]
    assert session.loads == {cell.variant: 1 for cell in session.cells()}


def test_what_is_asked_from_elsewhere_is_not_learnt_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn = rows.train("docvqa", rows.held_out("docvqa"))
    Rows.from_list(list(itertools.islice(drawn, 4))).to_parquet(tmp_path / "test.parquet")
    session = bench(data=(f"docvqa={tmp_path}",), compressions=("awq_w4a16",), models=("qwen2",))
    given: list[Any] = []
    monkeypatch.setattr(compressed, "load_once", lambda *args, **_: given.append(args[4]))
    (cell,) = session.cells()
    session.variant(cell.model, cell.compression)
    data = given[0](cell.model, None, tmp_path)
    with pytest.raises(DataError, match="2 train samples of docvqa are test samples, too"):
        data.batches(Mixture(2, ("docvqa",)))


SCORED = Scored("h", "q", ("r",), "a", {"bertscore": 1.0, "anls": 1.0})


def test_a_run_is_made_once_and_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    session, seen = bench(batch_size=7), []
    cell = next(cell for cell in session.cells() if cell.dataset.name == "docvqa")

    def make(cell: Cell, *parts: Any, done: Any, journal: Journal, **options: Any) -> Run:
        assert options == {"tier": "embedded", "batch_size": 7}
        assert list(journal.lines()) == []
        done(2), done(1)
        return Run(cell.id, "embedded", {}, {}, {}, {"a": SCORED})

    def without_work(session: Bench) -> Bench:
        monkeypatch.setattr(session, "samples", lambda dataset: THREE)
        monkeypatch.setattr(session, "variant", lambda model, compression: None)
        return session

    monkeypatch.setattr(evaluate, "evaluate", make)
    without_work(session)
    runs = [session.run(cell, lambda *state: seen.append(state)) for _ in range(2)]
    assert runs[0] is runs[1] is session.runs[cell.id]
    assert seen == [(cell, 0, 3), (cell, 2, 3), (cell, 3, 3)]
    assert session.reused == []

    # The next session finds it, unless it wants none of it; another one's batches are others.
    for options, reused in [({}, [cell.id]), ({"fresh": True}, []), ({"batch_size": 8}, [])]:
        later = without_work(bench(**{"batch_size": 7, **options}))
        if "batch_size" not in options:
            assert later.run(cell) == runs[0]
            assert later.reused == reused
        else:
            with pytest.raises(AssertionError):
                later.run(cell)


def test_a_run_with_errors_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for errors in ({"b": "out of memory"}, {}, {"b": "never asked"}):
        session = bench()
        made = Run("c", "embedded", {}, {}, {}, {"a": SCORED}, errors)
        monkeypatch.setattr(evaluate, "evaluate", lambda *_, made=made, **__: made)
        monkeypatch.setattr(session, "samples", lambda dataset: THREE)
        monkeypatch.setattr(session, "variant", lambda model, compression: None)
        run = session.run(session.cells()[0])
        assert run.errors == (errors if errors.get("b") == "out of memory" else {})


def test_a_run_that_fails_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session, tried = bench(), []

    def fail(dataset: Any) -> Samples:
        tried.append(dataset.name)
        raise DataError("no such data")

    monkeypatch.setattr(session, "samples", fail)
    for _ in range(2):
        with pytest.raises(DataError, match="no such data"):
            session.run(session.cells()[0])
    assert len(tried) == 1 and session.runs == {}


def test_baselines_are_written_only_when_asked(tmp_path: Path) -> None:
    def judged(score: float, **options: Any) -> str:
        session = bench(baselines=tmp_path, models=("qwen2",), data=("docvqa",), **options)
        cell = session.cells()[0]
        scores = {"bertscore": score, "anls": 1.0}
        scored = replace(SCORED, answer=f"{score}", scores=scores)
        many = {f"s{i}": scored for i in range(20)}
        verdict = session.judge(cell, Run(cell.id, "embedded", {}, {}, {}, many))
        assert session.verdicts == {cell.id: verdict}
        return verdict.status

    with pytest.raises(BaselineError, match="has no baseline"):
        judged(0.5)
    assert judged(0.5, write="new") == "pass"
    assert judged(0.4, write="new") == "regression", "it was there already"
    assert judged(0.4, limit=1) == "regression"
    with pytest.raises(BaselineError, match="--baseline-move-anchor"):
        judged(0.4, write="update")
    assert judged(0.4, write="update", move_anchor=True) == "pass"
    assert judged(0.5) == "improved"
    assert judged(0.3, baseline_of="qwen2") == "regression"


def test_what_only_all_comparisons_together_show(tmp_path: Path) -> None:
    """Holm: after one regression is sure, the next is held against a milder level.

    Of 11 comparisons the first is held against 1 % / 11; ten one-way flips, of a chance of 1 in
    1024, are too few. They are enough against 1 % / 10.
    """

    def run(cell: Cell, lost: int) -> Run:
        many = {}
        for i in range(100):
            scores = {"bertscore": 1.0, "anls": float(i >= lost)}
            many[f"s{i}"] = replace(SCORED, answer=str(i < lost), scores=scores, cluster=f"s{i}")
        return Run(cell.id, "embedded", {}, {}, {}, many)

    session = bench(baselines=tmp_path, data=("docvqa",), write="new")
    first, second, *_ = session.cells()
    for cell in (first, second):
        session.judge(cell, run(cell, 0))
    judging = bench(baselines=tmp_path, data=("docvqa",))
    judging.planned = 11
    assert judging.judge(second, run(second, 10)).status == "inconclusive"
    assert judging.settle() == [], "nothing is sure yet"
    assert judging.judge(first, run(first, 11)).status == "regression"
    assert judging.settle() == [second.id] == judging.late
    assert judging.verdicts[second.id].status == "regression"
    assert judging.settle() == [], "told once"


@pytest.mark.parametrize(
    ("model", "changes", "answers"),
    [
        ("qwen2", {}, True),
        ("blip2", {}, True),
        ("clip", {}, False),
        ("blip2", {"of_videos": True}, False),
        ("idefics2", {"of_videos": True}, True),
        ("qwen2", {"choose": lambda samples: None}, False),
        ("clip", {"choose": lambda samples: None}, True),
    ],
)
def test_who_can_answer_a_data_set_of_ones_own(
    model: str, changes: dict[str, Any], answers: bool
) -> None:
    own = replace(catalogue.datasets()["vqav2"], name="own", **changes)
    assert catalogue.models()[model].can_answer(own) is answers
