"""Rounding in groups, with and without a look at the activations."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import NAMES, Given, Subject, Subjects, seen
from torch import Tensor, nn

from vlmbench import rounding, scaling
from vlmbench.calibration import inputs_of, walk, within
from vlmbench.compression.awq import (
    AWQ_S2,
    AWQ_W3,
    AWQ_W4,
    RTN_W3,
    RTN_W4,
    Salient,
    Search,
    WeightOnly,
)
from vlmbench.compression.smoothquant import SQ_W8A8_GROUP
from vlmbench.errors import UsageError
from vlmbench.layers import FIELD, Factors, shaped
from vlmbench.packed import GROUP, Int4Linear, rounded
from vlmbench.spec import Maker

RECIPES = (RTN_W4, RTN_W3, AWQ_W4, AWQ_W3, AWQ_S2)
QUICK = Search(powers=3, shrinks=2)


def few(subject: Subject, samples: int = 2) -> Subject:
    return subject._replace(data=Given(subject.data.inputs[:samples]))


def error(subject: Subject, network: Any) -> float:
    """Mean square of what the logits are off by."""
    pairs = ((seen(network, x), seen(subject.network, x)) for x in subject.data.inputs)
    errors = [float((one - other).square().mean()) for one, other in pairs]
    return sum(errors) / len(errors)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_promises_packed_codes_in_the_decoder_alone(recipe: WeightOnly) -> None:
    assert isinstance(recipe, Maker)
    assert recipe.storage("decoder") == "int4"
    assert {recipe.storage(c) for c in ("vision", "projector", "head")} == {"bfloat16"}


def test_names_are_those_that_users_type() -> None:
    names = ["rtn_w4a16", "rtn_w3a16", "awq_w4a16", "awq_w3a16", "awqs2_w4a16"]
    assert [recipe.name for recipe in RECIPES] == names
    assert [recipe.bits for recipe in RECIPES] == [4, 3, 4, 3, 4]


@pytest.mark.parametrize("preparation", [Search(powers=2, shrinks=1), Salient()], ids=["awq", "s2"])
@pytest.mark.parametrize("name", NAMES)
def test_factors_alone_change_nothing(
    subjects: Subjects, name: str, preparation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shrink step is the whole range: nothing is clipped, and nothing rounded here."""
    subject = few(subjects.of(name), 1)
    monkeypatch.setattr(rounding, "round_layer", lambda *_: None)
    network = subject.made(WeightOnly("none", 4, preparation))
    before, after = (seen(n, subject.padded) for n in (subject.network, network))
    assert torch.allclose(before, after, rtol=0, atol=1e-4)
    changed = [
        n
        for (n, one), other in zip(
            subject.network.named_parameters(), network.parameters(), strict=True
        )
        if not torch.equal(one, other)
    ]
    assert changed and all(n.startswith(subject.anatomy.layers) for n in changed)


@pytest.mark.parametrize("name", NAMES)
def test_a_search_is_never_worse_than_rounding(subjects: Subjects, name: str) -> None:
    """Of every feed; and it finds something better than powers 0 somewhere."""
    subject = few(subjects.of(name), 1)
    better = 0
    for visit in itertools.islice(walk(subject.network, subject.anatomy, subject.data.inputs), 2):
        for feed in subject.anatomy.feeds:
            if not scaling.foldable(visit.layer, feed):
                continue
            found = rounding.best_factor(visit, feed, 3, 4)
            with within(visit, feed.block) as block:
                errors = [
                    rounding.factor_error(visit.layer, block, feed, factor, 3)
                    for factor in (found, torch.ones_like(found))
                ]
            assert errors[0] <= errors[1]
            better += errors[0] < errors[1]
    assert better > 0


def plain_search(layer: Any, x: Tensor, powers: int, bits: int) -> tuple[list[Tensor], list[float]]:
    """AWQ's factors of gate and up, written down once more: x is all tokens of the block."""
    mean = x.abs().mean(0)
    mlp = copy.deepcopy(layer.mlp)
    original, factors, errors = mlp(x), [], []
    for i in range(powers):
        s = mean ** (i / powers)
        s = s.clamp(min=1e-4)
        s = s / (s.max() * s.min()) ** 0.5
        for name in ("gate_proj", "up_proj"):
            weight = getattr(layer.mlp, name).weight
            getattr(mlp, name).weight.copy_(rounded((weight * s).float(), GROUP, bits) / s)
        factors.append(s)
        errors.append(float((mlp(x) - original).square().sum()))
    return factors, errors


