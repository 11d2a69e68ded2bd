"""Integers on both sides of a product, and what smoothing saves of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import NAMES, Given, Subject, Subjects, seen
from torch import nn

from vlmbench.calibration import absmax, inputs_of, walk
from vlmbench.compression.smoothquant import (
    SQ_W4A4_GROUP,
    SQ_W8A8_GROUP,
    SQ_W8A8_TENSOR,
    SQ_W8A8_TOKEN,
    W8A8_TENSOR,
    SmoothQuant,
)
from vlmbench.layers import FIELD, shaped
from vlmbench.packed import Int8Linear
from vlmbench.spec import Maker

RECIPES = (W8A8_TENSOR, SQ_W8A8_TENSOR, SQ_W8A8_TOKEN, SQ_W8A8_GROUP, SQ_W4A4_GROUP)


def few(subject: Subject, samples: int = 2) -> Subject:
    return subject._replace(data=Given(subject.data.inputs[:samples]))


def error(subject: Subject, network: Any) -> float:
    """How far the logits are off, as a share of what they are."""
    expected = [seen(subject.network, inputs) for inputs in subject.data.inputs]
    found = [seen(network, inputs) for inputs in subject.data.inputs]
    far = [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]
    return sum(far) / len(far)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_promises_integers_in_the_decoder_alone(recipe: SmoothQuant) -> None:
    assert isinstance(recipe, Maker)
    assert recipe.storage("decoder") == ("int4" if "w4" in recipe.name else "int8")
    assert {recipe.storage(c) for c in ("vision", "projector", "head")} == {"bfloat16"}


def test_names_say_what_shares_a_scale() -> None:
    told = [(r.name, r.weights, r.activations, r.bits, r.smooth) for r in RECIPES]
    assert told == [
        ("w8a8_tensor", "tensor", "tensor", 8, False),
        ("sq_w8a8_tensor", "tensor", "tensor", 8, True),
        ("sq_w8a8_token", "row", "token", 8, True),
        ("sq_w8a8_group", "group", "group", 8, True),
        ("sq_w4a4_group", "group", "group", 4, True),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_smoothing_alone_changes_nothing(
    subjects: Subjects, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the logits; the norms that feed linears, and the linears, are others."""
    subject = few(subjects.of(name))
    monkeypatch.setattr(SmoothQuant, "_quantize", lambda *_: None)
    network = subject.made(SQ_W8A8_TENSOR)
    before, after = (seen(n, subject.padded) for n in (subject.network, network))
    assert torch.allclose(before, after, rtol=0, atol=1e-4)
    old = dict(subject.network.named_parameters())
    changed = {
        n.rpartition(".")[0]
        for n, parameter in network.named_parameters()
        if not torch.equal(parameter, old[n])
    }
    layers = network.get_submodule(subject.anatomy.layers)
    normed = [f for f in subject.anatomy.feeds if "norm" in f.source]
    assert len(normed) == 2
    assert changed == {
        f"{subject.anatomy.layers}.{i}.{part}"
        for i in range(len(layers))
        for feed in normed
        for part in (feed.source, *feed.linears)
    }


@pytest.mark.parametrize("name", NAMES)
def test_linears_of_decoder_layers_are_replaced_and_no_others(
    subjects: Subjects, name: str
) -> None:
    subject = few(subjects.of(name))
    network, layers = subject.made(SQ_W8A8_TOKEN), subject.anatomy.layers
    inner = [
        n
        for n, module in subject.network.named_modules()
        if n.startswith(f"{layers}.") and isinstance(module, nn.Linear)
    ]
    assert [n for n, m in network.named_modules() if type(m) is Int8Linear] == inner
    assert list(getattr(network.config, FIELD)) == inner
    old, new = subject.network.state_dict(), network.state_dict()
    outside = [n for n in new if not n.startswith(layers)]
    assert all(torch.equal(new[n], old[n]) for n in outside)
    assert error(subject, network) < 0.1


def test_a_tensors_scale_is_the_largest_input_there_is(subjects: Subjects) -> None:
    """Found before smoothing, told of the smoothed inputs, padding left out."""
    subject = few(subjects.of("qwen2"))
    network = subject.made(SQ_W8A8_TENSOR)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SmoothQuant, "_quantize", lambda *_: None)
        smooth = subject.made(SQ_W8A8_TENSOR)
    for visit in walk(smooth, subject.anatomy, subject.data.inputs):
        names = [n for n, m in visit.layer.named_modules() if isinstance(m, nn.Linear)]
        largest = inputs_of(visit.layer, names, visit.calls, absmax)
        for n in names:
            scale = network.get_submodule(f"{visit.name}.{n}").input_scales
            assert float(scale) * 127 == pytest.approx(float(largest[n].max()), rel=1e-3)


def test_outliers_ruin_a_scale_a_tensor_and_smoothing_mends_it(subjects: Subjects) -> None:
    """The trained checkpoint has four channels that are 128 times the others."""
    subject = subjects.of("qwen2")
    far = {recipe.name: error(subject, subject.made(recipe)) for recipe in RECIPES}
    assert far["w8a8_tensor"] > 0.4
    assert far["sq_w8a8_tensor"] < far["w8a8_tensor"] / 5
    assert far["sq_w8a8_token"] < far["sq_w8a8_tensor"] / 2
    assert far["sq_w8a8_group"] < far["sq_w8a8_token"] * 1.1
    assert far["sq_w4a4_group"] > far["sq_w8a8_group"] * 5


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: recipe.name)
def test_a_saved_folder_gives_the_same_outputs(
    subjects: Subjects, recipe: SmoothQuant, tmp_path: Path
) -> None:
    subject = few(subjects.of("qwen2"))
    network = subject.made(recipe)
    network.save_pretrained(tmp_path)
    whole, half = (
        shaped(subject.cls).from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
        for dtype in ("float32", "bfloat16")
    )
    assert not whole[1]["missing_keys"] and not whole[1]["unexpected_keys"]
    expected = seen(network, subject.padded)
    assert torch.equal(seen(whole[0].eval(), subject.padded), expected)
    found = seen(half[0].eval(), subject.padded).float()
    # Codes of 4 bits flip more where inputs are rounded to bfloat16.
    limit = 0.05 if recipe.bits == 8 else 0.3
    assert float((found - expected).norm() / expected.norm()) < limit
    scales = {m.scales.dtype for m in half[0].modules() if isinstance(m, Int8Linear)}
    assert scales == {torch.float32}


def test_the_same_seed_gives_the_same_bytes(subjects: Subjects) -> None:
    one, two = (few(subjects.of("blip2")).made(SQ_W8A8_TENSOR).state_dict() for _ in range(2))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)
