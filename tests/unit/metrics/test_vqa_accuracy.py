import pytest

from vlmbench.metrics.vqa_accuracy import VQA_ACCURACY


def accuracy(answer: str, references: list[str]) -> float:
    return VQA_ACCURACY.score([answer], [references])[0]


@pytest.mark.parametrize(
    ("agreeing", "score"),
    # Of the ten subsets of nine, those without an agreeing annotator have one match fewer:
    # 2 agree: (2 * 1/3 + 8 * 2/3) / 10.
    [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)],
)
def test_ten_annotators(agreeing: int, score: float) -> None:
    ten = ["tennis"] * agreeing + ["baseball"] * (10 - agreeing)
    assert accuracy("tennis", ten) == pytest.approx(score)


@pytest.mark.parametrize("total", range(2, 13))
def test_any_number_of_annotators_one_left_out_at_a_time(total: int) -> None:
    for agreeing in range(total + 1):
        flags = [index < agreeing for index in range(total)]
        each = [
            min(1, sum(flags[:out] + flags[out + 1 :]) / min(3, total - 1)) for out in range(total)
        ]
        obtained = accuracy("yes", ["yes" if flag else "no" for flag in flags])
        assert obtained == pytest.approx(sum(each) / total)


def test_annotators_who_all_agree_are_enough_however_few() -> None:
    assert [accuracy("yes", ["yes"] * total) for total in (1, 2, 3, 10)] == [1, 1, 1, 1]


def test_one_reference_is_compared_for_equality() -> None:
    assert accuracy("Two.", ["2"]) == 1
    assert accuracy("three", ["2"]) == 0


@pytest.mark.parametrize(
    ("answer", "reference"),
    # The rule in words, a line each: https://visualqa.org/evaluation.html
    [
        ("TENNIS", "tennis"),
        ("yes.", "yes"),
        ("st. louis", "st louis"),
        ("U.S.A.", "usa"),
        ("two", "2"),
        ("None", "0"),
        ("ten", "10"),
        ("The cat and a dog", "cat and dog"),
        ("an apple", "apple"),
        ("dont", "don't"),
        ("its raining, isnt it", "its raining isn't it"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("black/white", "black white"),
        ("t-shirt", "t shirt"),
        ("(red)", "red"),
        ('"stop"', "stop"),
        ("red, white", "red white"),
        ("red , white", "red white"),
        ("100,978", "100978"),
        ("yes!", "yes"),
        ("left\nside", "left side"),
        ("  left\tside ", "left side"),
    ],
)
def test_normalised_to_the_same(answer: str, reference: str) -> None:
    assert accuracy(answer, [reference]) == 1
    assert accuracy(reference, [answer]) == 1
    assert accuracy(answer, [reference] * 5 + ["else"] * 5) == 1


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("girl's", "girls"),
        ("2:50", "250"),
        ("2:50", "2 50"),
        ("3.5", "35"),
        (".5", "5"),
        ("eleven", "11"),
        ("were", "we're"),
        ("its", "it's"),
        ("wed", "we'd"),
        ("theater", "er"),
        ("yes", "no"),
        ("", "yes"),
        ("yes it is", "yes"),
    ],
)
def test_not_normalised_to_the_same(answer: str, reference: str) -> None:
    assert accuracy(answer, [reference]) == 0


@pytest.mark.parametrize("answer", ["blue-green- red", "blue-green -red", "blue-green-\nred"])
def test_a_mark_beside_a_space_takes_its_likes_with_it(answer: str) -> None:
    """As in the script: no space is put in for any "-", unlike in "t-shirt"."""
    assert accuracy(answer, ["bluegreen red"]) == 1
    assert accuracy(answer.replace("\n", "\t"), ["bluegreen red"]) == 1


def test_a_comma_between_digits_takes_all_punctuation_with_it() -> None:
    """As in the script: "1,000/day" has no space put in, unlike "black/white"."""
    assert accuracy("1,000/day", ["1000day"]) == 1
