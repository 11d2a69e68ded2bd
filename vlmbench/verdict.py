"""The gate: whether a run is worse than its baseline, and how anyone could tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from vlmbench import comparable, findings, stats
from vlmbench.baseline import Baseline, Kept, again
from vlmbench.findings import Finding, Twin
from vlmbench.run import Run, Scored, one_line
from vlmbench.spec import Gate

Status = Literal["regression", "error", "inconclusive", "improved", "pass"]
_ORDER: tuple[Status, ...] = ("regression", "error", "inconclusive", "improved", "pass")
_WORST = 5


@dataclass(frozen=True)
class Comparison:
    """One gated metric of a run against its baseline, over the same samples."""

    gate: Gate
    expected: float
    obtained: float
    losses: tuple[float, ...] = ()
    """What each cluster of samples lost, in all; gains are negative."""
    samples: int = 1
    level: float = stats.SIGNIFICANCE
    """How improbable chance must be: 1 % over all comparisons of the session."""

    @property
    def margin(self) -> float:
        """The drop that is forgiven, in the metric's own unit."""
        return self.gate.allowed(self.expected)

    @property
    def drop(self) -> float:
        """How far the run is below its baseline; negative where it is above."""
        return self.expected - self.obtained

    @cached_property
    def p(self) -> float:
        """The chance of such a drop where nothing got worse; 1.0 within the margin."""
        if not math.isfinite(self.drop):
            return 0.0
        if self.drop <= self.margin + 1e-6:
            return 1.0
        return stats.p_of_drop(self.losses)

    @property
    def status(self) -> Status:
        """What the drop is, by its size and by its chance."""
        if not math.isfinite(self.drop) or self._below_floor:
            return "regression"
        # Scores are stored to six digits.
        if self.drop <= self.margin + 1e-6:
            return "improved" if self.drop < -self.margin - 1e-6 else "pass"
        return "regression" if self.p <= self.level else "inconclusive"

    @property
    def _below_floor(self) -> bool:
        return self.gate.floor is not None and self.obtained < self.gate.floor - 1e-6

    @property
    def why(self) -> str:
        """What decided, in a few words."""
        if self._below_floor:
            return f"below the floor {self.gate.floor:.4f}"
        if self.status == "regression":
            return f"p {self.p:.2g}"
        if self.status == "inconclusive":
            wanted = stats.samples_to_settle(self.losses, self.samples, self.level)
            return f"p {self.p:.2g}; about {wanted} samples would settle it"
        return ""


@dataclass(frozen=True)
class Verdict:
    """A run against its baseline."""

    run: Run
    baseline: Baseline
    comparisons: tuple[Comparison, ...]
    findings: tuple[Finding, ...] = ()
    changes: tuple[str, ...] = ()
    """How the subject differs from the baseline's: no fault, but what is judged."""
    twin: Twin | None = None
    tolerated: int = 0
    """How many samples may be without an answer."""
    waived: frozenset[str] = frozenset()
    """Metrics whose regression somebody answers for."""

    @property
    def status(self) -> Status:
        """The worst that was found."""
        if self.findings:
            return "regression"
        states = [c.status for c in self.comparisons if c.gate.metric not in self.waived]
        if len(self.run.errors) > self.tolerated:
            states.append("error")
        return next((state for state in _ORDER if state in states), "pass")

    def worst(self, metric: str) -> list[tuple[str, Kept, Scored]]:
        """(sample id, then, now) of the samples that lost most, greatest loss first."""
        pairs = [(n, self.baseline.samples[n], now) for n, now in self.run.samples.items()]
        lost = [p for p in pairs if p[1].scores[metric] - p[2].scores[metric] > 1e-6]
        return sorted(lost, key=lambda p: p[2].scores[metric] - p[1].scores[metric])[:_WORST]

    def explain(self) -> list[str]:
        """Why the run fails, in lines: metrics, the samples that lost most, what to do."""
        return [*self.summary(), *self.details(), self.remedy]

    def summary(self) -> list[str]:
        """A line for each gated metric and each finding."""
        lines = [f"{self.run.cell} ({self.run.tier}) is {self.status} against its baseline"]
        for c in self.comparisons:
            waived = "waived" if c.gate.metric in self.waived else c.status
            lines.append(
                f"  {c.gate.metric:16} baseline {c.expected:.4f}  obtained {c.obtained:.4f}  "
                f"drop {c.drop:+.4f}  margin {c.margin:.4f}  {waived}  {c.why}".rstrip()
            )
        lines += [
            f"  {f.what:16} baseline {f.expected}  obtained {f.obtained}  regression"
            for f in self.findings
        ]
        if self.run.errors:
            total = len(self.run.errors) + len(self.run.samples)
            first = one_line(next(iter(self.run.errors.values())))
            lines.append(f"  {len(self.run.errors)} of {total} samples have no answer: {first}")
        return lines

    def details(self) -> list[str]:
        """How the subject changed, and the samples that lost most."""
        lines = [f"  {change}" for change in self.changes]
        lines += [
            f"  no answer: {one_line(text)}" for text in list(self.run.errors.values())[:_WORST]
        ]
        for c in self.comparisons:
            if c.status in ("regression", "inconclusive"):
                lines += self._flips(c.gate.metric)
        return lines

    @property
    def remedy(self) -> str:
        """The command that accepts the run."""
        if self.run.errors:
            return "No baseline is written while samples have no answer: mend them first."
        return "Accept it:  " + again(self.run.cell, self.run.tier, "--baseline-update")

    def _flips(self, metric: str) -> Iterator[str]:
        count = sum(
            then.scores[metric] > self.run.samples[name].scores[metric] + 1e-6
            for name, then in self.baseline.samples.items()
            if name in self.run.samples
        )
        yield f"  {count} of {len(self.run.samples)} samples lost {metric}; the worst:"
        for name, then, now in self.worst(metric):
            yield f"    {one_line(name)}: {then.scores[metric]:.2f} -> {now.scores[metric]:.2f}"
            yield f"      question    {one_line(now.question)}"
            yield f"      references  {one_line(' | '.join(dict.fromkeys(now.references)))}"
            yield f"      baseline    {one_line(then.answer)}"
            yield f"      obtained    {one_line(now.answer)}"


