"""ANLS: forgives slips of reading, not another answer; the metric of DocVQA.

The edit similarity of the best reference, 0 where it is below 0.5: less than half right counts
as another answer, not as a badly read one.

Paper: Biten et al., Scene Text Visual Question Answering, ICCV 2019 (arXiv 1905.13648).
Official script: evaluation of the Robust Reading Competition, challenges 11 and 17
(https://rrc.cvc.uab.es).

A similarity of exactly 0.5 counts 0.5, as in the script; the paper's formula has it 0.

Differs from the reference: the script divides by the longer text as it was written (upper-cased,
whitespace as it came), here it is the longer of the texts compared, so that spaces that are
collapsed before counting edits do not soften the score either.
"""

from __future__ import annotations

from vlmbench.metrics._edit import similarity
from vlmbench.metrics._pairing import best_reference
from vlmbench.spec import Metric

_THRESHOLD = 0.5


def _thresholded(answer: str, reference: str) -> float:
    value = similarity(answer, reference)
    return value if value >= _THRESHOLD else 0.0


ANLS = Metric("anls", version="1", score=best_reference(_thresholded))
