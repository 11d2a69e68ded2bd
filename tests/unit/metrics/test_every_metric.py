"""What holds for every metric, those that users add included."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time

import pytest

from vlmbench import catalogue
from vlmbench.spec import Metric

EVERY = pytest.mark.parametrize("metric", catalogue.metrics().values(), ids=lambda m: m.name)
REFERENCES = ["B", "Vermont"]  # what letter accuracy takes; any metric does
NASTY = {
    "empty": "",
    "blank": " \t\n\u00a0\u2003 ",
    "one letter": "B",
    "100 kB of words": "Vermont lies north. " * 5_000,
    "100 kB without a space": "B" * 100_000,
    "100 kB of punctuation": "B. " * 33_000,
    "100 kB of announcements": "answer: B. " * 9_000,
    "not Latin": "\u4f5b\u8499\u7279\u5dde \u0432\u0435\u0440\u043c\u043e\u043d\u0442 \U0001f341",
    "combining": "V\u0301" * 50 + "\u200d\u202e",
    "control characters": "\x00\x01\x1b[31m\x7f\u200b",
    "lone surrogate": "Ver\ud83dmont\udc00",
    "only a lone surrogate": "\udfff",
    "markup": "<s>[SEP] {B} \\boxed{B} $x^2$ %s {} </s>",
}


@EVERY
def test_scores_no_samples(metric: Metric) -> None:
    assert metric.score([], []) == []


@EVERY
def test_refuses_a_length_mismatch(metric: Metric) -> None:
    with pytest.raises(ValueError, match="2 answers, but references of 1 samples"):
        metric.score(["B", "C"], [REFERENCES])


@EVERY
def test_refuses_a_sample_without_references(metric: Metric) -> None:
    with pytest.raises(ValueError, match="sample 1 has no references"):
        metric.score(["B", "B"], [REFERENCES, []])


@EVERY
def test_refuses_a_string_for_the_list_of_references(metric: Metric) -> None:
    with pytest.raises(ValueError, match="references of sample 0 are the string 'Vermont'"):
        metric.score(["B"], ["Vermont"])


@EVERY
@pytest.mark.parametrize("answer", NASTY.values(), ids=NASTY)
def test_scores_any_answer_in_time(metric: Metric, answer: str) -> None:
    metric.score(["Vermont"], [REFERENCES])  # loads what is loaded once
    before = time.process_time()
    scores = metric.score([answer, "Vermont"], [REFERENCES, REFERENCES])
    assert time.process_time() - before < 5
    top = 10 if metric.unit == "cider" else 1
    assert len(scores) == 2
    assert all(type(score) is float for score in scores)
    assert all(math.isfinite(score) and 0 <= score <= top for score in scores)


@EVERY
@pytest.mark.parametrize("reference", NASTY.values(), ids=NASTY)
def test_scores_against_any_reference(metric: Metric, reference: str) -> None:
    assert len(metric.score(["Vermont", ""], [["B", reference], ["B", reference]])) == 2


@EVERY
def test_an_empty_answer_is_worth_nothing(metric: Metric) -> None:
    others = ["Vermont", "Maine"]
    references = [["A", "Maine"], ["B", "Vermont"], ["C", "Ohio"]]
    assert metric.score([*others, " \n"], references)[2] == 0


@EVERY
def test_scores_belong_to_their_samples(metric: Metric) -> None:
    letters = "ABCD"
    words = ["red circle", "blue square", "green moon", "a pink star above it"]
    samples = [
        (answer, [letter, word])
        for answer in [*letters, *words, ""]
        for letter, word in zip(letters, words, strict=True)
    ]
    straight = dict(enumerate(metric.score(*zip(*samples, strict=True))))
    order = random.Random(0).sample(range(len(samples)), len(samples))
    shuffled = metric.score(*zip(*(samples[number] for number in order), strict=True))
    assert dict(zip(order, shuffled, strict=True)) == pytest.approx(straight, abs=1e-6)
    assert len(set(straight.values())) > 1


@EVERY
def test_the_same_call_gives_the_same_scores_and_changes_nothing(metric: Metric) -> None:
    answers, references = ["B", "a small town", "B. Vermont"], [["B", "Vermont"]] * 3
    first = metric.score(answers, references)
    assert metric.score(answers, references) == first
    assert (answers, references) == (["B", "a small town", "B. Vermont"], [["B", "Vermont"]] * 3)


@EVERY
def test_the_right_answer_beats_a_wrong_one(metric: Metric) -> None:
    references = [["B", "a red circle above it"], ["C", "two green moons and a star"]]
    right = metric.score(["a red circle above it", "two green moons and a star"], references)
    wrong = metric.score(["7 August 1994", "no"], references)
    assert all(good > bad for good, bad in zip(right, wrong, strict=True))


def test_importing_the_metrics_is_light() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'bert_score', 'pycocoevalcap', 'rapidfuzz'}"
    code = (
        "import sys; from vlmbench import catalogue; catalogue.metrics(); "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
