"""The tests of significance, held against scipy and against enumeration."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from scipy.stats import binomtest, permutation_test

from vlmbench import stats


@pytest.mark.parametrize(("lost", "won"), [(1, 0), (8, 0), (11, 0), (9, 2), (30, 12), (5, 9)])
def test_flips_of_single_answers_are_the_sign_test(lost: int, won: int) -> None:
    losses = [1.0] * lost + [-1.0] * won + [0.0] * 100
    expected = binomtest(lost, lost + won, alternative="greater").pvalue
    assert stats.p_of_drop(losses) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("unit", [1.0, 0.5, 1 / 3, 0.3, 0.1, 1 / 60])
def test_clusters_are_enumerated(unit: float) -> None:
    rng = Random(unit)
    losses = [unit * rng.randint(-3, 5) for _ in range(11)]
    total = sum(losses) - 1e-9
    signs = itertools.product((-1, 1), repeat=len(losses))
    share = [sum(s * abs(x) for s, x in zip(sign, losses, strict=True)) >= total for sign in signs]
    assert stats.p_of_drop(losses) == pytest.approx(sum(share) / len(share), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_continuous_losses_agree_with_scipy(seed: int) -> None:
    rng = Random(seed)
    losses = [rng.gauss(0.01, 0.05) for _ in range(60)]
    reference = permutation_test(
        (losses,), sum, permutation_type="samples", alternative="greater",
        n_resamples=20_000, rng=seed,
    ).pvalue  # fmt: skip
    assert stats.p_of_drop(losses) == pytest.approx(reference, abs=0.012)


def test_no_difference_is_no_evidence() -> None:
    assert stats.p_of_drop([]) == stats.p_of_drop([0.0] * 9) == 1.0
    assert stats.p_of_drop([-0.5] * 9) == 1.0


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        stats.p_of_drop([1.0, math.nan])


def test_a_large_drop_has_a_tiny_p() -> None:
    """Of 300 cells with two metrics each, a drop must stand out; resampling ends at 1e-5."""
    assert stats.p_of_drop([1.0] * 25) == pytest.approx(2**-25)
    rng = Random(0)
    for _ in range(20):
        losses = [rng.random() for _ in range(24)]
        assert stats.p_of_drop(losses) == pytest.approx(2**-24), "one way, however it is rounded"
    assert 0 < stats.p_of_drop([0.0137 + i * 1e-5 for i in range(400)]) < 1e-60


def test_samples_of_a_picture_are_one_cluster() -> None:
    losses = {"a": 1.0, "b": 1.0, "c": -1.0, "d": 0.0}
    clusters = {"a": "one", "b": "one", "c": "two", "d": "three"}
    assert sorted(stats.clustered(losses, clusters)) == [-1.0, 0.0, 2.0]


def test_holm_is_stepwise() -> None:
    assert stats.holm([0.004, 0.011, 0.9], 0.01) == [False, False, False]
    assert stats.holm([0.003, 0.0049, 0.009], 0.01) == [True, True, True]
    assert stats.holm([0.009, 0.003, 0.006], 0.01) == [False, True, False]
    assert stats.holm([]) == []
    values = [0.001, 0.2, 0.0024, 0.03]
    bonferroni = [value <= 0.01 / 4 for value in values]
    assert all(h >= b for h, b in zip(stats.holm(values), bonferroni, strict=True))


def test_samples_that_would_settle_it_do() -> None:
    """A drop of nine in 500 is not settled; as many more as promised at the same rate are."""
    losses, level = [1.0] * 9 + [0.0] * 491, 0.01 / 600
    assert stats.p_of_drop(losses) > level
    wanted = stats.samples_to_settle(losses, 500, level)
    times = math.ceil(wanted / 500)
    assert stats.p_of_drop(losses * times) <= level
    assert 500 < wanted < 2000
    noisy = [0.3] * 200 + [-0.25] * 200
    settled = stats.samples_to_settle(noisy, 400, 0.01)
    assert stats.p_of_drop(noisy * math.ceil(settled / 400)) <= 0.01
