"""Flickr30k both ways: the caption that fits a picture, the picture that fits a caption."""

from collections.abc import Sequence
from dataclasses import replace

from vlmbench.datasets.flickr30k import FLICKR30K
from vlmbench.spec import Choices, Dataset, Gate, Row, Sample


def _captions(samples: Sequence[Sample]) -> Choices:
    every = (caption for sample in samples for caption in sample.references)
    return Choices(tuple(dict.fromkeys(every)))


def _described(row: Row, number: int) -> Sample | None:
    """The first caption is the query."""
    sample = FLICKR30K.read(row, number)
    return sample and replace(sample, question=sample.references[0])


def _pictures(samples: Sequence[Sample]) -> Choices:
    """A picture is told by the caption that it is looked for with."""
    captions = tuple(sample.question for sample in samples)
    return Choices(captions, tuple(sample.pictures[0] for sample in samples))


FLICKR30K_RETRIEVAL = Dataset(
    name="flickr30k_retrieval",
    sources=FLICKR30K.sources,
    columns=FLICKR30K.columns,
    read=FLICKR30K.read,
    choose=_captions,
    gates=(Gate("bertscore", 0.01), Gate("recall_at_1", 0.02)),
    prompt_style="none",
    instruction="",
    demos=FLICKR30K.demos,
)
FLICKR30K_SEARCH = replace(
    FLICKR30K_RETRIEVAL, name="flickr30k_search", read=_described, choose=_pictures
)
