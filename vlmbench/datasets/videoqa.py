"""Questions on clips that no single frame answers, in the columns of MSVD-QA."""

from vlmbench.datasets._read import embedded, film, film_id, identity, texts
from vlmbench.spec import Dataset, Gate, Row, Sample, Source


def _read(row: Row, number: int) -> Sample:
    clip = film(row)
    return Sample(
        id=identity(row, number, "question_id", "id"),
        pictures=(),
        question=row["question"],
        references=texts(row.get("answers") or [row["answer"]]),
        cluster=film_id(row, clip),
        clip=clip,
    )


VIDEOQA = Dataset(
    name="videoqa",
    sources={"embedded": embedded("videoqa", films="clips"), "hub": Source("morpheushoc/msvd-qa")},
    train={"hub": Source("morpheushoc/msvd-qa", split="train")},
    columns=("question", "answer"),
    read=_read,
    of_videos=True,
    gates=(Gate("bertscore", 0.01), Gate("vqa_accuracy", 0.02)),
    metrics=("exact_match",),
    demos=(
        *("circle_last", "diamond_first", "circle_changed"),
        *("circle_does", "tile_last", "cross_first"),
    ),
)
