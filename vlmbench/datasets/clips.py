"""Short clips described in a sentence, in the columns of MSVD (a video, its captions)."""

from vlmbench.datasets._read import embedded, film, film_id, identity, texts
from vlmbench.spec import Dataset, Gate, Row, Sample, Source


def _read(row: Row, number: int) -> Sample:
    captions = row["caption"]
    return Sample(
        id=identity(row, number, "video_id"),
        pictures=(),
        question="What is happening in the video ?",
        references=texts([captions] if isinstance(captions, str) else captions),
        cluster=film_id(row),
        clip=film(row),
    )


CLIPS = Dataset(
    name="clips",
    sources={
        "embedded": embedded("clips"),
        "hub": Source("VLM2Vec/MSVD", fallbacks=(Source("VLM2Vec/MSR-VTT"),)),
    },
    columns=("caption",),
    read=_read,
    of_videos=True,
    gates=(Gate("bertscore", 0.01), Gate("cider", 0.02, relative=True)),
    demos=("diamond_then_circle", "circle_then_ring", "cross_then_square"),
)
