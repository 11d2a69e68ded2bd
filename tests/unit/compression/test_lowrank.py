"""Ranks keep what they promise, whitening errs least, and factors are saved as factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import NAMES, WRITERS, Given, Subject, Subjects, generated, seen
from torch import nn

from vlmbench.calibration import gram, inputs_of, walk
from vlmbench.compression.lowrank import (
    LOWRANK50,
    LOWRANK80,
    LOWRANK80W,
    LOWRANKP60,
    LOWRANKP60W,
    LowRank,
    Parameters,
    Variance,
)
from vlmbench.errors import UsageError
from vlmbench.factorizing import factorized, pays, rank_at, split, whitening
from vlmbench.layers import FIELD, Factors
from vlmbench.spec import Maker

RECIPES = (LOWRANK80, LOWRANK50, LOWRANK80W, LOWRANKP60, LOWRANKP60W)
NO_DATA = Given([])


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def decaying(rows: int, columns: int) -> torch.Tensor:
    """A matrix whose singular values fall, as those of learnt weights do."""
    left, _, right = torch.linalg.svd(drawn(rows, columns), full_matrices=False)
    return left * 0.9 ** torch.arange(left.shape[1], dtype=torch.float64) @ right


def product(linear: nn.Linear, rank: int, seen: torch.Tensor | None = None) -> torch.Tensor:
    first, second = split(linear.weight, seen).factors(rank)
    return second @ first


def factors_in(network: nn.Module) -> dict[str, Factors]:
    return {n: m for n, m in network.named_modules() if isinstance(m, Factors)}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_is_a_maker_that_promises_float32(recipe: LowRank) -> None:
    assert isinstance(recipe, Maker)
    assert recipe.storage("decoder") == "float32"
    names = ["lowrank80", "lowrank50", "lowrank80w", "lowrankp60", "lowrankp60w"]
    assert [recipe.name for recipe in RECIPES] == names
    assert recipe.whitened == recipe.name.endswith("w")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (7, 200)])
def test_the_rank_retains_the_share_and_one_less_does_not(
    share: float, shape: tuple[int, int]
) -> None:
    squares = torch.linalg.svdvals(decaying(*shape)).square()
    rank = rank_at(squares.sqrt(), share)
    assert squares[:rank].sum() >= share * squares.sum()
    assert squares[: rank - 1].sum() < share * squares.sum()


@pytest.mark.parametrize(
    ("singular", "share", "rank"),
    [([2.0, 1.0], 0.8, 1), ([2.0, 1.0], 0.81, 2), ([1.0] * 4, 0.5, 2), ([1.0] * 4, 1.0, 4)],
)
def test_a_share_that_is_met_exactly_is_met(singular: list[float], share: float, rank: int) -> None:
    assert rank_at(torch.tensor(singular), share) == rank


@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
@pytest.mark.parametrize("whitened", [False, True])
def test_all_of_the_variance_is_the_layer(shape: tuple[int, int], whitened: bool) -> None:
    linear = nn.Linear(shape[1], shape[0])
    inputs = drawn(500, shape[1])
    parts = split(linear.weight, gram(None, inputs) if whitened else None)
    rank = rank_at(parts.singular, 1.0)
    assert rank == 30
    made = factorized(linear, parts, rank)
    torch.testing.assert_close(made(inputs.float()), linear(inputs.float()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 5, 29])
def test_whitened_error_is_what_was_dropped(rank: int) -> None:
    """On the output: ||X W^T - X (W')^T||^2 = the sum of the dropped singular values squared."""
    linear = nn.Linear(40, 30).double()
    inputs = drawn(300, 40) @ decaying(40, 40) * 10
    parts = split(linear.weight, gram(None, inputs))
    first, second = parts.factors(rank)
    error = (inputs @ (linear.weight - second @ first).T).square().sum()
    dropped = parts.singular[rank:].square().sum()
    assert error.item() == pytest.approx(dropped.item(), rel=1e-9)
    assert dropped > 1e-3


@pytest.mark.parametrize("rank", [1, 5, 29])
def test_plain_error_is_what_was_dropped(rank: int) -> None:
    linear = nn.Linear(40, 30).double()
    error = (linear.weight - product(linear, rank)).square().sum().item()
    assert error == pytest.approx(split(linear.weight).singular[rank:].square().sum().item())


@pytest.mark.parametrize("tokens", [1, 25])
def test_inputs_that_do_not_tell_channels_apart(tokens: int) -> None:
    """Fewer tokens than channels, and channels that are silent: finite, and no worse on them."""
    linear = nn.Linear(40, 30).double()
    inputs = drawn(tokens, 40)
    inputs[:, :3] = 0
    seen = gram(None, inputs)
    root = whitening(seen)
    torch.testing.assert_close(root @ root.T, seen, rtol=0, atol=1e-7 * float(seen.max()))
    plain, whitened = (product(linear, 5, gram) for gram in (None, seen))
    assert whitened.isfinite().all() and whitened.abs().max() < 100 * linear.weight.abs().max()
    errors = [(inputs @ (linear.weight - w).T).norm().item() for w in (whitened, plain)]
    assert errors[0] < errors[1]


def test_outliers_do_not_need_a_ridge() -> None:
    inputs = drawn(2000, 64)
    inputs[:, :4] *= 128
    seen = gram(None, inputs)
    assert torch.equal(whitening(seen), torch.linalg.cholesky(seen))


@pytest.mark.parametrize("bias", [False, True])
def test_the_root_of_s_goes_to_each_factor_and_the_bias_stays(bias: bool) -> None:
    linear = nn.Linear(40, 30, bias=bias)
    made = factorized(linear, split(linear.weight), 7)
    first, second = made[0].weight, made[1].weight
    assert first.shape == (7, 40) and second.shape == (30, 7)
    torch.testing.assert_close(first.norm(dim=1), second.norm(dim=0))
    assert made[0].bias is None
    assert torch.equal(made[1].bias, linear.bias) if bias else made[1].bias is None
    assert {p.dtype for p in made.parameters()} == {torch.float32}


def test_large_ranks_are_multiples_where_that_pays() -> None:
    wide = nn.Linear(512, 512, bias=False)

    def rank(rule: Variance | Parameters, values: int, linear: nn.Linear) -> int:
        parts = split(torch.eye(*linear.weight.shape))
        parts.singular[values:] = 0
        return rule.rank(parts, linear)

    assert rank(Variance(1.0), 63, wide) == 63
    assert rank(Variance(1.0), 65, wide) == 80
    assert rank(Variance(1.0), 96, wide) == 96
    assert rank(Variance(1.0), 250, wide) == 250  # 256 would be as large as the linear
    assert rank(Parameters(0.6), 512, wide) == 144  # of 153.6
    assert rank(Parameters(0.6), 128, nn.Linear(128, 256)) == 51  # of 51.2
    assert rank(Parameters(0.001), 8, nn.Linear(8, 8)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_factors_where_they_pay_and_nowhere_else(subjects: Subjects, name: str) -> None:
    """In all layers but the last quarter, and with a share of the weights that keeps its word."""
    subject, network = subjects.of(name), subjects.made(name, LOWRANKP60)
    old: Any = subject.network.get_submodule(subject.anatomy.layers)
    changed = len(old) * 3 // 4
    expected = {
        f"{subject.anatomy.layers}.{i}.{n}"
        for i in range(changed)
        for n, m in old[i].named_modules()
        if isinstance(m, nn.Linear)
    }
    made = factors_in(network)
    assert set(made) == expected == set(getattr(network.config, FIELD))
    for at, factors in made.items():
        linear: Any = subject.network.get_submodule(at)
        kept = factors.rank * (linear.in_features + linear.out_features)
        assert 0.55 < kept / linear.weight.numel() <= 0.6
    kept = {n: p for n, p in network.named_parameters() if not n.startswith(tuple(made))}
    before = dict(subject.network.named_parameters())
    assert all(torch.equal(parameter, before[n]) for n, parameter in kept.items())


@pytest.mark.parametrize("recipe", [LOWRANK50, LOWRANK80], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("name", NAMES)
def test_variance_is_retained_or_the_linear_is(
    subjects: Subjects, name: str, recipe: LowRank
) -> None:
    subject, made = subjects.of(name), factors_in(subjects.made(name, recipe))
    share = recipe.rule.share
    layers: Any = subject.network.get_submodule(subject.anatomy.layers)
    for i, layer in enumerate(layers[: len(layers) * 3 // 4]):
        for n, linear in layer.named_modules():
            if not isinstance(linear, nn.Linear):
                continue
            at = f"{subject.anatomy.layers}.{i}.{n}"
            squares = torch.linalg.svdvals(linear.weight.double()).square()
            least = rank_at(squares.sqrt(), share)
            assert (at in made) == pays(least, linear)
            if at in made:
                kept = made[at][1].weight.double() @ made[at][0].weight.double()
                dropped = (linear.weight - kept).square().sum() / squares.sum()
                assert dropped <= 1 - share + 1e-6
    assert made


@pytest.mark.parametrize("name", NAMES)
def test_whitened_errs_no_more_at_the_same_size(subjects: Subjects, name: str) -> None:
    """On the outputs for calibration inputs, linear by linear."""
    subject = subjects.of(name)
    plain, whitened = (factors_in(subjects.made(name, r)) for r in (LOWRANKP60, LOWRANKP60W))
    assert {n: f.rank for n, f in plain.items()} == {n: f.rank for n, f in whitened.items()}
    better = []
    for visit in walk(subject.network, subject.anatomy, subject.data.inputs):
        linears = [n for n, m in visit.layer.named_modules() if isinstance(m, nn.Linear)]
        for n, squared in inputs_of(visit.layer, linears, visit.calls, gram).items():
            at = f"{visit.name}.{n}"
            if at in plain:
                errors = [_error(subject, at, made, squared) for made in (plain, whitened)]
                better.append(errors[0] / errors[1])
    assert len(better) == len(plain)
    assert min(better) > 1 - 1e-4 and max(better) > 1.5


def _error(subject: Subject, at: str, made: dict[str, Factors], squared: torch.Tensor) -> float:
    weight: Any = subject.network.get_submodule(at).weight
    off = weight.double() - made[at][1].weight.double() @ made[at][0].weight.double()
    return (off @ squared @ off.T).trace().sqrt().item()


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_folder_is_the_same_network(subjects: Subjects, name: str, tmp_path: Path) -> None:
    network, subject = subjects.made(name, LOWRANKP60W), subjects.of(name)
    again, report = subject.reloaded(network, tmp_path)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert factors_in(again).keys() == factors_in(network).keys()
    assert torch.equal(seen(again, subject.padded), seen(network, subject.padded))
    assert not torch.equal(seen(subject.network, subject.padded), seen(network, subject.padded))
    if name in WRITERS:
        inputs = subject.data.inputs[0]
        cached, uncached = (generated(again, inputs, use_cache=use) for use in (True, False))
        assert cached == uncached


def test_factors_are_not_factorized_again(subjects: Subjects) -> None:
    subject = subjects.of("qwen2")
    network = subject.made(LOWRANKP60)
    told = dict(getattr(network.config, FIELD))
    with pytest.raises(UsageError, match=r"no linear of .* has smaller factors; .* already"):
        LowRank("again", Parameters(0.3)).make(network, subject.anatomy, NO_DATA)
    assert getattr(network.config, FIELD) == told


@pytest.mark.parametrize("recipe", [LOWRANK50, LOWRANK80W], ids=lambda recipe: recipe.name)
def test_twice_is_the_same(subjects: Subjects, recipe: LowRank) -> None:
    one, two = (subjects.of("qwen2").made(recipe).state_dict() for _ in range(2))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
