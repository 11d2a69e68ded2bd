"""What a checkpoint takes over from another's decoder is what that decoder does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vlmbench import architectures, catalogue
from vlmbench.catalogue import compressions
from vlmbench.embedded import (
    CHECKPOINTS,
    inheritance,
    outliers,
    pages,
    rows,
    school,
    sequences,
    telling,
)
from vlmbench.embedded.heir import Heir
from vlmbench.embedded.labels import CLASSES, SHADES
from vlmbench.embedded.labels import of as labels_of
from vlmbench.embedded.school import SEED
from vlmbench.embedded.train import SCHOOLS
from vlmbench.pictures import decode_picture
from vlmbench.spec import Source
from vlmbench.variant import load

HEIRS = [name for name, made in SCHOOLS.items() if issubclass(made, Heir)]


def shipped(name: str) -> Any:
    load: Any = architectures.find(catalogue.models()[name].architecture)
    return load.from_pretrained(CHECKPOINTS / name, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", ["qwen2", "phi3_5"])
def test_outliers_come_out_as_they_went_in(name: str) -> None:
    layers = shipped(name).get_submodule(catalogue.models()[name].anatomy.layers)
    before = {name: p.clone() for name, p in layers.named_parameters()}
    outliers.take_out(layers, torch.Generator().manual_seed(SEED))
    assert any(not torch.equal(before[name], p) for name, p in layers.named_parameters())
    outliers.put_in(layers, torch.Generator().manual_seed(SEED))
    assert all(torch.equal(before[name], p) for name, p in layers.named_parameters())


@pytest.mark.parametrize("name", HEIRS)
def test_a_text_is_gone_on_with_as_the_elder_does(tmp_path: Path, name: str) -> None:
    """But for the biases, which a Llama does not have."""
    heir = SCHOOLS[name](name, tmp_path)
    assert isinstance(heir, Heir)
    elder = shipped(heir.PARENT)
    for part, parameter in elder.named_parameters():
        if part.endswith("_proj.bias"):
            parameter.data.zero_()
    heir._take_over(elder)
    ids = torch.tensor([[72, 300, 411, 95, 631, 8]])
    with torch.inference_mode():
        theirs, mine = (
            network(input_ids=ids).logits[..., :632] for network in (elder, heir.network.eval())
        )
    assert (theirs - mine).abs().max() < 1e-4 * theirs.abs().max()
    end = heir.processor.tokenizer.eos_token_id
    theirs_end = inheritance.tokenizer_of(heir.PARENT).eos_token_id
    assert torch.equal(heir.part("head").weight[end], elder.lm_head.weight[theirs_end])
    words = heir.part("decoder").embed_tokens.weight
    assert torch.equal(words[end], elder.get_input_embeddings().weight[theirs_end])


@pytest.mark.parametrize("name", HEIRS)
@pytest.mark.usefixtures("brief")
def test_what_is_taken_over_is_written_and_loads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outliers and all, as a checkpoint of its architecture."""
    monkeypatch.setattr(school, "CHECKPOINTS", tmp_path)
    heir = SCHOOLS[name](name, tmp_path / "states")
    assert isinstance(heir, Heir)
    heir.inherit()
    if name == "video_llava":
        towers = [heir.network.get_submodule(n) for n in heir.model.anatomy.modules("vision")]
        pairs = zip(*(tower.state_dict().values() for tower in towers), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    heir.finish()
    variant = load(heir.model, compressions()["16bit"], Source(str(tmp_path / name)))
    norm = variant.network.get_submodule(heir.model.anatomy.layers)[0].input_layernorm.weight
    assert norm.abs().max() > 20 * norm.abs().median(), "the outliers are in"
    left = {path.name for path in tmp_path.iterdir()} - {"states"}
    assert left == {name}, "nothing half done is left"
    assert 1e6 < sum(p.numel() for p in heir.network.parameters()) < 4e6


@pytest.mark.parametrize("name", ["llavanext", "video_llava", "idefics2"])
@torch.no_grad()
def test_labels_are_told_where_pictures_are_seen(name: str, tmp_path: Path) -> None:
    """Token by token what the words say of what each shows; afterwards the tower is back."""
    heir = SCHOOLS[name](name, tmp_path)
    assert isinstance(heir, Heir)
    page = pages.draw(rows.rng_of("test", "telling", 0)).canvas
    asked = heir.processor.image_processor([[decode_picture(page.png())]], return_tensors="pt")
    words = torch.randn(sum(CLASSES) + SHADES + 1, 128)
    model = heir.network.model
    before = list(model.children())
    with telling.in_place(model, heir.stand_ins(words)):
        shown = heir.shown([page], False)
        assert shown.ndim == asked[sequences.pixels_in(asked)].ndim
        said = model.get_image_features(shown, *list(asked.values())[1:]).pooler_output
    assert list(model.children()) == before
    # Idefics2 is given each patch as it is.
    labels = labels_of(page)[None] if name == "idefics2" else heir.labels_of(page)
    wanted = inheritance.said(labels.flatten(0, 1), words).view(*labels.shape[:2], -1)
    assert torch.allclose(said[0][: labels.shape[1]], wanted[0], atol=1e-5), "the whole"
    if name == "llavanext":
        rows_of_views = wanted[1:].view(2, 2, 6, 6, 128).transpose(1, 2).reshape(12, 12, 128)
        # What fills the page up to a square is cut away, and every row ends with a new line.
        height = (len(said[0]) - 36) // 13
        kept = rows_of_views[(12 - height) // 2 :][:height]
        assert torch.allclose(said[0][36:].view(height, 13, 128)[:, :12], kept, atol=1e-5)


@torch.no_grad()
def test_video_llava_is_taught_all_that_films_are_heard_as(tmp_path: Path) -> None:
    """The token of the whole is, which pictures leave out, and says what an empty label does."""
    heir = SCHOOLS["video_llava"]("video_llava", tmp_path)
    assert isinstance(heir, Heir)
    model = heir.network.model
    model.video_tower.load_state_dict(heir.tower().state_dict())
    page = pages.draw(rows.rng_of("test", "telling", 0)).canvas
    batch = heir._shown([page, page])
    heard = heir.part("projector")(heir.hear(batch["pixels"]))
    frames = model.get_video_features(batch["pixels"][None]).pooler_output
    assert torch.allclose(heard, frames.view_as(heard), atol=1e-5)
    assert batch["labels"].shape[:2] == heard.shape[:2] == (2, 37)
    assert not batch["labels"][:, 0].any() and batch["labels"][:, 1:].any(2).all()
