"""What every metric does with its two arguments: check them, and let the best reference win."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmbench.spec import Scorer


def check(answers: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse what no metric can score, naming the sample."""
    if len(answers) != len(references):
        raise ValueError(
            f"{len(answers)} answers, but references of {len(references)} samples: "
            "pass one list of references for each answer"
        )
    for index, accepted in enumerate(references):
        if isinstance(accepted, str):
            # Python would walk it letter by letter and score each letter.
            raise ValueError(
                f"the references of sample {index} are the string {accepted[:40]!r}, "
                "expected a list of strings"
            )
        if not accepted:
            raise ValueError(f"sample {index} has no references, expected at least one")


def best_reference(similarity: Callable[[str, str], float]) -> Scorer:
    """Make the scorer that gives each answer its highest `similarity(answer, reference)`."""

    def score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        check(answers, references)
        return [
            max(similarity(answer, reference) for reference in accepted)
            for answer, accepted in zip(answers, references, strict=True)
        ]

    return score
