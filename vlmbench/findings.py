"""What a verdict says beside the scores: bytes, the answers' health, and the uncompressed twin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlmbench import stats
from vlmbench.baseline import Baseline
from vlmbench.run import Run, one_line
from vlmbench.spec import Gate

_JUMP = {"empty": 0.01, "cut": 0.02, "repeating": 0.02, "commonest": 0.02}
"""The rise of a share of unhealthy answers that is forgiven."""
_CONSTANT = 0.9
"""Above this share of one and the same answer the picture no longer matters."""


@dataclass(frozen=True)
class Finding:
    """Something beside the scores that is not as it was: storage, or the answers' health."""

    what: str
    expected: str
    obtained: str


@dataclass(frozen=True)
class Twin:
    """A compressed run against the baseline of its uncompressed twin."""

    recovery: Mapping[str, float]
    """Score in shares of the twin's, by gated metric."""
    right_to_wrong: int
    wrong_to_right: int
    changed: int
    """Answers that are other text."""


def storage(run: Run, baseline: Baseline) -> Iterator[Finding]:
    """Bytes are gated exactly, per device kind; the file's only where it is the same checkpoint."""
    if _device(run.environment) != _device(baseline.environment):
        return
    same = run.subject.get("weights") == baseline.subject.get("weights")
    pairs = [("footprint bytes", baseline.footprint_bytes, run.footprint_bytes)]
    if same:
        pairs.append(("file bytes", baseline.file_bytes, run.file_bytes))
    for what, then, now in pairs:
        if then != now:
            yield Finding(what, f"{then:,}", f"{now:,}")
    if baseline.census and run.census != baseline.census:
        differing = sorted(
            name
            for name in run.census.keys() | baseline.census.keys()
            if run.census.get(name) != baseline.census.get(name)
        )
        parts = (str({n: c.get(n) for n in differing}) for c in (baseline.census, run.census))
        yield Finding("census", *map(one_line, parts))
    if _device(run.environment) == "cuda" and run.peak_bytes > 1.05 * baseline.peak_bytes > 0:
        yield Finding("peak bytes", f"{baseline.peak_bytes:,}", f"{run.peak_bytes:,}")


def _device(environment: Mapping[str, Any]) -> str:
    return str(environment.get("device_kind", "cpu"))


def health(run: Run, baseline: Baseline, level: float) -> Iterator[Finding]:
    """A jump in empty, cut, repeating or equal answers, by as many answers as no chance moves."""
    for name, then in baseline.health.items():
        now = run.health.get(name, 0.0)
        answers = (now - then) * len(run.samples)
        if name == "commonest" and now < _CONSTANT:
            continue  # which of a few letters a model prefers is no fault
        if now - then > _JUMP[name] + 1e-9 and answers >= stats.smallest_flips(level) - 1e-6:
            yield Finding(f"{name} answers", f"{then:.1%}", f"{now:.1%}")


def against_twin(run: Run, twin: Baseline, gates: tuple[Gate, ...]) -> Twin | None:
    """The record beside the twin, where the two can be compared at all."""
    if run.protocol != twin.protocol or not run.samples.keys() <= twin.samples.keys():
        return None
    means = {
        gate.metric: math.fsum(twin.samples[n].scores[gate.metric] for n in run.samples)
        / len(run.samples)
        for gate in gates
    }
    metric = gates[-1].metric
    pairs = [(twin.samples[name], now) for name, now in run.samples.items()]
    right = [(t.scores[metric] >= 0.5, n.scores[metric] >= 0.5) for t, n in pairs]
    return Twin(
        {name: round(run.mean(name) / mean, 6) for name, mean in means.items() if mean > 0},
        right_to_wrong=right.count((True, False)),
        wrong_to_right=right.count((False, True)),
        changed=sum(then.answer != now.answer for then, now in pairs),
    )


def broken_promises(twin: Twin | None, promised: float) -> Iterator[Finding]:
    """Gated metrics of which the recipe kept less than it promises."""
    for metric, share in twin.recovery.items() if twin else ():
        if share < promised - 1e-6:
            yield Finding(f"recovery {metric}", f"at least {promised:.4f}", f"{share:.4f}")


def smallest_drop(run: Run, gate: Gate, level: float = stats.SIGNIFICANCE) -> float | None:
    """The smallest drop, by samples that lose all they have, which is told from chance.

    None where so few samples have anything to lose that no drop can be.
    """
    flips = stats.smallest_flips(level)
    had = sorted((one.scores[gate.metric] for one in run.samples.values()), reverse=True)
    if sum(1 for score in had if score > 0) < flips:
        return None
    needed = math.fsum(had[:flips]) / len(had)
    return max(needed, gate.allowed(run.mean(gate.metric)))
