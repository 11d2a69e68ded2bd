"""VQAv2: a short question about a picture, answered by ten annotators (arXiv 1612.00837)."""

from vlmbench.datasets._read import embedded, identity, picture, picture_id, texts
from vlmbench.spec import Dataset, Gate, Row, Sample, Source


def _read(row: Row, number: int) -> Sample:
    image = picture(row["image"])
    ten = [entry["answer"] for entry in row.get("answers") or ()]
    return Sample(
        id=identity(row, number, "question_id"),
        pictures=(image,),
        question=row["question"],
        references=texts(ten or [row["multiple_choice_answer"]]),
        cluster=picture_id(image),
    )


VQAV2 = Dataset(
    name="vqav2",
    sources={
        "embedded": embedded("vqav2"),
        "hub": Source(
            "merve/vqav2-small",
            split="validation[:1000]",
            fallbacks=(Source("lmms-lab/VQAv2", split="validation[:1000]"),),
        ),
    },
    # Behind the rows of the test.
    train={"hub": Source("merve/vqav2-small", split="validation[1000:]")},
    columns=("image", "question", "multiple_choice_answer"),
    read=_read,
    gates=(Gate("bertscore", 0.01), Gate("vqa_accuracy", 0.02)),
    metrics=("exact_match",),
    demos=(
        "place",
        "is_above",
        "cross_color",
        "orange_shape",
        "green_shape",
        "moon_color",
        "exists",
        "purple_shape",
        "where_black",
        "none_blue",
    ),
)
