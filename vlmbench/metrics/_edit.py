"""The edit similarity that ANLS and Levenshtein similarity share."""

from __future__ import annotations


def normalise(text: str) -> str:
    """Lower-cased, every run of whitespace one space, none at the ends."""
    return " ".join(text.lower().split())


def similarity(answer: str, reference: str) -> float:
    """1 - edits / length of the longer text, both normalised; two empty texts are equal."""
    from rapidfuzz.distance import Levenshtein

    answer, reference = normalise(answer), normalise(reference)
    longer = max(len(answer), len(reference))
    return 1.0 - Levenshtein.distance(answer, reference) / longer if longer else 1.0
