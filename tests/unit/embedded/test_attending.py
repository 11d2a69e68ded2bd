"""Attention in plain products does what transformers' own does."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from vlmbench.embedded import attending
from vlmbench.embedded.train import SCHOOLS
from vlmbench.prompting import encode
from vlmbench.spec import Turn

ASKED = ["Which?", "What is left of the star?"]

CAUSAL = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
PADDED = torch.arange(7) >= torch.tensor([3, 0])[:, None, None, None]
MASKS = {"none": None, "causal": CAUSAL, "padded": PADDED.expand(2, 1, 7, 7)}


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
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = attending.products(None, *parts, MASKS[name], scaling=0.3)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), wanted, atol=0.03)
    weights = torch.randn_like(made)
    expected = torch.autograd.grad((wanted * weights).sum(), parts)
    found = torch.autograd.grad((made * weights).sum(), parts)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, found, strict=True))


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_what_sees_nothing_is_a_number() -> None:
    blind = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    query = torch.randn(1, 2, 3, 4)
    assert attending.products(None, query, query, query, blind)[0].isfinite().all()


def test_what_it_does_not_do_it_refuses() -> None:
    query = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match="neither dropout nor softcap"):
        attending.products(None, query, query, query, None, dropout=0.1)


@pytest.mark.parametrize("asked", [ASKED, ASKED[1:]], ids=["padded", "alone"])
@pytest.mark.parametrize("name", SCHOOLS)
@torch.no_grad()
def test_networks_think_alike_in_products(name: str, asked: list[str], tmp_path: Path) -> None:
    """Tower and decoder, with the masks that they make; alone, sdpa has none and is causal."""
    school = SCHOOLS[name](name, tmp_path)
    pictures = [Image.effect_noise((140, 140), 60).convert("RGB")] * len(asked)
    turns = [Turn((png(picture),), one) for picture, one in zip(pictures, asked, strict=True)]
    if school.model.writes:
        inputs = encode(school.processor, turns)
    else:
        inputs = school.processor(images=pictures, text=asked, padding=True, return_tensors="pt")
    real = inputs["attention_mask"].bool()
    assert bool(real.all()) == (len(asked) == 1)
    seen = []
    for kind in (attending.NAME, "sdpa"):
        school.network.set_attn_implementation(kind)
        out = school.network.eval()(**inputs)
        # One fit of one picture with one text could be equal by chance.
        felt = () if school.model.writes else (out.image_embeds, out.text_embeds)
        seen.append(out.logits[real] if school.model.writes else torch.cat(felt))
    assert torch.allclose(*seen, atol=1e-4)
    assert not torch.equal(*seen), "each went its own way"
