"""A run holds what was asked, what was scored, and all that makes two runs comparable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlmbench import evaluate as module
from vlmbench.answering import Answer
from vlmbench.catalogue import compressions, datasets, metrics, models
from vlmbench.errors import PictureError, UnknownNameError
from vlmbench.evaluate import chosen_metrics, evaluate, protocol, subject
from vlmbench.samples import Samples
from vlmbench.spec import Cell, Dataset, Gate, Metric, Sample, Source

GATES = (Gate("anls", 0.02), Gate("size", 0.1))
CELL = Cell(
    models()["qwen2"],
    compressions()["4bit"],
    replace(
        datasets()["docvqa"],
        gates=(Gate("anls", 0.02), Gate("size", 0.1)),
        metrics=("exact_match",),
    ),
)
SIZE = Metric("size", "1", lambda answers, references: [float(len(a)) for a in answers])
METRICS = {**metrics(), "size": SIZE}
SAMPLES = Samples(
    tuple(Sample(n, (n.encode(),), f"{n}?", (f"answer {n}",), n) for n in "bca"), left_out=7
)
ANSWERS = {
    "a": Answer("answer a", 3, cut=False),
    "b": Answer("anser b", 3, cut=True),
    "c": Answer("", 0, cut=False),
}


@pytest.fixture
def variant(tmp_path: Path) -> Any:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return SimpleNamespace(
        source=Source(str(tmp_path)),
        processor=SimpleNamespace(chat_template="{{ messages }}"),
        census=SimpleNamespace(to_dict=lambda: {"decoder": "nf4"}, footprint_bytes=10),
        file_bytes=20,
        device="cpu",
    )


Evaluated = Callable[..., Any]


@pytest.fixture
def evaluated(variant: Any, monkeypatch: pytest.MonkeyPatch) -> Evaluated:
    def run(answers: Any = ANSWERS, **asked: Any) -> Any:
        def answer(variant: Any, turns: Any, **options: Any) -> Any:
            asked.update(turns=turns, **options)
            if isinstance(answers, Exception):
                raise answers
            return {name: answers[name] for name in turns if name in answers}

        monkeypatch.setattr(module, "answer", answer)
        made = evaluate(CELL, variant, SAMPLES, METRICS, tier="embedded", batch_size=5)
        return made, asked

    return run


def test_a_run_holds_the_answers_and_their_scores(evaluated: Evaluated) -> None:
    run, asked = evaluated()
    assert {name: scored.answer for name, scored in run.samples.items()} == {
        name: made.text for name, made in ANSWERS.items()
    }
    assert {name: scored.scores for name, scored in run.samples.items()} == {
        "a": {"anls": 1.0, "size": 8.0, "exact_match": 1.0},
        "b": {"anls": 0.875, "size": 7.0, "exact_match": 0.0},
        "c": {"anls": 0.0, "size": 0.0, "exact_match": 0.0},
    }
    assert list(run.samples) == list("bca") and run.metrics == ["anls", "size", "exact_match"]
    assert asked["turns"]["a"] == module.turn(CELL.dataset, SAMPLES.items[2])
    assert (asked["max_new_tokens"], asked["batch_size"]) == (128, 5)


def test_a_run_holds_how_it_came_about(evaluated: Evaluated) -> None:
    run, _ = evaluated()
    assert (run.cell, run.tier, run.left_out) == ("qwen2_4bit-docvqa", "embedded", 7)
    assert (run.footprint_bytes, run.file_bytes, run.census) == (10, 20, {"decoder": "nf4"})
    assert run.health["cut"] == run.health["empty"] == pytest.approx(1 / 3)
    assert run.environment["device_kind"] == "cpu"
    assert run.seconds > 0 and run.peak_bytes > 0


@pytest.mark.parametrize("answers", [{"a": ANSWERS["a"]}, {}, PictureError("sample 'b'")])
def test_nothing_is_scored_for_want_of_an_answer(answers: Any, evaluated: Evaluated) -> None:
    with pytest.raises((KeyError, PictureError), match="'b'"):
        evaluated(answers)


def test_what_makes_another_protocol() -> None:
    dataset, template = CELL.dataset, SimpleNamespace(chat_template="{{ messages }}")

    def made(dataset: Dataset = dataset, size: Metric = SIZE, processor: Any = template) -> Any:
        return protocol(replace(CELL, dataset=dataset), processor, {"size": size})

    changed = {
        "dataset": made(replace(dataset, name="other")),
        "prompt_style": made(replace(dataset, prompt_style="published-2")),
        "instruction": made(replace(dataset, instruction="Answer at length.")),
        "generation": made(replace(dataset, max_new_tokens=64)),
        "metric size": made(size=replace(SIZE, version="2")),
        "chat_template": made(processor=SimpleNamespace(chat_template="{{ other }}")),
    }
    first = made()
    for field, new in changed.items():
        assert [name for name in first if first[name] != new[name]] == [field]
    assert made(replace(dataset, columns=(), demos=())) == first
    assert set(first) == set(changed)


def test_what_makes_another_subject(variant: Any, tmp_path: Path) -> None:
    def differs(cell: Cell, old: dict[str, str]) -> list[str]:
        new = subject(cell, variant)
        return [name for name in old if old[name] != new[name]]

    first = subject(CELL, variant)
    model, dataset = CELL.model, CELL.dataset
    assert differs(replace(CELL, dataset=replace(dataset, name="other")), first) == []
    assert differs(replace(CELL, model=replace(model, name="mine")), first) == []
    other = replace(CELL, model=replace(model, architecture="Other"))
    assert differs(other, first) == ["architecture"]
    assert differs(replace(CELL, compression=compressions()["lm4bit"]), first) == ["recipe"]
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert differs(CELL, first) == ["checkpoint"]
    second = subject(CELL, variant)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert differs(CELL, second) == ["checkpoint"]


def test_a_tier_may_have_a_metric_of_its_own() -> None:
    hub = Metric("size", "hub", SIZE.score)
    known = {**METRICS, "size": replace(SIZE, by_tier={"hub": hub})}
    assert chosen_metrics(CELL.dataset, known, "hub")["size"] is hub
    assert chosen_metrics(CELL.dataset, known, "embedded")["size"].version == "1"
    assert list(chosen_metrics(CELL.dataset, known, "hub")) == ["anls", "size", "exact_match"]


def test_a_gate_on_an_unknown_metric_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown metric 'size'.*Known: anls"):
        chosen_metrics(CELL.dataset, metrics(), "embedded")