def compare(
    run: Run,
    baseline: Baseline,
    gates: tuple[Gate, ...],
    *,
    partial: bool = False,
    comparisons: int | None = None,
    twin: Baseline | None = None,
    promised: float = 0.0,
    waived: frozenset[str] = frozenset(),
    tolerated: int = 0,
) -> Verdict:
    """Judge a run by its baseline, sample by sample.

    Args:
        run: what was obtained.
        baseline: what it must not fall below.
        gates: the metrics that decide, with their margins.
        partial: the run was limited on purpose and is compared over its own samples.
        comparisons: how many gated metrics the whole session judges; this run's alone by default.
        twin: the baseline of the uncompressed model, for the record.
        promised: the share of the twin's score that the recipe promises to keep.
        waived: metrics whose regression somebody answers for.
        tolerated: how many samples may be without an answer.

    Raises:
        BaselineError: the two were not obtained under one protocol, or on other samples.
    """
    comparable.check(run, baseline, partial=partial)
    level = stats.SIGNIFICANCE / max(1, comparisons or len(gates))
    beside = findings.against_twin(run, twin, gates) if twin else None
    found = [*findings.storage(run, baseline), *findings.broken_promises(beside, promised)]
    if not partial:
        found += findings.health(run, baseline, level)
    return Verdict(
        run,
        baseline,
        tuple(_compared(run, baseline, gate, level) for gate in gates),
        tuple(found),
        tuple(f"changed {d}" for d in comparable.differences(baseline.subject, run.subject)),
        beside,
        tolerated,
        waived,
    )


def settled(verdict: Verdict, comparison: Comparison) -> Verdict:
    """The verdict with one comparison found significant among all of the session."""
    known = tuple(
        replace(c, level=max(c.level, c.p)) if c == comparison else c for c in verdict.comparisons
    )
    return replace(verdict, comparisons=known)


def _compared(run: Run, baseline: Baseline, gate: Gate, level: float) -> Comparison:
    metric = gate.metric
    losses = {
        # As stored: what was rounded once must not look lost.
        name: round(baseline.samples[name].scores[metric], 6) - round(now.scores[metric], 6)
        for name, now in run.samples.items()
    }
    clusters = {name: now.cluster or name for name, now in run.samples.items()}
    expected = math.fsum(baseline.samples[n].scores[metric] for n in run.samples) / len(losses)
    return Comparison(
        gate,
        expected,
        run.mean(metric),
        tuple(stats.clustered(losses, clusters)),
        len(losses),
        level,
    )


def plain(verdict: Verdict) -> dict[str, Any]:
    """Plain data of a verdict, for histories."""
    data: dict[str, Any] = {
        "status": verdict.status,
        "baseline": {c.gate.metric: round(c.expected, 6) for c in verdict.comparisons},
        "p": {c.gate.metric: c.p for c in verdict.comparisons},
    }
    if verdict.twin:
        data["twin"] = dict(vars(verdict.twin))
    return data
