"""Answers by choosing: as CLIP itself ranks, both ways; what is no number is an error."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from PIL import Image

from vlmbench import catalogue, retrieval
from vlmbench.answering import answer
from vlmbench.embedded.blank import clip
from vlmbench.errors import NumericsError
from vlmbench.prompting import turns
from vlmbench.spec import Choices, Sample, Source, Turn
from vlmbench.variant import Variant, load

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
    folder = tmp_path_factory.mktemp("clip")
    processor = clip.processor(clip.tokenizer())
    torch.manual_seed(0)
    network = clip.network(processor.tokenizer)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    recipe = catalogue.compressions()["32bit"]
    return load(catalogue.models()["clip"], recipe, Source(str(folder)))


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
    asked = [Turn((p,), "", choices=Choices(TEXTS)) for p in PICTURES]
    assert chosen(variant, asked) == [TEXTS[i] for i in logits(variant).argmax(1).tolist()]


def test_the_picture_that_clip_ranks_first(variant: Variant) -> None:
    asked = [Turn((), text, choices=Choices(COLORS, PICTURES)) for text in TEXTS]
    assert chosen(variant, asked) == [COLORS[i] for i in logits(variant).argmax(0).tolist()]


def test_choices_are_looked_at_once(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    plain = retrieval._texts

    def counting(processor: Any, texts: Any) -> Any:
        read.extend(texts)
        return plain(processor, texts)

    monkeypatch.setattr(retrieval, "_texts", counting)
    offered = Choices((*TEXTS, "something else"))
    chosen(variant, [Turn((p,), "", choices=offered) for p in PICTURES])
    assert read == list(offered.texts)


def test_features_that_are_no_numbers_are_errors(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = variant.network.get_image_features

    def broken(**inputs: Any) -> Any:
        made = plain(**inputs)
        made.pooler_output[0] = torch.nan
        return made

    monkeypatch.setattr(variant.network, "get_image_features", broken)
    asked = {
        c: Turn((p,), "", choices=Choices(TEXTS)) for c, p in zip("abc", PICTURES, strict=False)
    }
    failed: dict[str, Exception] = {}
    made = answer(variant, asked, max_new_tokens=1, batch_size=3, failed=failed.__setitem__)
    assert len(made) == 2 and len(failed) == 1
    (error,) = failed.values()
    assert isinstance(error, NumericsError) and "are NaN" in str(error)


def test_both_ways_of_flickr30k() -> None:
    sets = catalogue.datasets()
    row = {"image": {"bytes": PICTURES[0]}, "caption": ["a star", "one star"], "img_id": "7"}
    other = {"image": {"bytes": PICTURES[1]}, "caption": ["a ring", "one star"], "img_id": "8"}
    found: dict[str, list[Sample]] = {}
    for name in ("flickr30k_retrieval", "flickr30k_search"):
        made = [sets[name].read(r, i) for i, r in enumerate((row, other))]
        found[name] = [sample for sample in made if sample]
    captions = turns(
        sets["flickr30k_retrieval"],
        found["flickr30k_retrieval"],
        among=found["flickr30k_retrieval"],
    )
    (first, _) = captions.values()
    assert first.choices == Choices(("a star", "one star", "a ring"))
    searched = turns(
        sets["flickr30k_search"], found["flickr30k_search"], among=found["flickr30k_search"]
    )
    (first, _) = searched.values()
    assert first.question == "a star"
    assert first.choices == Choices(("a star", "a ring"), PICTURES[:2])


def test_recall_at_1() -> None:
    score = catalogue.metrics()["recall_at_1"].score
    assert score(["a", "b", ""], [["a", "c"], ["a"], ["a"]]) == [1.0, 0.0, 0.0]
