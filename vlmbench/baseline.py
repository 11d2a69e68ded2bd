"""Baselines: the stored run that a cell must not fall below. Owns the files and the comparison."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmbench.errors import BaselineError
from vlmbench.run import Run, Scored
from vlmbench.spec import Cell, Gate

Status = Literal["pass", "improved", "regression"]
_WORST = 5


@dataclass(frozen=True)
class Comparison:
    """One gated metric of a run against its baseline, over the same samples."""

    gate: Gate
    expected: float
    obtained: float

    @property
    def margin(self) -> float:
        """The drop that is forgiven, in the metric's own unit."""
        return self.gate.margin * (self.expected if self.gate.relative else 1.0)

    @property
    def drop(self) -> float:
        """How far the run is below its baseline; negative where it is above."""
        return self.expected - self.obtained

    @property
    def status(self) -> Status:
        """A drop beyond the margin is a regression."""
        # Scores are stored to six digits; a drop that is no number is no pass.
        if not self.drop <= self.margin + 1e-6:
            return "regression"
        return "improved" if self.drop < -self.margin - 1e-6 else "pass"


@dataclass(frozen=True)
class Verdict:
    """A run against its baseline: a comparison for each gated metric."""

    run: Run
    baseline: Run
    comparisons: tuple[Comparison, ...]

    @property
    def status(self) -> Status:
        """The worst of the metrics' states."""
        states = [comparison.status for comparison in self.comparisons]
        order: tuple[Status, ...] = ("regression", "improved", "pass")
        return next(state for state in order if state in states)

    def worst(self, metric: str) -> list[tuple[str, Scored, Scored]]:
        """(sample id, then, now) of the samples that lost most, greatest loss first."""
        pairs = [(n, self.baseline.samples[n], now) for n, now in self.run.samples.items()]
        lost = [p for p in pairs if p[1].scores[metric] - p[2].scores[metric] > 1e-6]
        return sorted(lost, key=lambda p: p[2].scores[metric] - p[1].scores[metric])[:_WORST]

    def explain(self) -> list[str]:
        """Why the run fails, in lines: metrics, the samples that lost most, what to do."""
        lines = [f"{self.run.cell} ({self.run.tier}) is {self.status} against its baseline"]
        for c in self.comparisons:
            lines.append(
                f"  {c.gate.metric:16} baseline {c.expected:.4f}  obtained {c.obtained:.4f}  "
                f"drop {c.drop:+.4f}  margin {c.margin:.4f}  {c.status}"
            )
        for c in self.comparisons:
            if c.status == "regression":
                lines += self._flips(c.gate.metric)
        lines += ["Accept it:  " + _again(self.run.cell, self.run.tier, "--baseline-update")]
        return lines

    def _flips(self, metric: str) -> list[str]:
        count = sum(
            then.scores[metric] > self.run.samples[name].scores[metric] + 1e-6
            for name, then in self.baseline.samples.items()
            if name in self.run.samples
        )
        lines = [f"  {count} of {len(self.run.samples)} samples lost {metric}; the worst:"]
        for name, then, now in self.worst(metric):
            lines += [
                f"    {_line(name)}: {then.scores[metric]:.2f} -> {now.scores[metric]:.2f}",
                f"      question    {_line(then.question)}",
                f"      references  {_line(' | '.join(dict.fromkeys(then.references)))}",
                f"      baseline    {_line(then.answer)}",
                f"      obtained    {_line(now.answer)}",
            ]
        return lines


def _line(text: str) -> str:
    """Text from models and data on one line, control characters escaped."""
    flat = json.dumps(text, ensure_ascii=False)
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in flat)
    return shown if len(shown) <= 160 else shown[:157] + '..."'


def path_of(folder: Path, tier: str, cell: Cell, of_model: str | None = None) -> Path:
    """Where the baseline of a cell is; `of_model` names another model to compare with."""
    variant = f"{of_model or cell.model.name}_{cell.compression.name}"
    return folder / tier / cell.dataset.name / f"{variant}.json"


def _again(cell: str, tier: str, option: str) -> str:
    """The command that judges a cell again with an option."""
    where = "" if tier == "embedded" else f" --tier {tier}"
    return f"pytest -k {cell}{where} {option}"


def load(path: Path, cell: str, tier: str) -> Run:
    """Read the baseline of a cell.

    Raises:
        BaselineError: there is none, or the file is not as `save` wrote it.
    """
    try:
        return Run.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaselineError(
            f"{cell} has no baseline: {path} does not exist. "
            "Write it:  " + _again(cell, tier, "--baseline-new")
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaselineError(
            f"the baseline {path} cannot be read ({type(error).__name__}: {error}). Restore it "
            "from version control, or write it again:  " + _again(cell, tier, "--baseline-update")
        ) from None


def save(path: Path, run: Run) -> None:
    """Write a baseline, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(run.to_json(), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def compare(run: Run, baseline: Run, gates: tuple[Gate, ...], *, partial: bool = False) -> Verdict:
    """Judge a run by its baseline, sample by sample.

    `partial`: the run was limited on purpose and is compared over its own samples.

    Raises:
        BaselineError: the two were not obtained under one protocol, or on other samples.
    """
    _check_protocol(run, baseline)
    _check_samples(run, baseline, partial)
    comparisons = tuple(
        Comparison(
            gate,
            _mean([baseline.samples[name] for name in run.samples], gate.metric),
            run.mean(gate.metric),
        )
        for gate in gates
    )
    return Verdict(run, baseline, comparisons)


def _mean(samples: list[Scored], metric: str) -> float:
    return sum(scored.scores[metric] for scored in samples) / len(samples)


def _check_protocol(run: Run, baseline: Run) -> None:
    old = {"tier": baseline.tier, **baseline.protocol}
    new = {"tier": run.tier, **run.protocol}
    differing = [
        f"  {name}: baseline {_line(str(old.get(name)))}, this run {_line(str(new.get(name)))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if differing:
        raise BaselineError(
            f"the baseline of {run.cell} was made under another protocol and cannot judge this "
            "run:\n"
            + "\n".join(differing)
            + "\nMake a new one:  "
            + _again(run.cell, run.tier, "--baseline-update")
        )


def _check_samples(run: Run, baseline: Run, partial: bool) -> None:
    changed = [
        name
        for name, scored in run.samples.items()
        if name not in baseline.samples or baseline.samples[name].content != scored.content
    ]
    missing = [] if partial else [name for name in baseline.samples if name not in run.samples]
    if changed or missing:
        raise BaselineError(
            f"the baseline of {run.cell} was made on other samples: {len(changed)} are new or "
            f"changed (first: {(changed or ['none'])[0]}), {len(missing)} are missing (first: "
            f"{(missing or ['none'])[0]}). Make a new one:  "
            + _again(run.cell, run.tier, "--baseline-update")
        )


def summary(verdict: Verdict) -> dict[str, Any]:
    """Plain data of a verdict, for histories."""
    return {
        "status": verdict.status,
        "baseline": {c.gate.metric: round(c.expected, 6) for c in verdict.comparisons},
    }
