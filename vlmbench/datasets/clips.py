"""Short clips described in a sentence, in the columns of MSVD (a video, its captions)."""

from vlmbench.datasets._read import embedded, film, film_id, identity, texts
from vlmbench.spec import Dataset, Gate, Row, Sample, Source

QUESTION = "What is happening in the video ?"


def _read(row: Row, number: int) -> Sample:
    captions, clip = row["caption"], film(row)
    return Sample(
        id=identity(row, number, "video_id"),
        pictures=(),
        question=QUESTION,
        references=texts([captions] if isinstance(captions, str) else captions),
        cluster=film_id(row, clip),
        clip=clip,
    )


CLIPS = Dataset(
    name="clips",
    sources={
        "embedded": embedded("clips"),
        "hub": Source("VLM2Vec/MSVD", fallbacks=(Source("VLM2Vec/MSR-VTT"),)),
    },
    train={"hub": Source("VLM2Vec/MSVD", split="train")},
    columns=("caption",),
    read=_read,
    captions=True,
    of_videos=True,
    gates=(Gate("bertscore", 0.01), Gate("cider", 0.02, relative=True)),
    demos=("diamond_then_circle", "circle_then_ring", "cross_then_box"),
)
