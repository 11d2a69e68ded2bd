"""A run holds what was asked, what was scored, and all that makes two runs comparable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlmbench import evaluate as module
from vlmbench.answering import Answer
from vlmbench.artifacts import Store, key_of
from vlmbench.catalogue import compressions, datasets, metrics, models
from vlmbench.errors import PictureError, UnknownNameError
from vlmbench.evaluate import (
    chosen_metrics,
    evaluate,
    identity,
    learnt_from,
    origin,
    protocol,
    subject,
)
from vlmbench.prompting import turn
from vlmbench.samples import Samples
from vlmbench.spec import Cell, Choices, Dataset, Gate, Metric, Sample, Source

GATES = (Gate("anls", 0.02), Gate("size", 0.1))
CELL = Cell(
    models()["qwen2"],
    compressions()["4bit"],
    replace(datasets()["docvqa"], gates=GATES, metrics=("exact_match",)),
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
        network=torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).bfloat16()),
        census=SimpleNamespace(to_dict=lambda: {"decoder": "nf4"}, footprint_bytes=10),
        file_bytes=20,
        device="cpu",
        dtype=None,
        decoding="greedy",
    )


Evaluated = Callable[..., Any]


@pytest.fixture
def evaluated(variant: Any, monkeypatch: pytest.MonkeyPatch) -> Evaluated:
    def run(answers: Any = ANSWERS, journal: Any = None, **asked: Any) -> Any:
        def answer(variant: Any, turns: Any, **options: Any) -> Any:
            asked.update(turns=turns, **options)
            if isinstance(answers, Exception):
                raise answers
            made = {name: answers[name] for name in turns if name in answers}
            options["keep"]({name: made[name] for name in made if name not in options["known"]})
            return made

        monkeypatch.setattr(module, "answer", answer)
        options = {"tier": "embedded", "batch_size": 5, "journal": journal}
        return evaluate(CELL, variant, SAMPLES, METRICS, **options), asked

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
    assert asked["turns"]["a"] == turn(CELL.dataset, SAMPLES.items[2])
    assert (asked["max_new_tokens"], asked["batch_size"]) == (128, 5)


def test_a_run_holds_how_it_came_about(evaluated: Evaluated) -> None:
    run, _ = evaluated()
    assert (run.cell, run.tier, run.left_out) == ("qwen2_4bit-docvqa", "embedded", 7)
    assert (run.footprint_bytes, run.file_bytes, run.census) == (10, 20, {"decoder": "nf4"})
    assert run.products == {"bfloat16": 1, "float32": 1}
    assert run.health["cut"] == run.health["empty"] == pytest.approx(1 / 3)
    assert run.environment["device_kind"] == "cpu"
    assert run.seconds > 0 and run.peak_bytes > 0


@pytest.mark.parametrize("answers", [{"a": ANSWERS["a"]}, {}, PictureError("sample 'b'")])
def test_nothing_is_scored_for_want_of_an_answer(answers: Any, evaluated: Evaluated) -> None:
    with pytest.raises((KeyError, PictureError), match="'b'"):
        evaluated(answers)


def test_answers_go_to_the_journal_and_come_from_it(evaluated: Evaluated, cache: Path) -> None:
    journal = Store(cache).journal("ab")
    line = {"seconds": 40.0, "peak": 10**15, "products": {"nf4": 3}}
    journal.add({**line, "answers": {"a": asdict(ANSWERS["a"])}})
    run, asked = evaluated(journal=journal)
    assert asked["known"] == {"a": ANSWERS["a"]}
    assert [list(line["answers"]) for line in journal.lines()] == [["a"], ["b", "c"]]
    assert 40 < run.seconds < 45 and run.peak_bytes == 10**15
    assert [line["products"] for line in journal.lines()] == [{"nf4": 3}, run.products]
    whole, _ = evaluated()
    assert (run.samples, run.health) == (whole.samples, whole.health)


def test_what_makes_another_identity(variant: Any, tmp_path: Path) -> None:
    """Whatever could change an answer or a score; nothing that could not."""

    def key(cell: Cell = CELL, samples: Samples = SAMPLES, **options: Any) -> str:
        known = options.pop("metrics", METRICS)
        asked = {"tier": "embedded", "dtype": None, "device": "cpu", "batch_size": 64, **options}
        return key_of(identity(cell, variant.source, samples, known, **asked))

    first, items = key(), SAMPLES.items
    dataset = CELL.dataset
    others = [
        key(replace(CELL, compression=compressions()["lm4bit"])),
        key(replace(CELL, dataset=replace(dataset, instruction="Shout."))),
        key(replace(CELL, dataset=replace(dataset, max_new_tokens=2))),
        key(replace(CELL, dataset=replace(dataset, gates=dataset.gates[:1]))),
        key(samples=Samples(items[:2], 7)),
        key(samples=Samples(items[::-1], 7)),
        key(samples=Samples((replace(items[0], references=("x",)), *items[1:]), 7)),
        key(metrics={**METRICS, "size": replace(SIZE, version="2")}),
        key(dtype="float16"),
        key(batch_size=1),
        key(tier="hub"),
    ]
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    others.append(key())
    assert len({first, *others}) == 1 + len(others)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    looser = tuple(replace(gate, margin=0.5) for gate in CELL.dataset.gates)
    assert key(replace(CELL, dataset=replace(dataset, gates=looser))) == first
    assert key(samples=Samples(tuple(replace(s) for s in items), 7)) == first


def test_what_makes_another_protocol() -> None:
    dataset = CELL.dataset

    def made(
        dataset: Dataset = dataset,
        size: Metric = SIZE,
        template: str = "{{ messages }}",
        decoding: str = "greedy",
    ) -> Any:
        processor = SimpleNamespace(chat_template=template)
        variant: Any = SimpleNamespace(processor=processor, decoding=decoding)
        return protocol(replace(CELL, dataset=dataset), variant, {"size": size}, SAMPLES)

    changed = {
        "dataset": made(replace(dataset, name="other")),
        "prompt_style": made(replace(dataset, prompt_style="published-2")),
        "instruction": made(replace(dataset, instruction="Answer at length.")),
        "max_new_tokens": made(replace(dataset, max_new_tokens=64)),
        "decoding": made(decoding="greedy, do_sample True"),
        "metric size": made(size=replace(SIZE, version="2")),
        "chat_template": made(template="{{ other }}"),
    }
    first = made()
    for field, new in changed.items():
        assert [name for name in first if first[name] != new[name]] == [field]
    assert made(replace(dataset, columns=(), demos=())) == first
    assert set(first) == set(changed)


def test_what_else_may_make_another_protocol() -> None:
    """What answers are chosen from, and a description that is not asked for."""
    variant: Any = SimpleNamespace(processor=SimpleNamespace(chat_template=""), decoding="chosen")

    def made(samples: Samples = SAMPLES, **changed: Any) -> dict[str, str]:
        cell = replace(CELL, **changed)
        return protocol(cell, variant, {"size": SIZE}, samples)

    first = made()
    offered = [
        made(replace(SAMPLES, choices=choices)).get("choices")
        for choices in (None, Choices(("a", "b")), Choices(("a", "c")), Choices(("a",)))
    ]
    assert offered[0] is None and len(set(offered)) == 4
    mute = replace(CELL.model, captions_unasked=True)
    captions = replace(CELL.dataset, captions=True)
    assert made(model=mute) == made(dataset=captions) == first
    assert made(model=mute, dataset=captions).keys() - first.keys() == {"question"}


def test_what_makes_another_subject(variant: Any, tmp_path: Path) -> None:
    def differs(cell: Cell, old: dict[str, str], dtype: str | None = None) -> list[str]:
        new = subject(cell.model, cell.compression, variant.source, dtype)
        return [name for name in old if old[name] != new[name]]

    first = subject(CELL.model, CELL.compression, variant.source, None)
    model, dataset = CELL.model, CELL.dataset
    assert differs(replace(CELL, dataset=replace(dataset, name="other")), first) == []
    assert differs(replace(CELL, model=replace(model, name="mine")), first) == []
    other = replace(CELL, model=replace(model, architecture="Other"))
    assert differs(other, first) == ["adapter"]
    spoken = replace(CELL, model=replace(model, template="{{ messages }}"))
    assert differs(spoken, first) == ["adapter"]
    moved = replace(model, anatomy=replace(model.anatomy, projector="elsewhere"))
    assert differs(replace(CELL, model=moved), first) == ["adapter"]
    assert differs(CELL, first, "float32") == ["dtype"]
    assert differs(replace(CELL, compression=compressions()["lm4bit"]), first) == ["recipe"]
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert differs(CELL, first) == ["configuration"]
    second = subject(CELL.model, CELL.compression, variant.source, None)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert differs(CELL, second) == ["weights"]


def test_a_recipe_is_described_alike_in_every_process() -> None:
    """Sets of words are in another order in each: two sessions would not find one run."""
    script = (
        "from vlmbench import catalogue, evaluate\n"
        "print(evaluate._described(catalogue.compressions()['lm8bit']))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "3")
    }
    assert told == {
        "BitsAndBytes(name='lm8bit', kind='int8', "
        "kept=frozenset({'head', 'projector', 'vision'}))\n"
    }


def test_a_tier_may_have_a_metric_of_its_own() -> None:
    hub = Metric("size", "hub", SIZE.score)
    known = {**METRICS, "size": replace(SIZE, by_tier={"hub": hub})}
    assert chosen_metrics(CELL.dataset, known, "hub")["size"] is hub
    assert chosen_metrics(CELL.dataset, known, "embedded")["size"].version == "1"
    assert list(chosen_metrics(CELL.dataset, known, "hub")) == ["anls", "size", "exact_match"]


def test_a_gate_on_an_unknown_metric_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown metric 'size'.*Known: anls"):
        chosen_metrics(CELL.dataset, metrics(), "embedded")


def test_who_learns_from_other_data_is_another(variant: Any) -> None:
    """Another train or test split, reader, tier, or list of data sets."""
    known, qwen2 = datasets(), models()["qwen2"]
    recipe = compressions()["ft"]

    def key(model: Any = qwen2, tier: str = "embedded", **changed: Any) -> str:
        data = {**known, "docvqa": replace(known["docvqa"], **changed)}
        learns = learnt_from(model, recipe, data, tier)
        made = origin(model, recipe, variant.source, dtype=None, device="cpu", learns=learns)
        assert made is not None
        return key_of(made)

    other = Source("elsewhere")
    keys = {
        key(),
        key(replace(qwen2, datasets=("docvqa",))),
        key(tier="hub"),
        key(train={"embedded": other}),
        key(sources={"embedded": other}),
        key(read=SAMPLES.__class__),
    }
    assert len(keys) == 6 and key() in keys
    assert learnt_from(qwen2, compressions()["4bit"], known, "embedded") is None
    unseen = learnt_from(qwen2, recipe, {"docvqa": replace(known["docvqa"], read=eval)}, "embedded")
    assert origin(qwen2, recipe, variant.source, dtype=None, device="cpu", learns=unseen) is None
