"""Answering: every turn its own answer, whatever the batch, in whatever memory there is."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from vlmbench import answering
from vlmbench.answering import Answer, answer
from vlmbench.catalogue import compressions
from vlmbench.errors import NumericsError, OutOfTimeError, PictureError, UsageError, VlmbenchError
from vlmbench.models.qwen2 import QWEN2
from vlmbench.pictures import decode_picture
from vlmbench.spec import Source, Turn
from vlmbench.variant import load

END = 0
FADE = Image.radial_gradient("L")


def picture(width: int, height: int) -> bytes:
    out = io.BytesIO()
    FADE.resize((width, height)).save(out, "PNG")
    return out.getvalue()


class Echo:
    """Answers a question with itself, as far as it fits: one token a character, then the end."""

    name = "echo"
    time_limit_s: float | None = None
    network = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[END, 1]))
    processor = SimpleNamespace(
        tokenizer=SimpleNamespace(decode=lambda ids, **_: "".join(map(chr, ids)))
    )

    def __init__(self, memory: int = 99) -> None:
        self.memory = memory
        self.batches: list[list[str]] = []

    def generate(self, questions: list[str], *, max_new_tokens: int) -> torch.Tensor:
        self.batches.append(questions)
        if len(questions) > self.memory:
            raise torch.OutOfMemoryError("out of memory")
        rows = torch.full((len(questions), max_new_tokens), ord("?"))
        for row, question in zip(rows, questions, strict=True):
            ids = [*map(ord, question), END][:max_new_tokens]
            row[: len(ids)] = torch.tensor(ids)
        return rows


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> type[Echo]:
    def encode(processor: Any, turns: Sequence[Turn]) -> list[str]:
        for data in (data for turn in turns for data in turn.pictures):
            decode_picture(data)
        return [turn.question for turn in turns]

    monkeypatch.setattr(answering, "encode", encode)
    return Echo


QUESTIONS = {name: Turn((), name * n) for n, name in enumerate("dbace", start=1)}


def test_the_longest_go_first_and_answers_come_back_in_order(echo: type[Echo]) -> None:
    variant, counts = echo(), []
    answers = answer(variant, QUESTIONS, max_new_tokens=9, batch_size=2, done=counts.append)
    assert variant.batches == [["eeeee", "cccc"], ["aaa", "bb"], ["d"]]
    assert {name: made.text for name, made in answers.items()} == {
        name: turn.question for name, turn in QUESTIONS.items()
    }
    assert list(answers) == list(QUESTIONS)
    assert counts == [2, 2, 1]


def test_a_large_picture_counts_as_length(echo: type[Echo]) -> None:
    variant = echo()
    turns = {"text": Turn((), "t" * 400), "large": Turn((picture(600, 600),), "p")}
    answer(variant, {**turns, "small": Turn((picture(9, 9),), "s")}, max_new_tokens=1, batch_size=1)
    assert [batch[0][0] for batch in variant.batches] == ["p", "t", "s"]


def test_an_answer_ends_where_the_model_ends_it(echo: type[Echo]) -> None:
    turns = {
        "whole": Turn((), " yes\x00 and no"),
        "cut": Turn((), "for ever"),
        "none": Turn((), ""),
    }
    answers = answer(echo(), turns, max_new_tokens=5, batch_size=3)
    assert answers["whole"] == Answer("yes", tokens=4, cut=False)
    assert answers["cut"] == Answer("for e", tokens=5, cut=True)
    assert answers["none"] == Answer("", tokens=0, cut=False)


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_out_of_memory_halves_the_batch(memory: int, echo: type[Echo]) -> None:
    small, counts = echo(memory), []
    halved = answer(small, QUESTIONS, max_new_tokens=9, batch_size=5, done=counts.append)
    assert halved == answer(echo(), QUESTIONS, max_new_tokens=9, batch_size=5)
    assert list(halved) == list(QUESTIONS)
    assert counts == [5]
    assert [len(batch) for batch in small.batches][:2] == [5, 2]


def test_out_of_memory_on_one_sample_is_told(echo: type[Echo]) -> None:
    with pytest.raises(UsageError, match="echo: out of memory on the single sample 'e'"):
        answer(echo(0), QUESTIONS, max_new_tokens=9, batch_size=4)


def bomb() -> bytes:
    """A picture file of 60 bytes that claims 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", picture(90, 90)[:-60], bomb()],
    ids=["empty", "text", "end missing", "bomb"],
)
def test_a_bad_picture_is_told_with_its_sample(data: bytes, echo: type[Echo]) -> None:
    with pytest.raises(PictureError, match=r"sample 'bad': a picture of .* cannot be read"):
        answer(echo(), {**QUESTIONS, "bad": Turn((data,), "x")}, max_new_tokens=9, batch_size=4)


