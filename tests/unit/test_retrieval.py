"""Answers by choosing: as CLIP itself ranks, both ways; what is no number is an error."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from datasets import Dataset as Rows
from datasets import Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from vlmbench import catalogue, retrieval, samples
from vlmbench.answering import answer
from vlmbench.errors import NumericsError, PictureError
from vlmbench.spec import Choices, Source, Turn
from vlmbench.variant import Variant

TEXTS = ("a red star", "a blue ring in the snow", "two moons", "a cross")
COLORS = ("red", "blue", "white", "black", "pink")


def png(color: str) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(out, "PNG")
    picture = Image.open(out)
    picture.paste(Image.new("RGB", (90, 90), color), (20, 60))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


PICTURES = tuple(map(png, COLORS))


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    """A random CLIP, deaf to what all have in common: else one choice is nearest to everything."""
    loaded: Variant = checkpoints.Checkpoints(tmp_path_factory.mktemp("clip")).load("clip")
    network, processor = loaded.network, loaded.processor
    with torch.no_grad():
        for tower, projection, inputs in (
            (
                network.vision_model,
                network.visual_projection,
                retrieval.of_pictures(processor, PICTURES),
            ),
            (network.text_model, network.text_projection, retrieval.of_texts(processor, TEXTS)),
        ):
            common = tower(**inputs).pooler_output.mean(0)
            common /= common.norm()
            projection.weight -= (projection.weight @ common).outer(common)
    return loaded


def logits(variant: Variant) -> Any:
    """[pictures, texts], by CLIP's own forward pass."""
    pictures = [Image.open(io.BytesIO(p)) for p in PICTURES]
    inputs = variant.processor(images=pictures, text=list(TEXTS), padding=True, return_tensors="pt")
    with torch.inference_mode():
        return variant.network(**inputs).logits_per_image


def chosen(variant: Variant, asked: list[Turn]) -> list[str]:
    named = {str(i): turn for i, turn in enumerate(asked)}
    made = answer(variant, named, max_new_tokens=1, batch_size=2)
    return [made[name].text for name in named]


def test_the_text_that_clip_ranks_first(variant: Variant) -> None:
    assert len(set(logits(variant).argmax(1).tolist())) > 1, "else rows could be mixed up unseen"
    asked = [Turn((p,), "", choices=Choices(TEXTS)) for p in PICTURES]
    assert chosen(variant, asked) == [TEXTS[i] for i in logits(variant).argmax(1).tolist()]


def test_the_picture_that_clip_ranks_first(variant: Variant) -> None:
    asked = [Turn((), text, choices=Choices(COLORS, PICTURES)) for text in TEXTS]
    assert chosen(variant, asked) == [COLORS[i] for i in logits(variant).argmax(0).tolist()]


def test_choices_are_looked_at_once_an_evaluation(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for good: a network may change between two."""
    read: list[str] = []
    plain = retrieval.of_texts

    def counting(processor: Any, texts: Any) -> Any:
        read.extend(texts)
        return plain(processor, texts)

    monkeypatch.setattr(retrieval, "of_texts", counting)
    asked = [Turn((p,), "", choices=Choices(TEXTS)) for p in PICTURES]
    for _ in range(2):
        chosen(variant, asked)
    assert read == [*TEXTS, *TEXTS]


def test_a_picture_to_choose_that_cannot_be_read(variant: Variant) -> None:
    offered = Choices(COLORS, (*PICTURES[:4], PICTURES[4][:-40]))
    with pytest.raises(PictureError, match="the picture to choose for 'pink'"):
        chosen(variant, [Turn((), "a star", choices=offered)])


def test_a_choice_whose_features_are_no_numbers(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant.network, "get_text_features", broken(variant, "text", row=1))
    with pytest.raises(NumericsError, match=r"1 of 4 choices .* first 'a blue ring"):
        chosen(variant, [Turn((p,), "", choices=Choices(TEXTS)) for p in PICTURES])


def broken(variant: Variant, kind: str, *, row: int) -> Any:
    """Features of which those of a row are no numbers."""
    plain = getattr(variant.network, f"get_{kind}_features")

    def features(**inputs: Any) -> Any:
        made = plain(**inputs)
        made.pooler_output[row] = torch.nan
        return made

    return features


def test_features_that_are_no_numbers_are_errors(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant.network, "get_image_features", broken(variant, "image", row=0))
    asked = {
        c: Turn((p,), "", choices=Choices(TEXTS)) for c, p in zip("abc", PICTURES, strict=False)
    }
    failed: dict[str, Exception] = {}
    made = answer(variant, asked, max_new_tokens=1, batch_size=3, failed=failed.__setitem__)
    assert len(made) == 2 and len(failed) == 1
    (error,) = failed.values()
    assert isinstance(error, NumericsError) and "are NaN" in str(error)


def test_both_ways_of_flickr30k(tmp_path: Path) -> None:
    """Out of all there is, however few are asked."""
    rows = [
        {"image": {"bytes": p}, "caption": [f"a {c}", f"one {c}", "a star"], "img_id": c}
        for c, p in zip(COLORS, PICTURES, strict=True)
    ]
    features = Features(
        {"image": ImageFeature(), "caption": [Value("string")], "img_id": Value("string")}
    )
    Rows.from_list(rows, features=features).to_parquet(tmp_path / "test.parquet")
    found = {
        name: samples.read(catalogue.datasets()[name], Source(str(tmp_path)), limit=2)
        for name in ("flickr30k_retrieval", "flickr30k_search")
    }
    captions, pictures = (made.choices for made in found.values())
    assert captions is not None and pictures is not None
    assert captions.texts[:4] == ("a red", "one red", "a star", "a blue")
    assert len(captions.texts) == 11 and captions.pictures == ()
    assert pictures == Choices(tuple(f"a {c}" for c in COLORS), PICTURES)
    assert all(len(made.items) == 2 for made in found.values())
    assert [sample.question for sample in found["flickr30k_search"].items] == ["a red", "a blue"]
    hashes = {samples.choices_hash(c) for c in (captions, pictures, Choices(pictures.texts))}
    assert len(hashes) == 3


def test_recall_at_1() -> None:
    score = catalogue.metrics()["recall_at_1"].score
    assert score(["a", "b", ""], [["a", "c"], ["a"], ["a"]]) == [1.0, 0.0, 0.0]
