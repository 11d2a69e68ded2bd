"""Recall@1: what was retrieved first is one of those that belong to the query.

Paper: Karpathy and Fei-Fei, CVPR 2015 (arXiv 1412.2306), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlmbench.spec import Metric


def _score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    pairs = zip(answers, references, strict=True)
    return [float(answer in accepted) for answer, accepted in pairs]


RECALL_AT_1 = Metric("recall_at_1", version="1", score=_score)
