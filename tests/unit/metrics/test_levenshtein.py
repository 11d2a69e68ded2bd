import random

import pytest

from vlmbench.metrics.anls import ANLS
from vlmbench.metrics.levenshtein import LEVENSHTEIN


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("kitten", ["sitting"], 1 - 3 / 7),
        ("The Coca", ["Coca Cola"], 4 / 9),  # below ANLS's threshold, not 0 here
        ("abc", ["xyz"], 0),
        ("ABC", ["zzz", "a b c"], 0.6),
        (" a  b\t", ["A B"], 1),
        ("", ["abc"], 0),
    ],
)
def test_by_hand(answer: str, references: list[str], score: float) -> None:
    assert LEVENSHTEIN.score([answer], [references]) == [pytest.approx(score)]


def _edits(one: str, two: str) -> int:
    """The textbook's table, a row at a time."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(two, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def test_random_texts_against_the_textbook_and_anls() -> None:
    rng = random.Random(0)
    pairs = [["".join(rng.choices("abc", k=rng.randint(1, 9))) for _ in "12"] for _ in range(300)]
    answers, references = [a for a, _ in pairs], [[b] for _, b in pairs]
    expected = [1 - _edits(a, b) / max(len(a), len(b)) for a, b in pairs]
    scores = LEVENSHTEIN.score(answers, references)
    assert scores == pytest.approx(expected)
    assert ANLS.score(answers, references) == [s if s >= 0.5 else 0 for s in scores]
