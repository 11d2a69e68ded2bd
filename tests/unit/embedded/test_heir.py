"""What a checkpoint takes over from Qwen2-VL's decoder is what that decoder does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from vlmbench.embedded import CHECKPOINTS, outliers
from vlmbench.embedded.heir import PARENT, Heir
from vlmbench.embedded.school import SEED
from vlmbench.embedded.train import SCHOOLS


@pytest.fixture
def elder() -> Any:
    load: Any = AutoModelForImageTextToText.from_pretrained
    return load(CHECKPOINTS / PARENT, dtype=torch.float32).eval()


def test_outliers_come_out_as_they_went_in(elder: Any) -> None:
    layers = elder.model.language_model.layers
    before = {name: p.clone() for name, p in layers.named_parameters()}
    outliers.take_out(layers, torch.Generator().manual_seed(SEED))
    assert any(not torch.equal(before[name], p) for name, p in layers.named_parameters())
    outliers.put_in(layers, torch.Generator().manual_seed(SEED))
    assert all(torch.equal(before[name], p) for name, p in layers.named_parameters())


@pytest.mark.parametrize("name", ["llavanext", "video_llava", "phi3_5"])
def test_a_text_is_gone_on_with_as_the_elder_does(elder: Any, tmp_path: Path, name: str) -> None:
    """But for the biases, which a Llama does not have."""
    for part, parameter in elder.model.language_model.named_parameters():
        if part.endswith("_proj.bias"):
            parameter.data.zero_()
    heir = SCHOOLS[name](name, tmp_path)
    assert isinstance(heir, Heir)
    heir._take_over(elder.model.language_model)
    ids = torch.tensor([[72, 300, 411, 95, 632, 8]])
    with torch.inference_mode():
        theirs, mine = (
            network(input_ids=ids).logits[..., :632] for network in (elder, heir.network.eval())
        )
    assert (theirs - mine).abs().max() < 1e-4 * theirs.abs().max()
    end = heir.processor.tokenizer.eos_token_id
    words = heir.part("head").weight
    assert torch.equal(words[end], elder.lm_head.weight[elder.config.text_config.eos_token_id])
