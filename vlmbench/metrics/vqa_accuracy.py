"""VQA accuracy: how many of the ten annotators gave the model's answer; three are enough.

The mean over the annotators of min(1, agreeing others / 3), after the official normalisation:
punctuation, full stops, number words, articles, apostrophes left out of contractions.

Paper: Antol et al., VQA, ICCV 2015 (arXiv 1505.00468).
Official script: https://github.com/GT-Vision-Lab/VQA, vqaEvaluation/vqaEval.py; the rule in
words: https://visualqa.org/evaluation.html.

Differs from the reference:
- References are normalised like answers, always. The script only cleans their punctuation, and
  that only where annotators disagree, because the published annotations are normalised already;
  references of other data need not be.
- With n < 4 references, n - 1 agreeing others are enough (the script never gives 1 there); a
  single reference is compared for equality.
- Punctuation is the list of the rule in words and of the script's first versions, which keeps
  apostrophe and colon ("girl's", "2:50"); a later version of the script turns both into spaces.
- The script strips the first 32 full stops only, its regular expression's flag being read as a
  count; here all are stripped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlmbench.metrics._pairing import check
from vlmbench.spec import Metric

_ENOUGH = 3
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")

# Only spellings that are no word of their own: "we're" is missing because "were" is one.
_CONTRACTIONS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was "
    "were wo would",
    "n't've": "could had might should would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it somebody someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who y'all you",
    "'ll": "how it somebody someone something they what who why y'all you",
    "'re": "there they what why you",
    "'s": "he how somebody someone that there what when where who why",
    "": "ma'am o'clock 'ow's'at 'twas y'all",
}


def _apostrophes() -> dict[str, str]:
    """Map a contraction with any one of its apostrophes left out to the contraction."""
    full = [stem + tail for tail, stems in _CONTRACTIONS.items() for stem in stems.split()]
    return {
        word[:index] + word[index + 1 :]: word
        for word in full
        for index, letter in enumerate(word)
        if letter == "'"
    }


_SPELLED = _apostrophes()


def _without_punctuation(text: str) -> str:
    """Turn a mark into a space, but beside a space, or with digits as in "100,978", drop it."""
    joined = _DIGIT_COMMA.search(text) is not None
    cleaned = text
    for mark in _MARKS:
        vanishes = joined or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if vanishes else " ")
    return _FULL_STOP.sub("", cleaned)


def _normalise(text: str) -> str:
    cleaned = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    numbered = (_NUMBERS.get(word, word) for word in cleaned.lower().split())
    return " ".join(_SPELLED.get(word, word) for word in numbered if word not in _ARTICLES)


def _accuracy(answer: str, references: Sequence[str]) -> float:
    given = _normalise(answer)
    total = len(references)
    agreeing = sum(_normalise(reference) == given for reference in references)
    if total == 1:
        return float(agreeing)
    enough = min(_ENOUGH, total - 1)
    # Leaving out one who agrees leaves one fewer; leaving out another leaves them all.
    inside = agreeing * min(enough, agreeing - 1)
    outside = (total - agreeing) * min(enough, agreeing)
    return (inside + outside) / (enough * total)


def _score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    check(answers, references)
    return [_accuracy(a, accepted) for a, accepted in zip(answers, references, strict=True)]


VQA_ACCURACY = Metric("vqa_accuracy", version="1", score=_score)
