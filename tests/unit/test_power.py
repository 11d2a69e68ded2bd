"""What the gate sees and what it lets pass, by simulation: power and false alarms.

Five hundred samples a cell, as the embedded test splits have. Noise is drawn from the differences
between runs of this project, 32 against 16 bit and against 8 bit, sample by sample.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from vlmbench import stats
from vlmbench.baseline import load
from vlmbench.spec import Gate
from vlmbench.verdict import Comparison

ROOT = Path(__file__).parents[2]
SAMPLES, MATRIX, GATES = 500, 300, 2
ANLS, BERTSCORE = Gate("anls", 0.02), Gate("bertscore", 0.01)
SINGLE, WHOLE = stats.SIGNIFICANCE / GATES, stats.SIGNIFICANCE / (GATES * MATRIX)


@functools.cache
def noise(metric: str) -> np.ndarray:
    """What the samples of clean runs gain or lose."""
    pool = []
    for path in sorted((ROOT / "baselines" / "embedded").glob("*/qwen2_32bit.json")):
        exact = load(path, path.stem, "embedded").samples
        for other in ("16bit", "8bit"):
            rounded = load(path.with_stem(f"qwen2_{other}"), path.stem, "embedded").samples
            if metric in next(iter(exact.values())).scores:
                pool += [rounded[n].scores[metric] - one.scores[metric] for n, one in exact.items()]
    return np.array(pool)


def clean(rng: np.random.Generator, metric: str, cells: int = 1) -> np.ndarray:
    """[cells, SAMPLES] losses of runs of which none is worse."""
    drawn = rng.choice(noise(metric), (cells, SAMPLES))
    return drawn * rng.choice((-1.0, 1.0), (cells, SAMPLES))


def judged(losses: np.ndarray, gate: Gate, level: float, expected: float = 0.9) -> str:
    drop = float(losses.mean())
    return Comparison(gate, expected, expected - drop, tuple(losses), len(losses), level).status


@pytest.mark.parametrize(("metric", "spread"), [("bertscore", 0.09), ("vqa_accuracy", 0.2)])
def test_clean_runs_differ_a_little(metric: str, spread: float) -> None:
    assert len(noise(metric)) >= 1000
    assert 0 < noise(metric).std() <= spread


UNMET = pytest.mark.xfail(
    strict=True, reason="0.87 and 0.61 are told: 1 and 2 % of clean answers flip at 16 or 8 bit"
)


@pytest.mark.parametrize(
    ("metric", "lost", "level"),
    [
        ("anls", 20, SINGLE),
        ("anls", 25, WHOLE),
        ("letter_accuracy", 20, SINGLE),
        pytest.param("letter_accuracy", 25, WHOLE, marks=UNMET),
        ("letter_accuracy", 28, WHOLE),
        ("vqa_accuracy", 20, SINGLE),
        pytest.param("vqa_accuracy", 25, WHOLE, marks=UNMET),
        ("vqa_accuracy", 33, WHOLE),
    ],
)
def test_lost_answers_are_called_a_regression(metric: str, lost: int, level: float) -> None:
    rng = np.random.default_rng(1)
    called = []
    for _ in range(200):
        (losses,) = clean(rng, metric)
        losses[:lost] = 1.0
        called.append(judged(losses, ANLS, level) == "regression")
    assert np.mean(called) >= 0.95


@pytest.mark.parametrize(("drop", "level"), [(0.02, SINGLE), (0.025, WHOLE)])
def test_a_lower_bertscore_is_called_a_regression(drop: float, level: float) -> None:
    rng = np.random.default_rng(2)
    called = [
        judged(rng.normal(drop, 0.09, SAMPLES), BERTSCORE, level) == "regression"
        for _ in range(100)
    ]
    assert np.mean(called) >= 0.95


@pytest.mark.parametrize("metric", ["bertscore", "anls", "vqa_accuracy"])
def test_matrices_of_runs_like_ours_are_green(metric: str) -> None:
    rng = np.random.default_rng(5)
    gate = BERTSCORE if metric == "bertscore" else ANLS
    beyond = [
        losses
        for _ in range(100)
        for losses in clean(rng, metric, MATRIX)
        if losses.mean() > gate.margin
    ]
    assert [judged(losses, gate, WHOLE) for losses in beyond].count("regression") <= 1


def test_clean_matrices_are_green() -> None:
    """Of 1,000 clean matrices at most ten show any regression; inconclusive cells are counted."""
    rng = np.random.default_rng(3)
    red = open_ = 0
    for _ in range(1000):
        changed = rng.binomial(SAMPLES, 0.01, MATRIX)
        net = 2 * rng.binomial(changed, 0.5) - changed
        states = [
            judged(
                np.repeat([1.0, -1.0, 0.0], [(c + d) // 2, (c - d) // 2, SAMPLES - c]), ANLS, WHOLE
            )
            for c, d in zip(changed, net, strict=True)
            if d > 0.02 * SAMPLES
        ]
        # A flipped answer moves BERTScore as well, by less than all of it.
        moved = rng.normal(0, 0.3 * np.sqrt(np.maximum(changed, 1)))
        states += ["open" for d in moved if d > 0.01 * SAMPLES]
        red += "regression" in states
        open_ += len(states) - states.count("regression")
    assert red <= 10
    assert open_ <= 10


def test_without_margins_chance_is_held_to_one_percent() -> None:
    """The margins set aside, Holm alone keeps a matrix green in 99 of 100 cases."""
    chance = functools.cache(lambda c, d: stats.p_of_drop([1.0] * c + [-1.0] * d))
    rng = np.random.default_rng(4)
    red = 0
    for _ in range(300):
        changed = rng.binomial(SAMPLES, 0.05, MATRIX)
        lost = rng.binomial(changed, 0.5)
        values = [chance(int(c), int(n - c)) for n, c in zip(changed, lost, strict=True)]
        red += any(stats.holm(values))
    assert red <= 7, "three expected at most; more than seven come in 1 of 100 series"


def test_eleven_flips_settle_a_cell_and_sixteen_a_matrix() -> None:
    one_way = lambda lost: np.repeat([1.0, 0.0], [lost, SAMPLES - lost])  # noqa: E731
    assert judged(one_way(11), ANLS, SINGLE) == "regression"
    assert judged(one_way(16), ANLS, WHOLE) == "regression"
    assert judged(one_way(15), ANLS, WHOLE) == "inconclusive"
