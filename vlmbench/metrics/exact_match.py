"""Exact match: the answer is one of the references, but for case, width and spacing.

Both are brought to Unicode NFKC, case-folded and stripped of superfluous whitespace. Nothing
else is forgiven: articles and punctuation count, for answers where a full stop or a leading
"the" is an error (transcriptions, codes, amounts).

Paper: Rajpurkar et al., SQuAD, EMNLP 2016 (arXiv 1606.05250).
Official script: evaluate-v1.1.py of SQuAD.

Differs from the reference: SQuAD also drops articles and ASCII punctuation, and knows neither
NFKC nor case folding (it lower-cases).
"""

from __future__ import annotations

from vlmbench.metrics._pairing import best_reference
from vlmbench.metrics._unicode import plain
from vlmbench.spec import Metric


def _equal(answer: str, reference: str) -> float:
    return float(plain(answer) == plain(reference))


EXACT_MATCH = Metric("exact_match", version="1", score=best_reference(_equal))
