"""Published findings beside stored runs: does the direction that was published show here, too?

A finding counts as the same direction where the stored answers show it beyond chance, as another
one where they show that, and is left open otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from statistics import fmean

from vlmbench.baseline import Baseline
from vlmbench.report.latencies import Times
from vlmbench.stats import clustered

Runs = Mapping[tuple[str, str, str], Baseline]
"""Stored runs by model, data set and compression."""
SIZE = "file_bytes"
"""The metric of a finding about sizes; a change of it is a share."""
SECONDS = "seconds"
"""The metric of a finding about time, which a history tells; a change of it is a share."""
_NOTHING = "-"
_ERRORS = 2
"""Standard errors that a change must be away from nothing to have a direction."""


@dataclass(frozen=True)
class Finding:
    """What published work found when it went from one compression to another."""

    section: str
    says: str
    source: str
    before: str
    after: str
    metric: str = "bertscore"
    within: float = 0.01
    """Changes smaller than this are none; of sizes it is a share."""
    figures: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    """By model and data set (`*`: of the model itself): before and after."""
    expected: int = 0
    """Where there are no figures: after is above (1) or below (-1) `share` of before."""
    share: float = 1.0


@dataclass(frozen=True)
class Judged:
    """A finding beside what the stored runs of a model show."""

    finding: Finding
    model: str
    dataset: str
    published: str
    here: str
    same: bool | None
    """None: cannot tell."""
    unlike: tuple[str, ...] = ()
    """Where it is judged over several data sets: those that alone show another direction."""

    @property
    def stored(self) -> bool:
        """Whether there are runs to judge it by."""
        return self.here != _NOTHING


@dataclass(frozen=True)
class Change:
    """What a metric was before and after, and how sure its change is."""

    before: float
    after: float
    change: float
    error: float = 0.0
    """The standard error of the change."""


def findings() -> tuple[Finding, ...]:
    """The published findings, with their figures and sources."""
    text = (resources.files(__package__) / "figures.json").read_text(encoding="utf-8")
    return tuple(Finding(**entry) for entry in json.loads(text)["findings"])


def judge(finding: Finding, runs: Runs, model: str, times: Times | None = None) -> list[Judged]:
    """The finding beside a model's runs; empty where it is about several other models alone."""
    if finding.expected:
        return [_claimed(finding, runs, model)]
    # What was published of one model alone is what there is to compare another with.
    alone = next(iter(finding.figures)) if len(finding.figures) == 1 else None
    figures = finding.figures.get(model) or finding.figures.get(alone or "", {})
    whose = f"{alone}: " if alone and alone != model else ""
    judged = []
    for dataset, pair in figures.items():
        if finding.metric == SECONDS:
            found = _slower(finding, times or {}, model, dataset)
        else:
            found = next(iter(_changes(finding, runs, model, dataset).values()), None)
        judged.append(_figured(finding, found, model, dataset, pair, whose))
    return judged


def _figured(
    finding: Finding,
    found: Change | None,
    model: str,
    dataset: str,
    pair: tuple[float, float],
    whose: str,
) -> Judged:
    before, after = pair
    change = (after - before) / (before if finding.metric in (SIZE, SECONDS) else 1)
    published, here = direction(change, 0, finding.within), _direction(found, finding)
    return Judged(
        finding,
        model,
        "all" if dataset == "*" else dataset,
        f"{whose}{before:g} -> {after:g}",
        _shown(found, finding),
        None if here is None else here == published,
    )


def _claimed(finding: Finding, runs: Runs, model: str) -> Judged:
    """A claim without figures is judged by the mean over all data sets."""
    found = _changes(finding, runs, model, "*")
    pooled = _mean([*found.values()]) if found else None
    here = _direction(pooled, finding)
    where = "above" if finding.expected > 0 else "below"
    return Judged(
        finding,
        model,
        f"mean of {len(found)}" if found else "-",
        where if finding.share == 1 else f"{where} {100 * finding.share:g} %",
        _shown(pooled, finding),
        None if here is None else here == finding.expected,
        tuple(d for d, one in found.items() if _direction(one, finding) == -finding.expected),
    )


def _changes(finding: Finding, runs: Runs, model: str, dataset: str) -> dict[str, Change]:
    """By data set, where both runs are stored and have the metric."""
    places = dict.fromkeys(d for m, d, _ in runs if m == model and dataset in (d, "*"))
    pairs = {
        d: (runs.get((model, d, finding.before)), runs.get((model, d, finding.after)))
        for d in places
    }
    changes = {d: _change(finding, a, b) for d, (a, b) in pairs.items() if a and b}
    return {d: change for d, change in changes.items() if change}


def _change(finding: Finding, before: Baseline, after: Baseline) -> Change | None:
    if finding.metric == SIZE:
        sizes = before.file_bytes, after.file_bytes
        return Change(*sizes, (sizes[1] - sizes[0]) / sizes[0]) if all(sizes) else None
    both = [
        name
        for name, kept in before.samples.items()
        if name in after.samples
        and kept.content == after.samples[name].content
        and finding.metric in kept.scores
        and finding.metric in after.samples[name].scores
    ]
    if not both:
        return None
    old = {name: before.samples[name].scores[finding.metric] for name in both}
    new = {name: after.samples[name].scores[finding.metric] for name in both}
    gains = {name: new[name] - finding.share * old[name] for name in both}
    return Change(
        fmean(old.values()),
        fmean(new.values()),
        fmean(gains.values()),
        standard_error(gains, before),
    )


def _slower(finding: Finding, times: Times, model: str, dataset: str) -> Change | None:
    """Of what an answer takes, as a share."""
    before, after = (times.get((model, dataset, c)) for c in (finding.before, finding.after))
    if not (before and after):
        return None
    ratio = after.answer_s / before.answer_s
    error = ratio * math.hypot(before.error_s / before.answer_s, after.error_s / after.answer_s)
    return Change(before.answer_s, after.answer_s, ratio - 1, error)


def _mean(changes: list[Change]) -> Change:
    return Change(
        fmean(one.before for one in changes),
        fmean(one.after for one in changes),
        fmean(one.change for one in changes),
        math.hypot(*(one.error for one in changes)) / len(changes),
    )


def _direction(found: Change | None, finding: Finding) -> int | None:
    return direction(found.change, found.error, finding.within) if found else None


def _shown(found: Change | None, finding: Finding) -> str:
    if not found:
        return _NOTHING
    if finding.metric == SIZE:
        return f"{found.before / 1e6:.2f} -> {found.after / 1e6:.2f} MB"
    if finding.metric == SECONDS:
        shown = f"{1e3 * found.before:.1f} -> {1e3 * found.after:.1f} ms an answer"
        return f"{shown}, x {1 + found.change:.2f} (± {found.error:.2f})"
    return f"{found.before:.3f} -> {found.after:.3f} (± {found.error:.3f})"


def direction(change: float, error: float, within: float) -> int | None:
    """Where a change goes: up (1), down (-1), nowhere (0: within `within` for sure), or None."""
    if abs(change) + _ERRORS * error < within:
        return 0
    return int(math.copysign(1, change)) if abs(change) > _ERRORS * error else None


def standard_error(values: Mapping[str, float], run: Baseline) -> float:
    """The standard error of a mean over samples, of which those on one picture are one cluster."""
    mean = fmean(values.values())
    away = {name: value - mean for name, value in values.items()}
    sums = clustered(away, {name: run.samples[name].cluster for name in away})
    if len(sums) < 2:
        return math.inf
    return math.sqrt(len(sums) / (len(sums) - 1) * math.fsum(s * s for s in sums)) / len(values)
