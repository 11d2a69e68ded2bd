"""CLIP begins with what another tower has learnt to see, and learns which caption fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import ModelOutput

from vlmbench.catalogue import compressions
from vlmbench.embedded import matching, school
from vlmbench.embedded.blank import llavanext
from vlmbench.embedded.matching import Matching
from vlmbench.errors import CheckpointError
from vlmbench.spec import Source
from vlmbench.variant import load


@pytest.fixture
def elder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An untrained parent."""
    monkeypatch.setattr(matching, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(school, "CHECKPOINTS", tmp_path)
    network = llavanext.network(llavanext.tokenizer())
    network.save_pretrained(tmp_path / "llavanext")
    return network.eval()


def test_it_begins_with_a_tower_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "CHECKPOINTS", tmp_path)
    with pytest.raises(CheckpointError, match="train llavanext"):
        Matching("clip", tmp_path).run()


@torch.no_grad()
def test_it_sees_what_its_parent_tells_a_projector(elder: Any, tmp_path: Path) -> None:
    """The parent leaves its last layer out; this one has one layer less."""
    clip = Matching("clip", tmp_path)
    clip.inherit()
    pixels = torch.randn(2, 3, 168, 168)
    theirs = elder.model.vision_tower(pixels, output_hidden_states=True)
    mine = clip.part("vision").eval()(pixels)
    feature = theirs.hidden_states[elder.config.vision_feature_layer]
    assert torch.allclose(mine.last_hidden_state, feature, atol=1e-5)


def test_a_batch_is_pictures_beside_a_caption_each(tmp_path: Path) -> None:
    clip = Matching("clip", tmp_path)
    (batch,) = matching.batch_maker(clip.processor, "train", 5)(3)
    (again,) = matching.batch_maker(clip.processor, "train", 5)(3)
    assert batch["pixel_values"].shape == (5, 3, 168, 168)
    assert len(batch["input_ids"]) == 5
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    (other,) = matching.batch_maker(clip.processor, "validation", 5)(3)
    assert not torch.equal(batch["pixel_values"], other["pixel_values"])


def test_what_belongs_together_is_to_fit_best() -> None:
    """Both ways: a caption may fit its picture best, and another picture better still."""

    def fits(values: list[list[float]]) -> Any:
        return lambda **batch: ModelOutput(logits_per_image=torch.tensor(values))

    right, tempted = fits([[9.0, 0.0], [0.0, 9.0]]), fits([[9.0, 0.0], [12.0, 15.0]])
    assert matching.loss(right, {}) < 1e-3
    assert matching.recall(right, {}) == {"caption": 1.0, "picture": 1.0}
    assert matching.recall(tempted, {}) == {"caption": 1.0, "picture": 0.5}
    assert matching.loss(tempted, {}) > 0.5


@pytest.mark.usefixtures("elder")
def test_it_is_trained_written_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MATCHING", replace(matching.MATCHING, steps=2, warmup=1))
    monkeypatch.setattr(matching, "BATCH", 6)
    monkeypatch.setattr(matching, "HELD_OUT", 6)
    clip = Matching("clip", tmp_path / "states")
    before = clip.network.logit_scale.clone()
    clip.run()
    assert not torch.equal(clip.network.logit_scale, before)
    clip.finish()
    loaded = load(clip.model, compressions()["16bit"], Source(str(tmp_path / "clip")))
    weights = loaded.network.state_dict()
    assert all(torch.equal(p, weights[name]) for name, p in clip.network.state_dict().items())
