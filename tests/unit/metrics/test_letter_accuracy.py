import pytest

from vlmbench.metrics.letter_accuracy import LETTER_ACCURACY


def right(answer: str, letter: str = "B", text: str = "Vermont") -> bool:
    return LETTER_ACCURACY.score([answer], [[letter, text]]) == [1.0]


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b",
        "B.",
        "(B)",
        "b)",
        "[B]",
        "{B}",
        "**B**",
        '"B"',
        " B \n",
        "\uff22",  # full width
        "\uff08\uff22\uff09",
        "B. Vermont",
        "B.Vermont",
        "B) Vermont",
        "(B) Vermont",
        "B: Vermont",
        "B, Vermont",
        "B - Vermont",
        "B \u2014 Vermont",
        "B (Vermont)",
        "B Vermont",
        "B\nVermont",
        "**B.** Vermont",
        "B\n\nIt is the northernmost of the four.",
        "B. Vermont, a state",
        "B. A state in the north",
        "B. I think so",
        "B because it lies north.",
        "B, because it lies north",
        "B is correct.",
        "B is the answer",
        "Answer: B",
        "ANSWER: B",
        "answer B",
        "Answer:\nB",
        "**Answer:** B",
        "Answer: (B) Vermont",
        "Answer: option B",
        "Option B",
        "option (b)",
        "The answer is B",
        "The answer is B.",
        "The correct answer is: B",
        "The correct option is B.",
        "The letter is B",
        "So the answer is B. Vermont",
        "It's B.",
        "Vermont lies north of the others. The answer is B.",
        "B. The answer is B.",
        "Vermont",
        "vermont.",
        "'Vermont'",
        "The answer is Vermont.",
        "Answer: **Vermont**",
    ],
)
def test_right(answer: str) -> None:
    assert right(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "?",
        "A",
        "c",
        "A. Vermont",  # the letter counts
        "A: B",
        "Maine",
        "Vermont or Maine",
        "Vermont is north",
        "Boston",
        "Best",
        "Both",
        "BB",
        "B C",
        "A or B",
        "A and B",
        "A, B",
        "B, A",
        "A/B",
        "AB",
        "B or C",
        "(B) (C)",
        "b) or a)",
        "b, a",
        "B. or A.",
        "B. Vermont or C. Maine",
        "B. Vermont. No, C.",
        "B is right, C is wrong",
        "B? C?",
        "Either A or B",
        "neither B nor C",
        "not B",
        "B is wrong",
        "The answer is not B",
        "The answer is B or C",
        "A. No, the answer is B",
        "The answer is A. No wait, the answer is B.",
        "The answer is B. No wait, the answer is A.",
        "b.c. is an era",
        "B-sides",
        "I think so",
        "\u0412",  # a Cyrillic letter
    ],
)
def test_wrong(answer: str) -> None:
    assert not right(answer)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A", True),
        ("a", True),
        ("A.", True),
        ("A. It barks", True),
        ("A because it barks", True),
        ("A dog is here", False),
        ("A dog and a cat", False),
        ("A cat", False),
        ("a cat", False),
        ("The answer is A cat", False),
        ("The answer is a good question", False),
        ("a.m.", False),
        ("A dog", True),  # the article or the letter: right either way
        ("The answer is a dog", True),
    ],
)
def test_the_article_is_no_letter(answer: str, expected: bool) -> None:
    assert right(answer, "A", "dog") is expected


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("sample A", "sample A", True),
        ("B. sample A", "sample A", True),
        ("The answer is sample A", "sample A", True),
        ("C. elegans", "C. elegans", True),
        ("C", "C", False),  # a lone letter is the letter of a choice
        ("A or B", "A or B", True),
        (".5", ".5", True),
        ("Answer: .5", ".5", True),
        ("B. .5", ".5", True),
        ("5", ".5", False),
        ("5", "-5", False),
        ("<", "<", True),
        (">", "<", False),
        ("f(x)", "f(x)", True),
        ("", "", False),
    ],
)
def test_texts_that_look_like_letters_or_punctuation(
    answer: str, text: str, expected: bool
) -> None:
    assert right(answer, "B", text) is expected


@pytest.mark.parametrize("references", [["B"], ["b", "x"], ["Vermont", "B"], ["B", "x", "y"]])
def test_refuses_references_that_are_not_letter_and_text(references: list[str]) -> None:
    with pytest.raises(ValueError, match=r"references of sample 1 are .* capital letter"):
        LETTER_ACCURACY.score(["B", "B"], [["B", "x"], references])
