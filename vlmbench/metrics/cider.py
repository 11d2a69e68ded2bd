"""CIDEr-D: how much of the captions' consensus is in the answer; the metric of image captions.

Cosine of the tf-idf weighted n-grams (1 to 4) of the answer and each of its references, clipped
and with a penalty on length, averaged, times 10: 0 to 10, with 1 about what people reach on COCO.

A word's weight is how rare it is among the references of the call, so a score belongs to a set of
samples: compare scores only over the same samples. With one sample every weight is log(1) = 0 and
so is its score.

Paper: Vedantam et al., CIDEr, CVPR 2015 (arXiv 1411.5726).
Official script: https://github.com/tylin/coco-caption; its scorer runs here as it is in
pycocoevalcap.

Differs from the reference: the tokenizer needs no Java (`_ptb`); references without a single
token score 0, where the script stops.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlmbench.metrics._pairing import check
from vlmbench.metrics._ptb import tokens
from vlmbench.spec import Metric


def _tokenized(caption: str) -> str:
    return " ".join(tokens(caption))


def _score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    check(answers, references)
    scorer = CiderScorer()
    for answer, accepted in zip(answers, references, strict=True):
        scorer += (_tokenized(answer), [_tokenized(reference) for reference in accepted])
    if not any(counts for accepted in scorer.crefs for counts in accepted):
        return [0.0] * len(answers)
    return [float(score) for score in scorer.compute_score()[1]]


CIDER = Metric("cider", version="1", score=_score, unit="cider", corpus_level=True)
