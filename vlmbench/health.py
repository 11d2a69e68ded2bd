"""The health of a run's answers: what a broken model shows before any metric explains why.

A model that is broken by compression mostly falls silent, never stops, loops, or says the same to
everything. None of it needs a reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_LOOP = 0.5
"""An answer repeats where more than this share of its 3-grams has occurred in it before."""
_UNSPACED = 32
"""Characters from which an answer of one or two words ("!!!!!!") is looked at by characters."""


@dataclass(frozen=True)
class Health:
    """Shares of a run's answers, in [0, 1]."""

    empty: float
    """Nothing but whitespace."""
    cut: float
    """Ended by the token limit."""
    repeating: float
    """More than half of the 3-grams (of words) repeated within the answer."""
    commonest: float
    """The commonest answer, but for case and whitespace; 1.0: the picture no longer matters."""


def _repeats(answer: str) -> bool:
    units: Sequence[str] = answer.split()
    if len(units) < 3 and len(answer) >= _UNSPACED:
        units = answer
    grams = list(zip(units, units[1:], units[2:], strict=False))
    return len(grams) - len(set(grams)) > _LOOP * len(grams)


def measure(answers: Sequence[str], cut_flags: Sequence[bool]) -> Health:
    """Measure the answers of a run; `cut_flags` says of each whether the token limit ended it."""
    if not answers:
        raise ValueError("no answers to measure: the run answered nothing")
    if len(answers) != len(cut_flags):
        raise ValueError(f"{len(answers)} answers, but {len(cut_flags)} flags of being cut")
    spoken = Counter(" ".join(answer.casefold().split()) for answer in answers)
    total = len(answers)
    return Health(
        empty=spoken[""] / total,
        cut=sum(map(bool, cut_flags)) / total,
        repeating=sum(map(_repeats, answers)) / total,
        commonest=max(spoken.values()) / total,
    )
