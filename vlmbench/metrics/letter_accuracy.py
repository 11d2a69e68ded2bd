"""Letter accuracy: whether the answer names the right choice, however it is put.

The references of a sample are the right letter and the right choice's text. Right are the letter
("B", "(b)", "**B**"), the letter and what follows it ("B. Vermont", "B, because ..."), both after
words that announce an answer ("The answer is B."), or exactly the text. Everything else is wrong,
never guessed:

- an answer that names two letters ("A or B", "B. Vermont, not C");
- a letter that runs on into a sentence, as the article does ("A dog is here"), except where the
  sentence is the right text ("B Vermont");
- an announced letter that another one contradicts ("A. No, the answer is B").

A lone letter is always the letter of a choice, even where a choice's text is a letter. Only the
right choice's text is known, so of "B. <text of another choice>" the letter counts.

Paper: Lu et al., Learn to Explain (ScienceQA), NeurIPS 2022 (arXiv 2209.09513).
Official script: https://github.com/lupantech/ScienceQA, models/run_gpt3.py.

Differs from the reference: the script takes "The answer is X." alone and guesses a choice where
it finds none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from vlmbench.metrics._pairing import check
from vlmbench.metrics._unicode import plain
from vlmbench.spec import Metric

_QUOTES = " \n*_`\"'\u201c\u201d\u2018\u2019"
_FRAME = _QUOTES + ".,:;!()[]{}"
"""What may stand around a letter without changing what is meant; around a text it might: ".5"."""

_LETTER = re.compile("[A-Za-z]")
_LED_BY_LETTER = re.compile(
    r"""([A-Za-z])
        (?: [])}:*]                     # B) Vermont    B: Vermont    **B** Vermont
          | [.,;](?=[\s*)]|[A-Z][a-z])  # B. Vermont    B.Vermont     but not a.m.
          | \ [-\u2013\u2014]\ | \n      # B - Vermont
          | (?=\ \(|\ because\b)        # B (Vermont)
          | \ is\ (?:the\ )?(?:correct|right|best|answer)\b
        )(.*)""",
    re.VERBOSE | re.DOTALL,
)
_ANNOUNCEMENT = re.compile(
    r"""\b(?:answer|option|choice|letter)(?:\ is\b:?|\ would\ be\b:?|\W*[:=])
        (?:\W*(?:the\ )?(?:(?:correct|right)\ )?(?:option|choice|letter)\b)?
      | ^(?:it\ is|it['\u2019]s|answer|option|choice)(?=\s)""",
    re.VERBOSE | re.IGNORECASE,
)
# No question has more choices than A to H, and I is a word. A is one, too, before a small letter.
_NAMED = re.compile(
    r"""(?<![\w'\u2019-])
        ([B-Hb-h](?![\w'\u2019-])|A(?![\w'\u2019-]|\s[a-z])|a(?=[.):,;]|\W*$))""",
    re.VERBOSE,
)


def _same(text: str, other: str) -> bool:
    one, two = (plain(side.strip(_QUOTES).rstrip(_QUOTES + ".")) for side in (text, other))
    return one == two != ""


def _names(claim: str, letter: str, choice: str) -> bool:
    """Whether a claim is the letter, the text, or the letter with more behind it."""
    alone = claim.strip(_FRAME)
    if _LETTER.fullmatch(alone):
        return alone.upper() == letter
    if _same(claim, choice) or _same(claim, f"{letter} {choice}"):
        return True
    led = _LED_BY_LETTER.match(claim.lstrip(_FRAME))
    if led is None or led[1].upper() != letter:
        return False
    return _same(led[2], choice) or {name.upper() for name in _NAMED.findall(led[2])} <= {letter}


def _right(answer: str, letter: str, choice: str) -> bool:
    lines = unicodedata.normalize("NFKC", answer).splitlines()
    readable = "\n".join(" ".join(line.split()) for line in lines).strip()
    if _names(readable, letter, choice):
        return True
    before, *announced = _ANNOUNCEMENT.split(readable)
    led = _LED_BY_LETTER.match(before.lstrip(_FRAME))
    if led is not None and led[1].upper() != letter:
        return False
    return bool(announced) and all(_names(claim, letter, choice) for claim in announced)


def _score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    check(answers, references)
    for index, pair in enumerate(references):
        if len(pair) != 2 or re.fullmatch("[A-Z]", pair[0]) is None:
            raise ValueError(
                f"the references of sample {index} are {list(pair)!r}, expected the right "
                "choice's capital letter and its text"
            )
    return [float(_right(a, *pair)) for a, pair in zip(answers, references, strict=True)]


LETTER_ACCURACY = Metric("letter_accuracy", version="1", score=_score)
