"""Whether a run and a baseline may be compared at all: asked the same, scored the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vlmbench.baseline import Baseline, again
from vlmbench.errors import BaselineError
from vlmbench.run import Run, one_line

_ROUNDING = 2e-3
"""How far an encoder's scores of one text differ from machine to machine, generously."""


def check(run: Run, baseline: Baseline, *, partial: bool) -> None:
    """Refuse a baseline of another protocol, of other samples, or scored by another metric.

    `partial`: the run lacks samples on purpose.

    Raises:
        BaselineError: with what differs.
    """
    _check_protocol(run, baseline)
    _check_samples(run, baseline, partial)
    _check_metrics(run, baseline)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What two records of names and values do not share, a line each."""
    for name in sorted(old.keys() | new.keys()):
        then, now = old.get(name), new.get(name)
        if then != now:
            yield f"{name}: baseline {one_line(str(then))}, this run {one_line(str(now))}"


def _check_protocol(run: Run, baseline: Baseline) -> None:
    old = {"tier": baseline.tier, **baseline.protocol}
    new = {"tier": run.tier, **run.protocol}
    differing = [f"  {difference}" for difference in differences(old, new)]
    if differing:
        raise BaselineError(
            f"the baseline of {run.cell} was made under another protocol and cannot judge this "
            "run:\n"
            + "\n".join(differing)
            + "\nMake a new one:  "
            + again(run.cell, run.tier, "--baseline-update")
        )


def _check_samples(run: Run, baseline: Baseline, partial: bool) -> None:
    changed = [
        name
        for name, scored in run.samples.items()
        if name not in baseline.samples
        or not scored.content.startswith(baseline.samples[name].content)
    ]
    seen = run.samples.keys() | run.errors.keys()
    missing = [] if partial else [name for name in baseline.samples if name not in seen]
    if changed or missing:
        raise BaselineError(
            f"the baseline of {run.cell} was made on other samples: {len(changed)} are new or "
            f"changed (first: {(changed or ['none'])[0]}), {len(missing)} are missing (first: "
            f"{(missing or ['none'])[0]}). Make a new one:  "
            + again(run.cell, run.tier, "--baseline-update")
        )


def _check_metrics(run: Run, baseline: Baseline) -> None:
    """An answer that did not change must have the score it had: else the metric did change."""
    for name, now in run.samples.items():
        then = baseline.samples[name]
        if then.answer != now.answer:
            continue
        for metric in then.scores.keys() & now.scores.keys():
            old, new = then.scores[metric], now.scores[metric]
            # What is no number is for the verdict to tell.
            if math.isfinite(old - new) and abs(old - new) > _ROUNDING * max(1.0, abs(old)):
                raise BaselineError(
                    f"{run.cell}: {metric} gives the answer {one_line(now.answer)} of sample "
                    f"{one_line(name)} {new:.4f}, but the baseline has {old:.4f} for it. The "
                    "metric, or what it scores with, has changed, and its version has not: raise "
                    "it, then make a new baseline:  "
                    + again(run.cell, run.tier, "--baseline-update")
                )
