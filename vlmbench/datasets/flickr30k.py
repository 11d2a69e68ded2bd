"""Flickr30k: a picture described in a sentence, against five captions (TACL 2014, Young et al.)."""

from vlmbench.datasets._read import embedded, identity, picture, picture_id, texts
from vlmbench.spec import Dataset, Gate, Row, Sample, Source


def _read(row: Row, number: int) -> Sample:
    image = picture(row["image"])
    return Sample(
        id=identity(row, number, "img_id"),
        pictures=(image,),
        question="What is happening in the image",
        references=texts(row["caption"]),
        cluster=picture_id(image),
    )


FLICKR30K = Dataset(
    name="flickr30k",
    sources={
        "embedded": embedded("flickr30k"),
        "hub": Source(
            "umaru97/flickr30k_train_val_test",
            fallbacks=(Source("lmms-lab/flickr30k"),),
            where=("split", "test"),
        ),
    },
    train={"hub": Source("umaru97/flickr30k_train_val_test", where=("split", "train"))},
    columns=("image", "caption"),
    read=_read,
    captions=True,
    gates=(Gate("bertscore", 0.01), Gate("cider", 0.02, relative=True)),
    demos=(
        "rings_and_moons",
        "pink_and_orange",
        "diamonds",
        "triangle_star",
        "red_box",
        "cross_diamond",
        "purple_star",
        "yellow_trio",
        "snow",
        "pink_star",
    ),
)
