"""Of every four weights the two that matter least are zero, and nothing else has changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import NAMES, Subjects, seen
from torch import nn

from vlmbench.compression.sparsity import PRUNE24, PRUNE24_STORED
from vlmbench.errors import UsageError
from vlmbench.packed import Sparse24Linear
from vlmbench.pruning import energy, two_of_four
from vlmbench.spec import Maker


def pruned_by_hand(weight: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Row by row, group by group."""
    made = weight.clone()
    for row in made:
        for start in range(0, len(row), 4):
            scores = [(abs(float(row[i])) * float(norms[i]), i) for i in range(start, start + 4)]
            for _, i in sorted(scores)[:2]:
                row[i] = 0
    return made


def test_makers_that_promise_floats_or_no_zeros() -> None:
    assert isinstance(PRUNE24, Maker) and isinstance(PRUNE24_STORED, Maker)
    assert PRUNE24.name == "prune24" and PRUNE24.storage("decoder") == "float32"
    assert PRUNE24_STORED.name == "prune24s"
    promised = [PRUNE24_STORED.storage(part) for part in ("decoder", "vision", "head")]
    assert promised == ["sparse24", "bfloat16", "bfloat16"]


def test_scores_are_weights_by_norms() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 32, generator=generator)
    norms = torch.rand(32, generator=generator).double() * 10
    made = two_of_four(weight, norms)
    assert torch.equal(made, pruned_by_hand(weight, norms))
    assert not torch.equal(made, two_of_four(weight, torch.ones(32)))


def test_equals_and_silent_channels_still_lose_two() -> None:
    made = two_of_four(torch.ones(3, 8), torch.tensor([0.0, 0, 0, 0, 0, 1, 0, 1]))
    assert made[0].tolist() == [0, 0, 1, 1, 0, 1, 0, 1]


def test_energy_adds_up_over_batches() -> None:
    inputs = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    parts = energy(energy(None, inputs[:20]), inputs[20:])
    torch.testing.assert_close(parts.sqrt(), inputs.double().norm(dim=0))


@pytest.mark.parametrize("name", NAMES)
def test_the_pattern_is_exact_in_the_decoder_alone(subjects: Subjects, name: str) -> None:
    network, subject = subjects.made(name, PRUNE24), subjects.of(name)
    layers = network.get_submodule(subject.anatomy.layers)
    linears = {
        f"{subject.anatomy.layers}.{n}.weight": m
        for n, m in layers.named_modules()
        if isinstance(m, nn.Linear)
    }
    before = dict(subject.network.named_parameters())
    for at, linear in linears.items():
        zeros = (linear.weight.view(len(linear.weight), -1, 4) == 0).sum(-1)
        assert (zeros == 2).all()
        kept = linear.weight != 0
        assert torch.equal(linear.weight[kept], before[at][kept])
    rest = {n: p for n, p in network.named_parameters() if n not in linears}
    assert len(linears) >= 4 * len(layers)
    assert all(torch.equal(parameter, before[n]) for n, parameter in rest.items())


def test_inputs_decide_what_goes(subjects: Subjects) -> None:
    """With the norms of a plain forward, over real tokens only."""
    subject = subjects.of("qwen2")
    at = f"{subject.anatomy.layers}.3.mlp.down_proj"
    inputs: list[torch.Tensor] = []
    old = subject.network.get_submodule(at)
    hook = old.register_forward_pre_hook(lambda module, args: inputs.append(args[0][0]))
    for batch in subject.data.inputs:
        seen(subject.network, batch)
    hook.remove()
    norms = torch.cat(inputs).double().norm(dim=0)
    made = subjects.made("qwen2", PRUNE24).get_submodule(at).weight
    assert torch.equal(made, two_of_four(old.weight, norms))
    assert not torch.equal(made, two_of_four(old.weight, torch.ones_like(norms)))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_folder_is_the_same_network(subjects: Subjects, name: str, tmp_path: Path) -> None:
    network, subject = subjects.made(name, PRUNE24), subjects.of(name)
    again, report = subject.reloaded(network, tmp_path)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    PRUNE24.apply(again, subject.anatomy)
    assert torch.equal(seen(again, subject.padded), seen(network, subject.padded))


def test_a_linear_of_odd_inputs_is_left(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    layer: Any = network.get_submodule(subject.anatomy.layers)[0]
    odd = nn.Linear(130, 256, bias=False)
    layer.mlp.up_proj = nn.Sequential(nn.Linear(128, 130), odd)
    before = odd.weight.clone()
    PRUNE24.make(network, subject.anatomy, subject.data)
    assert torch.equal(odd.weight, before)
    assert (layer.mlp.up_proj[0].weight == 0).sum() == 130 * 128 / 2


def test_twice_is_the_same(subjects: Subjects) -> None:
    one, two = (subjects.of("qwen2").made(PRUNE24).state_dict() for _ in range(2))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", NAMES)
def test_without_its_zeros_it_is_the_same_network(
    subjects: Subjects, name: str, tmp_path: Path
) -> None:
    """In bfloat16, made at once or read from a folder."""
    subject = subjects.of(name)
    plain, packed = (subjects.made(name, recipe) for recipe in (PRUNE24, PRUNE24_STORED))
    again, report = subject.reloaded(packed, tmp_path)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for network in (packed, again):
        found = {n: m for n, m in network.named_modules() if isinstance(m, Sparse24Linear)}
        assert found and all(n.startswith(subject.anatomy.layers) for n in found)
        for n, layer in found.items():
            weight = plain.get_submodule(n).weight
            assert torch.equal(layer.dequantized(), weight.bfloat16().float())
    assert torch.equal(seen(again, subject.padded), seen(packed, subject.padded))


def test_a_size_that_cannot_do_without_zeros_is_told(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    network = copy.deepcopy(subject.network)
    layer: Any = network.get_submodule(subject.anatomy.layers)[0]
    layer.mlp.up_proj = nn.Sequential(nn.Linear(128, 130), nn.Linear(130, 256, bias=False))
    with pytest.raises(UsageError, match=r"prune24s: .*0\.mlp\.up_proj\.0: .* Take prune24"):
        PRUNE24_STORED.make(network, subject.anatomy, subject.data)
