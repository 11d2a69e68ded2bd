"""Is a drop real? Exact paired tests, over clusters of samples that share a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

_BINS = 100_000
"""The longest grid that sums are counted on; scores finer than it are rounded to it."""
SIGNIFICANCE = 0.01
"""The chance, over all comparisons of a run, that any clean one is called a regression."""


def p_of_drop(losses: Sequence[float]) -> float:
    """The chance of a total loss this great if each cluster's sign were the toss of a coin.

    `losses`: what each cluster lost, in the metric's unit; gains are negative. The sign-flip test,
    one-sided, over all 2^n signs: exact for 0/1 scores (where it is the sign test, if clusters are
    of one sample) and other scores on a grid; continuous ones are rounded to 1/100,000 of the
    sum of absolute losses. 1.0 where nothing differs.
    """
    lost = np.asarray([loss for loss in losses if loss], dtype=np.float64)
    if not len(lost):
        return 1.0
    if not np.isfinite(lost).all():
        raise ValueError("a loss is no finite number")
    signed = np.rint(lost / _grid(np.abs(lost))).astype(np.int64)
    units, total = np.abs(signed), int(signed.sum())
    # chances[i]: of i units lost among those whose sign came up as a loss.
    chances = np.zeros(int(units.sum()) + 1)
    chances[0] = 1.0
    reached = 0
    for unit in units:
        flipped = np.zeros(reached + unit + 1)
        flipped[unit:] = chances[: reached + 1]
        flipped[: reached + 1] += chances[: reached + 1]
        reached += int(unit)
        chances[: reached + 1] = flipped / 2
    # lost - (all - lost) >= total
    least = math.ceil((reached + total) / 2)
    return float(min(1.0, chances[max(0, least) :].sum()))


def _grid(sizes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The step that all sizes are multiples of, or one fine enough."""
    finest = float(sizes.sum()) / _BINS
    for parts in (1, 2, 3, 10, 30, 60, 100):
        if 1 / parts > finest and np.abs(sizes * parts - np.rint(sizes * parts)).max() < 1e-4:
            return 1 / parts
    return finest


def clustered(losses: Mapping[str, float], clusters: Mapping[str, str]) -> list[float]:
    """The loss of each cluster, from the loss of each sample and the cluster it belongs to."""
    sums: dict[str, float] = {}
    for name, loss in losses.items():
        sums[clusters[name]] = sums.get(clusters[name], 0.0) + loss
    return list(sums.values())


def holm(values: Sequence[float], level: float = SIGNIFICANCE) -> list[bool]:
    """Which of several tests are significant together (Holm, Scand. J. Stat. 1979)."""
    significant = [False] * len(values)
    ranked = sorted(range(len(values)), key=lambda i: values[i])
    for rank, i in enumerate(ranked):
        if values[i] > level / (len(values) - rank):
            break
        significant[i] = True
    return significant


def smallest_flips(level: float) -> int:
    """How many samples must be lost, none won, before a 0/1 drop is significant at `level`."""
    return math.ceil(-math.log2(level))


def samples_to_settle(losses: Sequence[float], samples: int, level: float) -> int:
    """About how many samples like these would settle a drop of this size at `level`.

    From the normal approximation: the test's statistic grows with the root of the samples. Never
    fewer than the smallest number of flips needs.
    """
    z = math.fsum(losses) / math.sqrt(math.fsum(loss * loss for loss in losses))
    wanted = math.ceil(samples * (NormalDist().inv_cdf(1 - level) / z) ** 2)
    changed = sum(1 for loss in losses if loss)
    return max(samples + 1, wanted, math.ceil(samples * smallest_flips(level) / changed))
