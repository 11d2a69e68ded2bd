"""Recall@1: what was retrieved first is one of those that belong to the query.

Paper: Karpathy and Fei-Fei, CVPR 2015 (arXiv 1412.2306), section 4.1.
"""

from __future__ import annotations

from vlmbench.metrics._pairing import best_reference
from vlmbench.spec import Metric


def _retrieved(answer: str, reference: str) -> float:
    return float(answer == reference)


RECALL_AT_1 = Metric("recall_at_1", version="1", score=best_reference(_retrieved))
