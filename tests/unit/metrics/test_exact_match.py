import pytest

from vlmbench.metrics.exact_match import EXACT_MATCH


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("Vermont", ["vermont"], 1),
        (" 12\n March ", ["12 march"], 1),
        ("two", ["1", "Two"], 1),
        ("\uff12\uff10\uff12\uff14", ["2024"], 1),  # full-width digits
        ("\ufb01le", ["file"], 1),  # a ligature
        ("STRASSE", ["stra\u00dfe"], 1),
        ("cafe\u0301", ["caf\u00e9"], 1),
        ("16 \u3385", ["16 kb"], 1),  # one character that is "KB" only after NFKC
        ("\u0390", ["\u03aa\u0301"], 1),  # a Greek letter and its capital: folding undoes NFKC
        ("cafe", ["caf\u00e9"], 0),
        ("the cat", ["cat"], 0),
        ("12.", ["12"], 0),
        ("a b", ["ab"], 0),
        ("", ["a"], 0),
    ],
)
def test_by_hand(answer: str, references: list[str], score: float) -> None:
    assert EXACT_MATCH.score([answer], [references]) == [score]
