"""Attention in plain products does what transformers' own does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlmbench.embedded import attending, curriculum, losses
from vlmbench.embedded.train import SCHOOLS

MASKS = {
    "none": None,
    "causal": torch.ones(2, 1, 7, 7, dtype=torch.bool).tril(),
    "padded": torch.ones(2, 1, 7, 7, dtype=torch.bool).tril().triu(-2),
}


@pytest.mark.parametrize("kept", [1, 2, 4])
@pytest.mark.parametrize("name", MASKS)
def test_products_are_those_of_torch(name: str, kept: int) -> None:
    """In values and gradients, however many heads share their keys."""
    torch.manual_seed(0)
    parts = [torch.randn(2, heads, 7, 8, requires_grad=True) for heads in (4, kept, kept)]
    spread = [parts[0], *(part.repeat_interleave(4 // kept, dim=1) for part in parts[1:])]
    reference = torch.nn.functional.scaled_dot_product_attention
    wanted = reference(*spread, attn_mask=MASKS[name], scale=0.3).transpose(1, 2)
    made, _ = attending.products(None, *parts, MASKS[name], scaling=0.3)
    assert torch.allclose(made, wanted, atol=1e-6)
    weights = torch.randn_like(made)
    expected = torch.autograd.grad((wanted * weights).sum(), parts)
    found = torch.autograd.grad((made * weights).sum(), parts)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, found, strict=True))


def test_what_sees_nothing_is_a_number() -> None:
    blind = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    query = torch.randn(1, 2, 3, 4)
    assert attending.products(None, query, query, query, blind)[0].isfinite().all()


@pytest.mark.parametrize("name", ["qwen2", "llavanext", "phi3_5", "idefics2", "blip2", "clip"])
@torch.no_grad()
def test_networks_think_alike_in_products(name: str, tmp_path: Path) -> None:
    """With the mask that each makes for itself, padding on the left included."""
    school = SCHOOLS[name](name, tmp_path)
    text = getattr(school.network, "text_model", None) or school.part("decoder")
    ids = torch.randint(10, 100, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    seen = []
    for kind in (attending.NAME, "sdpa"):
        school.network.set_attn_implementation(kind)
        text.eval()
        seen.append(text(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()])
    assert torch.allclose(*seen, atol=1e-5)
    assert not torch.equal(*seen), "each went its own way"


@torch.no_grad()
def test_half_of_the_precision_is_enough_for_a_lesson(tmp_path: Path) -> None:
    school = SCHOOLS["phi3_5"]("phi3_5", tmp_path)
    stage = curriculum.IMITATING
    (part, *_) = curriculum.batch_maker(school.processor, school.network, stage, school.model)(0)
    whole = float(losses.loss(school.network, school.model.anatomy, part))
    with torch.autocast("cpu", torch.bfloat16):
        half = float(losses.loss(school.network, school.model.anatomy, part))
    assert half == pytest.approx(whole, rel=0.01)
