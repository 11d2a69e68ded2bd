"""ScienceQA: school questions with lettered choices (Lu et al., arXiv 2209.09513).

Only questions with a picture are asked; the others are counted as left out.
"""

from vlmbench.datasets._read import embedded, picture, picture_id, texts
from vlmbench.errors import DataError
from vlmbench.spec import Dataset, Gate, Row, Sample, Source

CLOSING = "Please answer directly with only the letter of the correct option."


def _read(row: Row, number: int) -> Sample | None:
    if row["image"] is None:
        return None
    image = picture(row["image"])
    choices, right = texts(row["choices"]), row["answer"]
    if right not in range(len(choices)):
        raise DataError(f"answer {right!r} is the number of none of {len(choices)} choices")
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    options = [f"{a}. {text}" for a, text in zip(letters, choices, strict=True)]
    lines = [row["question"], *options, row.get("hint") or "", CLOSING]
    return Sample(
        id=str(number),
        pictures=(image,),
        question="\n".join(line for line in lines if line),
        references=(letters[right], choices[right]),
        cluster=picture_id(image),
    )


SCIENCEQA = Dataset(
    name="scienceqa",
    sources={
        "embedded": embedded("scienceqa"),
        "hub": Source(
            "derek-thomas/ScienceQA",
            fallbacks=(Source("lmms-lab/ScienceQA", config="ScienceQA-IMG"),),
        ),
    },
    train={"hub": Source("derek-thomas/ScienceQA", split="train")},
    columns=("image", "question", "choices", "answer"),
    read=_read,
    gates=(Gate("bertscore", 0.01), Gate("letter_accuracy", 0.02)),
    metrics=("exact_match",),
    demos=(
        "solid",
        "map_north",
        "magnets",
        "liquid",
        "thermometers",
        "food_chain",
        "punnett",
        "tallest_bar",
        "shortest_bar",
        "algae",
    ),
)