@torch.no_grad()
def test_the_search_is_the_papers(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    feed = subject.anatomy.feeds[2]
    for visit in itertools.islice(walk(subject.network, subject.anatomy, subject.data.inputs), 2):
        seen_by: list[Tensor] = []
        hook = visit.layer.mlp.register_forward_pre_hook(lambda m, a, to=seen_by: to.append(a[0]))
        for call in visit.calls:
            call.run(visit.layer)
        hook.remove()
        x = torch.cat([inputs[0] for inputs in seen_by])
        factors, errors = plain_search(visit.layer, x, 8, 4)
        mean = rounding.mean_magnitude(visit, feed)
        assert torch.allclose(mean, x.abs().mean(0), rtol=1e-5)
        with within(visit, feed.block) as block:
            for factor, expected in zip(factors, errors, strict=True):
                found = rounding.factor_error(visit.layer, block, feed, factor, 4)
                assert found == pytest.approx(expected, rel=1e-2)
        best = rounding.best_factor(visit, feed, 4, 8)
        assert torch.allclose(best, factors[errors.index(min(errors))], rtol=1e-4)


@torch.no_grad()
def test_clipping_is_the_best_of_all_shares(subjects: Subjects) -> None:
    """Against one group and one row after the other, token by token."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 256, generator=generator) * torch.rand(256, generator=generator)
    weight = torch.randn(3, 256, generator=generator) ** 3
    grams = torch.stack([x[:, :128].T @ x[:, :128], x[:, 128:].T @ x[:, 128:]]).double()
    found = rounding.clipped_weight(weight, grams, 4, 10, 0.5)
    clipped = 0
    for row, first in itertools.product(range(3), (0, 128)):
        part, tokens = weight[row, first : first + 128], x[:, first : first + 128].double()
        errors = []
        for i in range(10):
            cut = part.clamp(part.min() * (1 - i / 20), part.max() * (1 - i / 20))
            stored = rounded(cut[None], 128, 4)[0]
            errors.append((float((tokens @ (stored - part).double()).square().sum()), cut))
        best = min(errors, key=lambda pair: pair[0])
        assert torch.equal(found[row, first : first + 128], best[1])
        clipped += best[0] < errors[0][0]
    assert clipped > 2


def test_queries_and_keys_are_not_clipped(subjects: Subjects) -> None:
    cases = {
        "qwen2": ("q_proj", "k_proj"),
        "phi3_5": ("qkv_proj",),
        "llavanext": ("q_proj.0", "q_proj.1", "k_proj"),
    }
    for name, kept in cases.items():
        subject = few(copy.deepcopy(subjects.of(name)), 1)
        if "q_proj.0" in kept:
            at = f"{subject.anatomy.layers}.0.self_attn.q_proj"
            old = subject.network.get_submodule(at)
            factors = Factors(old.in_features, old.out_features, False, rank=64)
            subject.network.set_submodule(at, factors)
        visit = next(walk(subject.network, subject.anatomy, subject.data.inputs))
        before = {n: linear.weight.clone() for n, linear in linears(visit.layer)}
        walked = walk(subject.network, subject.anatomy, subject.data.inputs)
        rounding.clip(next(walked), 3, 10)
        walked.close()
        same = [n for n, linear in linears(visit.layer) if torch.equal(linear.weight, before[n])]
        assert same == [f"self_attn.{leaf}" for leaf in kept]


def linears(layer: nn.Module) -> Iterator[tuple[str, Any]]:
    return iter((n, m) for n, m in layer.named_modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("name", NAMES)
def test_two_of_128_channels_are_doubled(
    subjects: Subjects, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are largest on average, in every feed; nothing else changes."""
    subject = few(subjects.of(name), 1)
    monkeypatch.setattr(rounding, "round_layer", lambda *_: None)
    network = subject.made(AWQ_S2)
    first = subject.anatomy.feeds[0]
    old, new = (n.get_submodule(f"{subject.anatomy.layers}.0") for n in (subject.network, network))
    weight, doubled = (layer.get_parameter(f"{first.linears[0]}.weight") for layer in (old, new))
    ratio = (doubled / weight)[weight.abs().min(1).values.argmax()]
    assert sorted(ratio.tolist())[-3:] == [1.0, 2.0, 2.0]
    walked = walk(subject.network, subject.anatomy, subject.data.inputs)
    visit, reads = next(walked), first.linears[0]
    add = lambda before, x: x.abs().sum(0) + (0 if before is None else before)  # noqa: E731
    total = inputs_of(visit.layer, [reads], visit.calls, add)[reads]
    walked.close()
    assert set(ratio.eq(2).nonzero().view(-1).tolist()) == set(total.topk(2).indices.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_linears_of_decoder_layers_are_replaced_and_no_others(
    subjects: Subjects, name: str
) -> None:
    subject = subjects.of(name)
    network, layers = subjects.made(name, RTN_W4), subject.anatomy.layers
    told = getattr(network.config, FIELD)
    packed = [n for n, module in network.named_modules() if type(module) is Int4Linear]
    inner = [n for n, _ in linears(subject.network) if n.startswith(f"{layers}.")]
    assert packed == inner == list(told)
    assert {sizes["kind"] for sizes in told.values()} == {"Int4Linear"}
    other = {n: p for n, p in network.state_dict().items() if n.rpartition(".")[0] not in told}
    assert all(torch.equal(p, subject.network.state_dict()[n]) for n, p in other.items())


def test_a_saved_folder_gives_the_same_outputs(subjects: Subjects, tmp_path: Path) -> None:
    subject = few(subjects.of("qwen2"), 1)
    network = subject.made(WeightOnly("quick", 4, QUICK))
    network.save_pretrained(tmp_path)
    whole, half = (
        shaped(subject.cls).from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
        for dtype in ("float32", "bfloat16")
    )
    assert not whole[1]["missing_keys"] and not whole[1]["unexpected_keys"]
    expected = seen(network, subject.padded)
    assert torch.equal(seen(whole[0].eval(), subject.padded), expected)
    found = seen(half[0].eval(), subject.padded).float()
    assert float((found - expected).norm() / expected.norm()) < 0.03
    scales = {m.scales.dtype for m in half[0].modules() if isinstance(m, Int4Linear)}
    assert scales == {torch.float32}


def test_the_same_seed_gives_the_same_bytes(subjects: Subjects) -> None:
    recipe = WeightOnly("quick", 4, QUICK)
    one, two = (few(subjects.of("blip2")).made(recipe).state_dict() for _ in range(2))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


@pytest.mark.parametrize(("plain", "searched"), [(RTN_W4, AWQ_W4), (RTN_W3, AWQ_W3)])
def test_on_a_trained_network_the_search_pays(
    subjects: Subjects, plain: WeightOnly, searched: WeightOnly
) -> None:
    subject = few(subjects.of("qwen2"))
    rounding, both, factors, clipping = (
        error(subject, network)
        for network in (
            subjects.made("qwen2", plain),
            *(
                subject.made(WeightOnly(searched.name, searched.bits, search))
                for search in (Search(4, 5), Search(4, 1), Search(1, 5))
            ),
        )
    )
    assert both < 0.8 * rounding
    assert both < min(factors, clipping) < max(factors, clipping) < rounding


def test_factors_that_have_no_groups_are_told(subjects: Subjects) -> None:
    """Before anything is done, and by the linear's name."""
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    layer: Any = network.get_submodule(subject.anatomy.layers)[1]
    layer.mlp.up_proj = Factors(128, 256, False, rank=33)
    for recipe in (RTN_W4, AWQ_W4, SQ_W8A8_GROUP):
        with pytest.raises(UsageError, match=rf"{recipe.name}: .*1\.mlp\.up_proj\.1: 33 input"):
            recipe.make(network, subject.anatomy, subject.data)