def test_what_cannot_be_answered_is_told_and_the_rest_is_answered(echo: type[Echo]) -> None:
    told: dict[str, VlmbenchError] = {}
    counts: list[int] = []
    bad = {name: Turn((b"no picture",), "x") for name in ("bad", "worse")}
    answers = answer(
        echo(),
        {**bad, **QUESTIONS},
        max_new_tokens=9,
        batch_size=4,
        done=counts.append,
        failed=told.__setitem__,
    )
    assert list(answers) == list(QUESTIONS)
    assert set(told) == {"bad", "worse"} and sum(counts) == 7
    assert all(isinstance(error, PictureError) for error in told.values())
    told.clear()
    assert answer(echo(0), QUESTIONS, max_new_tokens=9, batch_size=4, failed=told.__setitem__) == {}
    assert set(told) == set(QUESTIONS)


def test_logits_that_are_no_numbers_name_the_module_and_the_samples(tiny: Path) -> None:
    variant = load(QWEN2, compressions()["32bit"], Source(str(tiny)))
    turns = {"one": Turn((), "What?"), "two": Turn((), "Why?"), "six": Turn((), "~~~")}
    expected = answer(variant, turns, max_new_tokens=4, batch_size=3)
    poisoned = variant.processor.tokenizer("~~~")["input_ids"][0]
    with torch.no_grad():
        variant.network.get_input_embeddings().weight[poisoned] = torch.nan
        # The head shares the embedding: there it would make every row's logits NaN.
        variant.network.lm_head.weight = torch.nn.Parameter(
            variant.network.lm_head.weight.nan_to_num(0.0)
        )
    told: dict[str, VlmbenchError] = {}
    answers = answer(variant, turns, max_new_tokens=4, batch_size=3, failed=told.__setitem__)
    assert set(told) == {"six"} and set(answers) == {"one", "two"}
    assert answers["one"].tokens == expected["one"].tokens
    assert "first in model.language_model.embed_tokens" in str(told["six"])
    with pytest.raises(NumericsError, match=r"sample 'six': the logits are NaN or infinite"):
        answer(variant, turns, max_new_tokens=4, batch_size=3)


def test_who_has_not_ended_in_time_has_no_answer(tiny: Path) -> None:
    """One row ends at its second token, the time is up after the third."""
    variant = load(QWEN2, compressions()["32bit"], Source(str(tiny)))
    turns = {"one": Turn((), "What?"), "two": Turn((), "Why is it so?")}
    whole = answer(variant, turns, max_new_tokens=6, batch_size=2)
    hurried = replace(variant, time_limit_s=1e-9)
    told: dict[str, VlmbenchError] = {}
    assert answer(hurried, turns, max_new_tokens=6, batch_size=2, failed=told.__setitem__) == {}
    assert all(type(error) is OutOfTimeError for error in told.values()) and set(told) == set(turns)
    assert "sample 'one' has no answer after 1e-09 s, 1 tokens" in str(told["one"])
    patient = replace(variant, time_limit_s=3600.0)
    assert answer(patient, turns, max_new_tokens=6, batch_size=2) == whole


def test_who_has_ended_in_time_keeps_the_answer(
    echo: type[Echo], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Echo.generate
    monkeypatch.setattr(Echo, "generate", lambda *parts, **most: whole(*parts, **most)[:, :3])
    monkeypatch.setattr(Echo, "time_limit_s", 1.5)
    monkeypatch.setattr(Echo, "name", "echo", raising=False)
    told: dict[str, VlmbenchError] = {}
    made = answer(echo(), QUESTIONS, max_new_tokens=9, batch_size=5, failed=told.__setitem__)
    assert {name: one.text for name, one in made.items()} == {"d": "d", "b": "bb"}
    assert set(told) == {"a", "c", "e"}


def test_an_answer_does_not_depend_on_its_batch(tiny: Path) -> None:
    variant = load(QWEN2, compressions()["32bit"], Source(str(tiny)))
    with torch.no_grad():
        for parameter in variant.network.parameters():
            parameter *= 4  # far from the ties of a network that knows nothing
    turns = {
        **{"pixel": Turn((picture(1, 1),), "What?"), "none": Turn((), "Why is it so?" * 9)},
        **{str(i): Turn((picture(28 * i, 56),), "Which?" * i) for i in range(1, 4)},
        **{"two": Turn((picture(28, 84), picture(56, 28)), "Which is wider?")},
    }
    alone, *batched = (answer(variant, turns, max_new_tokens=8, batch_size=n) for n in (1, 3, 6))
    assert batched == [alone, alone]
    assert len({made.text for made in alone.values()}) > 3, "or equality would mean little"


def test_what_was_answered_is_not_answered_again(echo: type[Echo]) -> None:
    kept: list[Any] = []
    whole = answer(echo(), QUESTIONS, max_new_tokens=9, batch_size=2, keep=kept.append)
    assert [list(made) for made in kept] == [["e", "c"], ["a", "b"], ["d"]]
    variant, counts = echo(), []
    # Half of a batch is no batch: the others must be what they would have been.
    known = {**kept[0], "a": kept[1]["a"]}
    again = answer(
        variant, QUESTIONS, max_new_tokens=9, batch_size=2, known=known, done=counts.append
    )
    assert variant.batches == [["aaa", "bb"], ["d"]]
    assert again == whole and list(again) == list(whole)
    assert counts == [2, 2, 1]
