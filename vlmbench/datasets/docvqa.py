"""DocVQA: a question about a document page (Mathew et al., arXiv 2007.00398)."""

from vlmbench.datasets._read import embedded, identity, picture, picture_id, texts
from vlmbench.spec import Dataset, Gate, Row, Sample, Source


def _read(row: Row, number: int) -> Sample:
    image = picture(row["image"])
    query = row.get("query") or {}
    return Sample(
        id=identity(row, number, "id", "questionId"),
        pictures=(image,),
        question=row.get("question") or query["en"],
        references=texts(row["answers"]),
        cluster=picture_id(image),
    )


DOCVQA = Dataset(
    name="docvqa",
    sources={
        "embedded": embedded("docvqa"),
        "hub": Source(
            "nielsr/docvqa_1200_examples",
            fallbacks=(Source("lmms-lab/DocVQA", config="DocVQA", split="validation"),),
        ),
    },
    train={"hub": Source("nielsr/docvqa_1200_examples", split="train")},
    columns=("image", "answers"),
    read=_read,
    gates=(Gate("bertscore", 0.01), Gate("anls", 0.02)),
    metrics=("levenshtein", "exact_match"),
    demos=(
        "town",
        "tax",
        "name",
        "number",
        "which_number",
        "phone",
        "goods",
        "units",
        "city",
        "code",
    ),
)
