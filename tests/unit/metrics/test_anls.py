import pytest

from vlmbench.metrics.anls import ANLS

COLA = ["Coca Cola", "Coca Cola Company"]


@pytest.mark.parametrize(
    ("answer", "score"),
    # The worked examples of the competition: 0.44, 0.89, 1, 0.44 and 0.22 before the threshold.
    [("The Coca", 0), ("CocaCola", 8 / 9), ("Coca cola", 1), ("Cola", 0), ("Cat", 0)],
)
def test_the_competitions_examples(answer: str, score: float) -> None:
    assert ANLS.score([answer], [COLA]) == [pytest.approx(score)]


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("ab", "ax", 0.5),  # half right still counts, as in the script
        ("abc", "axy", 0),
        ("abcde", "abxyz", 0),
        ("  Invoice\n 12 ", "invoice 12", 1),
        ("INVOICE", "invoice", 1),
        ("\u00dcber", "\u00fcber", 1),
        ("", "a", 0),
        ("", "", 1),
        ("12.50", "1250", 0.8),
    ],
)
def test_by_hand(answer: str, reference: str, score: float) -> None:
    assert ANLS.score([answer], [[reference]]) == [pytest.approx(score)]


def test_collapsed_whitespace_does_not_soften_the_score() -> None:
    assert ANLS.score(["ab" + " " * 50], [["xb"]]) == ANLS.score(["ab"], [["xb"]]) == [0.5]
