"""Writing a baseline: which run may become one, and what changes by it."""

from __future__ import annotations

import math
from pathlib import Path

from vlmbench import baseline as baselines
from vlmbench.baseline import Baseline
from vlmbench.errors import BaselineError
from vlmbench.findings import smallest_drop
from vlmbench.run import Run
from vlmbench.spec import Gate


def write(path: Path, run: Run, gates: tuple[Gate, ...], *, move_anchor: bool) -> str:
    """Make a run the baseline of its cell; what changed, in a line.

    Raises:
        BaselineError: the run is no sound one, is far below the best there was, or cannot be
            written.
    """
    if run.errors:
        raise BaselineError(
            f"{run.cell}: {len(run.errors)} samples have no answer, so this run is no baseline: "
            + next(iter(run.errors.values()))
        )
    if not all(map(math.isfinite, run.scores.values())):
        raise BaselineError(f"{run.cell}: a score is no number, so this run is no baseline")
    before = _before(path, run)
    # Of another protocol, the best there was is no best any more.
    same = before if before and before.protocol == run.protocol else None
    if not move_anchor:
        baselines.check_anchor(run, same, gates)
    visible = {gate.metric: smallest_drop(run, gate) for gate in gates}
    made = baselines.of_run(run, gates, visible, None if move_anchor else same)
    try:
        baselines.save(path, made)
    except OSError as error:
        raise BaselineError(
            f"the baseline {path} cannot be written: {error.strerror}. Mend the folder, or name "
            "another: --baselines DIR"
        ) from None
    return f"baseline of {run.cell}: {_changes(before, run, gates)}"


def _before(path: Path, run: Run) -> Baseline | None:
    try:
        return baselines.load(path, run.cell, run.tier, edited=True) if path.exists() else None
    except BaselineError:
        return None  # What cannot be read is rewritten.


def _changes(before: Baseline | None, run: Run, gates: tuple[Gate, ...]) -> str:
    if before is None:
        return "new, " + ", ".join(f"{g.metric} {run.mean(g.metric):.4f}" for g in gates)
    old = before.scores
    parts = [
        f"{g.metric} {old[g.metric]:.4f} -> {run.mean(g.metric):.4f}"
        for g in gates
        if g.metric in old
    ]
    shared = before.samples.keys() & run.samples.keys()
    changed = sum(before.samples[name].answer != run.samples[name].answer for name in shared)
    parts.append(f"{changed} of {len(run.samples)} answers changed")
    if others := len(run.samples.keys() ^ before.samples.keys()):
        parts.append(f"{others} samples come or go")
    if before.protocol != run.protocol:
        parts.append("another protocol")
    if before.subject != run.subject:
        parts.append("another subject")
    return ", ".join(parts)
