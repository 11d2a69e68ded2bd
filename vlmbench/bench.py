"""A session: which cells there are under the user's options, and each thing made at most once."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vlmbench import baseline as baselines
from vlmbench import gates, selection, stats, update
from vlmbench.artifacts import Store, default_folder, key_of
from vlmbench.errors import BaselineError, UsageError, VlmbenchError
from vlmbench.options import Entries, Options
from vlmbench.spec import Cell, Compression, Dataset, Model
from vlmbench.verdict import Verdict, compare, settled

if TYPE_CHECKING:
    from vlmbench.run import Run
    from vlmbench.samples import Samples
    from vlmbench.variant import Variant

Progress = Callable[[Cell, int, int], None]
"""(cell, samples done, samples in all); called with 0 done before the first."""


@dataclass
class Bench:
    """Everything a test session shares: one loaded variant, the samples read, the runs made."""

    options: Options
    entries: Entries
    loads: Counter[str] = field(default_factory=Counter)
    """How often each variant was loaded."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    """Cells whose run was made by an earlier session."""
    written: list[str] = field(default_factory=list)
    """What baselines were written, and what changed by it, a line each."""
    late: list[str] = field(default_factory=list)
    """Cells that only all comparisons together showed to be regressions."""
    errored: int = 0
    """Tests that failed for want of something to judge."""
    planned: int = 0
    """How many gated metrics the session judges; every comparison is stricter for it."""
    runs: dict[str, Run] = field(default_factory=dict)
    latencies: dict[str, float] = field(default_factory=dict)
    """Median seconds an answer takes in a probe batch, by cell."""
    _loaded: Variant | None = None
    _lent: bool = False
    _samples: dict[str, Samples] = field(default_factory=dict)
    _unloadable: dict[str, VlmbenchError] = field(default_factory=dict)
    _failed: dict[str, VlmbenchError] = field(default_factory=dict)
    """Why a cell has no run: told to each of its tests, not found out again."""

    def __post_init__(self) -> None:
        adjusted = gates.adjusted(self.entries.datasets, self.options.margins, self.options.floors)
        self.entries = dataclasses.replace(self.entries, datasets=adjusted)
        self.models = selection.models(self.options, self.entries)
        self.datasets = selection.datasets(self.options, self.entries)
        adjusted.update((d.name, d) for d in self.datasets)  # what is asked must not be learnt
        self.compressions = selection.compressions(self.options, self.entries)
        selection.check(self.models, self.compressions, self.datasets)
        # Checkpoints are looked into here: cells are asked for at every test.
        self._variants = selection.variants(self.models, self.compressions, self.entries)
        every = selection.cells(self._variants, self.datasets, self.entries)
        self.left_out = len(every) - len(self.cells())
        """Cells that could run, of recipes that are judged where they have a baseline."""
        if not every:
            named = [", ".join(e.name for e in axis) for axis in (self.models, self.datasets)]
            raise UsageError(f"nothing to run: no model ({named[0]}) answers the data ({named[1]})")
        self.store = Store(self.options.cache or default_folder())
        self._waivers_path = self.options.baselines / self.options.tier / gates.WAIVERS
        self.waivers = gates.read_waivers(
            self._waivers_path, {cell.id: cell.dataset.gates for cell in self.cells()}
        )

    def cells(self) -> list[Cell]:
        """Every pair that can run, variant by variant; what no model claims, any may that can."""
        every = selection.cells(self._variants, self.datasets, self.entries)
        return [cell for cell in every if self._in_matrix(cell)]

    def _in_matrix(self, cell: Cell) -> bool:
        """Where nothing is asked for, what is not in every model's matrix needs a baseline."""
        options = self.options
        asked = options.matrix == "full" or options.compressions or options.write == "new"
        waits = selection.on_request(cell.compression)
        return bool(asked or not waits or self.baseline_path(cell).exists())

    def cell(self, name: str) -> Cell:
        """The cell of that id."""
        return next(cell for cell in self.cells() if cell.id == name)

    def variant(self, model: Model, compression: Compression, *, lent: bool = False) -> Variant:
        """The loaded variant; the one before it is dropped first.

        `lent`: to a test, which may change it; what it then answers is not kept.
        """
        from vlmbench.compressed import load_once
        from vlmbench.evaluate import learnt_from
        from vlmbench.traindata import TrainSamples

        wanted = f"{model.name}_{compression.name}"
        if self._loaded is None or self._loaded.name != wanted:
            self._loaded, self._lent = None, False
            # pytest keeps the frames of a failed test, and with them its variant, for a debugger.
            for kept in ("last_value", "last_traceback", "last_exc"):
                setattr(sys, kept, None)
            gc.collect()
            if wanted in self._unloadable:
                raise self._unloadable[wanted]
            options = self.options
            self.loads[wanted] += 1
            try:
                loaded = load_once(
                    model,
                    compression,
                    selection.source("model", model, options.tier),
                    self.store,
                    partial(TrainSamples, self.entries.datasets, options.tier),
                    device=options.device,
                    dtype=options.dtype,
                    learns=learnt_from(model, compression, self.entries.datasets, options.tier),
                    fresh=options.fresh,
                )
                if options.time_limit:
                    loaded = dataclasses.replace(loaded, time_limit_s=options.time_limit)
                self._loaded = loaded
            except VlmbenchError as error:
                error.__traceback__ = error.__context__ = None
                self._unloadable[wanted] = error
                raise
        self._lent = self._lent or lent
        return self._loaded

    def samples(self, dataset: Dataset) -> Samples:
        """The data set's samples, read once."""
        from vlmbench.samples import read

        if dataset.name not in self._samples:
            source = selection.source("data set", dataset, self.options.tier)
            self._samples[dataset.name] = read(dataset, source, limit=self.options.limit)
        return self._samples[dataset.name]

    def run(self, cell: Cell, progress: Progress = lambda cell, done, total: None) -> Run:
        """The cell's run, made once, whether it succeeds or not; now or by an earlier session."""
        if cell.id in self._failed:
            raise self._failed[cell.id]
        if cell.id not in self.runs:
            try:
                self.runs[cell.id] = self._evaluated(cell, progress)
            except VlmbenchError as error:
                # Without the frames, which would keep the variant in memory.
                error.__traceback__ = error.__context__ = None
                self._failed[cell.id] = error
                raise
        return self.runs[cell.id]

    def _evaluated(self, cell: Cell, progress: Progress) -> Run:
        from vlmbench.evaluate import evaluate, identity, learnt_from
        from vlmbench.variant import check_device

        options, samples = self.options, self.samples(cell.dataset)
        check_device(options.device)
        identified = identity(
            cell,
            selection.source("model", cell.model, options.tier),
            samples,
            self.entries.metrics,
            tier=options.tier,
            dtype=options.dtype,
            device=options.device,
            batch_size=options.batch_size,
            learns=learnt_from(cell.model, cell.compression, self.entries.datasets, options.tier),
        )
        key = key_of(identified or {})
        if identified and options.fresh:
            self.store.forget(key)
        if identified and (stored := self.store.run(key)):
            self.reused.append(cell.id)
            return stored
        variant = self.variant(cell.model, cell.compression)
        total, answered = len(samples.items), 0

        def done(answers: int) -> None:
            nonlocal answered
            answered += answers
            progress(cell, answered, total)

        progress(cell, 0, total)
        kept = identified is not None and not self._lent
        journal = self.store.journal(key) if kept else None
        run = evaluate(
            cell,
            variant,
            samples,
            self.entries.metrics,
            tier=options.tier,
            batch_size=options.batch_size,
            journal=journal,
            done=done,
        )
        # A sample without an answer may have one the next time.
        if kept and not run.errors:
            run = self.store.keep(key, run)
        if journal:
            journal.drop()
        return run

    def baseline_path(self, cell: Cell) -> Path:
        """Where the cell's baseline is, or belongs."""
        of = selection.held_against(cell, self.options, self.entries)
        return baselines.path_of(self.options.baselines, self.options.tier, cell, of)

    def judge(self, cell: Cell, run: Run, *, written: bool = False) -> Verdict:
        """Compare a run with its baseline, which is written first where the options say so.

        `written`: that was done where the run was made.
        """
        from vlmbench.evaluate import chosen_metrics

        path, tier = self.baseline_path(cell), self.options.tier
        write = None if written else self.options.write
        if write == "update" or (write == "new" and not path.exists()):
            anchor = self.options.move_anchor
            self.written.append(update.write(path, run, cell.dataset.gates, move_anchor=anchor))
        baseline = baselines.load(path, cell.id, tier)
        metrics = chosen_metrics(cell.dataset, self.entries.metrics, tier)
        twin = self._twin(cell)
        verdict = compare(
            run,
            baselines.over_samples_of(run, baseline, metrics),
            cell.dataset.gates,
            partial=self.options.limit is not None,
            comparisons=self.planned,
            twin=twin and baselines.over_samples_of(run, twin, metrics),
            promised=getattr(cell.compression, "recovery", 0.0),
            tolerated=self.options.error_budget,
            waived=frozenset(w.metric for w in self._waivers_of(cell.id) if not w.expired),
        )
        self.verdicts[cell.id] = verdict
        return verdict

    def _twin(self, cell: Cell) -> baselines.Baseline | None:
        """The baseline of the uncompressed model, where there is a readable one."""
        plain = self.entries.compressions.get("32bit")
        if plain is None:
            return None
        path = self.baseline_path(dataclasses.replace(cell, compression=plain))
        try:
            return baselines.load(path, cell.id, self.options.tier)
        except BaselineError:
            if getattr(cell.compression, "recovery", 0.0):
                raise  # what it promises is a share of that baseline
            return None

    def accepts(self, verdict: Verdict) -> bool:
        """Whether a verdict lets its test pass."""
        failing = {"regression", "error"} | ({"inconclusive"} if self.options.strict else set())
        return verdict.status not in failing and not self.complaints(verdict)

    def complaints(self, verdict: Verdict) -> list[str]:
        """Waivers of a cell that are out of date: they fail it as a regression would."""
        # What more comparisons or fewer samples leave inconclusive is still what was waived.
        sound = {c.gate.metric for c in verdict.comparisons if c.status in ("pass", "improved")}
        if self.options.limit:
            sound = set()
        return [
            f"  waiver of {waiver} "
            + ("has expired: mend the cell, or renew it" if waiver.expired else "is not needed")
            + f" ({self._waivers_path})"
            for waiver in self._waivers_of(verdict.run.cell)
            if waiver.expired or waiver.metric in sound
        ]

    def _waivers_of(self, cell: str) -> list[gates.Waiver]:
        return [waiver for waiver in self.waivers if waiver.cell == cell]

    def settle(self) -> list[str]:
        """Cells that turn out to be regressions once all comparisons are known (Holm).

        While the session runs, each comparison is held against the strictest level (Bonferroni);
        at its end, those after the first are held against a milder one.
        """
        judged = [(cell, c) for cell, v in self.verdicts.items() for c in v.comparisons]
        values = [c.p for _, c in judged]
        values += [1.0] * (self.planned - len(values))
        late = []
        for (cell, comparison), significant in zip(judged, stats.holm(values), strict=False):
            if significant and comparison.status == "inconclusive":
                self.verdicts[cell] = settled(self.verdicts[cell], comparison)
                if comparison.gate.metric not in self.verdicts[cell].waived:
                    late.append(cell)
        self.late = list(dict.fromkeys(late))
        return self.late
