"""How much of the answer's spelling is right, for answers that are read off a page.

1 - (insertions, deletions and substitutions) / (characters of the longer text), lower-cased and
with whitespace collapsed; the best reference wins. It is ANLS without the threshold: it still
moves where ANLS has already fallen to 0.

Paper: Levenshtein, Binary codes capable of correcting deletions, insertions and reversals, 1966.
Official script: none.
"""

from __future__ import annotations

from vlmbench.metrics._edit import similarity
from vlmbench.metrics._pairing import best_reference
from vlmbench.spec import Metric

LEVENSHTEIN = Metric("levenshtein", version="1", score=best_reference(similarity))
