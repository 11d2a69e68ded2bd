"""BERTScore F1: how close the answer's meaning is to a reference; the metric of every data set.

Each token is matched with the most similar one of the other text, by the cosine of their
contextual embeddings; F1 of the two directions' means, not rescaled, best reference wins. Lenient:
"no" for "yes" still gets 0.8, so it is never the only gate.

The encoder is all-MiniLM-L6-v2 in the embedded tier and distilbert-base-uncased in the hub tier;
the version names its weights and layer. Always on the CPU, so that a score does not depend on the
machine's accelerator. Texts end at 512 tokens.

Paper: Zhang et al., BERTScore, ICLR 2020 (arXiv 1904.09675).
Official script: https://github.com/Tiiiger/bert_score; its embedding and its matching run here as
they are in bert-score 0.3.13.

Differs from the reference:
- Pairs are matched one at a time. The script pads the pairs of a batch to one length, and a padded
  token, of similarity 0, is a better match than an unlike one: its score of a pair rises (0.003
  was seen, of unrelated words) where the pair's neighbours are longer.
- An empty answer or reference scores 0, as the script means to have it (it raises with
  transformers 5); lone surrogates, which no tokenizer takes, become U+FFFD.
- Loading is ours (`_encoder`); rounding errors beyond 0 and 1 are cut.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from vlmbench.metrics._encoder import DISTILBERT, MINILM, Encoder, load
from vlmbench.metrics._pairing import check
from vlmbench.spec import Metric, Scorer

_BLOCK = 512
"""Samples at a time: every text's embeddings are held, 25 kB for a caption of 16 tokens."""
_BATCH = 64

Embedding = tuple[Any, Any, Any]
"""Of one text: vectors [1, tokens, dim], mask [1, tokens], weights [1, tokens]."""


def _readable(text: str) -> str:
    """Make text that a tokenizer takes: lone surrogates replaced, no whitespace at the ends."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()


def _embed(texts: Iterable[str], encoder: Encoder) -> dict[str, Embedding]:
    from bert_score.utils import get_bert_embedding

    # Neighbours of one length waste little padding; sorted, so that batches do not depend on order.
    ordered = sorted({text for text in texts if text}, key=lambda text: (len(text), text))
    embeddings: dict[str, Embedding] = {}
    if not ordered:
        return embeddings
    model, tokenizer = load(encoder)
    # No idf, hence no pool of workers; special tokens weigh nothing, as in BERTScorer.score.
    special = {tokenizer.cls_token_id: 0.0, tokenizer.sep_token_id: 0.0}
    weigh = defaultdict(lambda: 1.0, special)
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        parts = get_bert_embedding(batch, model, tokenizer, weigh, device="cpu")
        for row, (text, tokens) in enumerate(zip(batch, parts[1].sum(dim=1).tolist(), strict=True)):
            vectors, mask, weights = (part[row : row + 1, :tokens].clone() for part in parts)
            embeddings[text] = vectors, mask, weights
    return embeddings


@functools.lru_cache(maxsize=8)
def _embed_references(texts: frozenset[str], encoder: Encoder) -> dict[str, Embedding]:
    """Embed the references of a block, once for all the variants that answer it.

    Apart from the answers, whose batches would otherwise move a reference by a rounding error.
    """
    return _embed(texts, encoder)


def _f1(answer: Embedding | None, reference: Embedding | None) -> float:
    from bert_score.utils import greedy_cos_idf

    # No text at all, or nothing that makes a token, such as control characters.
    if answer is None or reference is None or not (answer[2].any() and reference[2].any()):
        return 0.0
    # Copies, because the matching normalises in place.
    both = [part.clone() for part in (*reference, *answer)]
    return min(max(float(greedy_cos_idf(*both)[2]), 0.0), 1.0)


def _score_block(
    answers: Sequence[str], references: Sequence[Sequence[str]], encoder: Encoder
) -> list[float]:
    ours = _embed(answers, encoder)
    theirs = _embed_references(frozenset(text for texts in references for text in texts), encoder)
    samples = list(zip(answers, references, strict=True))
    pairs = {(answer, text) for answer, texts in samples for text in texts}
    f1 = {pair: _f1(ours.get(pair[0]), theirs.get(pair[1])) for pair in pairs}
    return [max(f1[answer, text] for text in texts) for answer, texts in samples]


def bertscore(encoder: Encoder) -> Scorer:
    """Make the scorer of an encoder, which is loaded at the first text to score."""

    def score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        check(answers, references)
        ours = [_readable(answer) for answer in answers]
        theirs = [[_readable(text) for text in texts] for texts in references]
        scores: list[float] = []
        for start in range(0, len(ours), _BLOCK):
            block = slice(start, start + _BLOCK)
            scores += _score_block(ours[block], theirs[block], encoder)
        return scores

    return score


_HUB = Metric("bertscore", version=f"1:{DISTILBERT.version}", score=bertscore(DISTILBERT))
BERTSCORE = Metric(
    "bertscore",
    version=f"1:{MINILM.version}",
    score=bertscore(MINILM),
    by_tier={"hub": _HUB},
)
