from dataclasses import astuple

import pytest

from vlmbench.health import Health, measure


def repeating(answer: str) -> bool:
    return measure([answer], [False]).repeating == 1


def test_shares() -> None:
    answers = ["", " \n", "Yes", "yes ", "YES", "a b c a b c a b c a b c", "no", "two"]
    flags = [True, False, False, True, False, False, False, False]
    assert measure(answers, flags) == Health(
        empty=2 / 8, cut=2 / 8, repeating=1 / 8, commonest=3 / 8
    )


def test_a_model_that_says_one_thing() -> None:
    assert measure(["blue"] * 7, [False] * 7).commonest == 1


@pytest.mark.parametrize(
    "answer",
    [
        "the the the the the the",
        "red circle red circle red circle red circle",
        "!" * 128,
        "\u7ea2\u8272" * 30,
        "It is raining. " * 20,
        "a b c d e f g h i j " + "no " * 30,
    ],
)
def test_loops_repeat(answer: str) -> None:
    assert repeating(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "yes",
        "no no no",
        "1000000",
        "$1,000,000,000,000,000",
        "https://www.example.com/a/page",
        "a red circle left of a red square, and a blue circle left of a blue square",
        "a b c d a b c d",
        " ".join(f"item {number}" for number in range(200)),
    ],
)
def test_ordinary_answers_do_not(answer: str) -> None:
    assert not repeating(answer)


def test_refuses_nothing_and_mismatches() -> None:
    with pytest.raises(ValueError, match="no answers"):
        measure([], [])
    with pytest.raises(ValueError, match="2 answers, but 1 flags"):
        measure(["a", "b"], [True])


@pytest.mark.parametrize("answer", ["x" * 100_000, "\ud800", "\x00", "w " * 50_000])
def test_any_answer(answer: str) -> None:
    assert all(0 <= share <= 1 for share in astuple(measure([answer, "yes"], [True, False])))
