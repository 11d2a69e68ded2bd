"""A session: which cells there are under the user's options, and each thing made at most once."""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vlmbench import baseline as baselines
from vlmbench import catalogue
from vlmbench.errors import CheckpointError, UnknownNameError, UsageError, VlmbenchError
from vlmbench.spec import Cell, Compression, Dataset, Metric, Model, Source

if TYPE_CHECKING:
    from vlmbench.run import Run
    from vlmbench.samples import Samples
    from vlmbench.variant import Variant

T = TypeVar("T")
Progress = Callable[[Cell, int, int], None]
"""(cell, samples done, samples in all); called with 0 done before the first."""


@dataclass(frozen=True)
class Options:
    """What a user can ask for on the command line."""

    tier: str = "embedded"
    models: tuple[str, ...] = ()
    """NAME or NAME=FOLDER_OR_ID; empty: all."""
    compressions: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    """NAME or NAME=FOLDER_OR_ID; empty: all."""
    limit: int | None = None
    device: str = "cpu"
    dtype: str | None = None
    batch_size: int = 64
    baselines: Path = Path("baselines")
    baseline_of: str | None = None
    write: str | None = None
    """None, `new` (write missing baselines) or `update` (rewrite them)."""


@dataclass(frozen=True)
class Entries:
    """The four axes, a user's own entries included."""

    models: Mapping[str, Model]
    compressions: Mapping[str, Compression]
    datasets: Mapping[str, Dataset]
    metrics: Mapping[str, Metric]


def catalogued(
    models: Iterable[Model] = (),
    compressions: Iterable[Compression] = (),
    datasets: Iterable[Dataset] = (),
    metrics: Iterable[Metric] = (),
) -> Entries:
    """The catalogue with further entries."""
    return Entries(
        catalogue.models(models),
        catalogue.compressions(compressions),
        catalogue.datasets(datasets),
        catalogue.metrics(metrics),
    )


@dataclass
class Bench:
    """Everything a test session shares: one loaded variant, the samples read, the runs made."""

    options: Options
    entries: Entries
    loads: Counter[str] = field(default_factory=Counter)
    """How often each variant was loaded."""
    verdicts: dict[str, baselines.Verdict] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    latencies: dict[str, float] = field(default_factory=dict)
    """Median seconds an answer takes in a probe batch, by cell."""
    _loaded: Variant | None = None
    _samples: dict[str, Samples] = field(default_factory=dict)
    _failed: dict[str, VlmbenchError] = field(default_factory=dict)
    """Why a cell has no run: told to each of its tests, not found out again."""

    def __post_init__(self) -> None:
        self.models = _chosen("model", self.options.models, self.entries.models, self._adopt)
        self.datasets = _chosen(
            "data set", self.options.data, self.entries.datasets, self._redirect
        )
        self.compressions = [
            catalogue.find("compression", name, self.entries.compressions)
            for name in self.options.compressions or self.entries.compressions
        ]
        if self.options.limit is not None and self.options.limit < 1:
            raise UsageError(f"--limit must be at least 1, got {self.options.limit}")
        if self.options.limit is not None and self.options.write:
            raise UsageError("a baseline is written from all samples: leave --limit out")
        if self.options.batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, got {self.options.batch_size}")
        if self.options.baseline_of and self.options.write:
            raise UsageError("--baseline-of compares only: it never writes another's baseline")
        self._check_axes()

    def cells(self) -> list[Cell]:
        """Every pair that can run, variant by variant; what no model claims, any may answer."""
        claimed = {name for model in self.entries.models.values() for name in model.datasets}
        return [
            Cell(model, compression, dataset)
            for model in self.models
            for compression in self.compressions
            for dataset in self.datasets
            if dataset.name in model.datasets or dataset.name not in claimed
        ]

    def variant(self, model: Model, compression: Compression) -> Variant:
        """The loaded variant; the one before it is dropped first."""
        from vlmbench.variant import load

        wanted = f"{model.name}_{compression.name}"
        if self._loaded is None or self._loaded.name != wanted:
            self._loaded = None
            # pytest keeps the frames of a failed test, and with them its variant, for a debugger.
            for kept in ("last_value", "last_traceback", "last_exc"):
                setattr(sys, kept, None)
            gc.collect()
            options = self.options
            source = self._source("model", model)
            self.loads[wanted] += 1
            self._loaded = load(
                model, compression, source, device=options.device, dtype=options.dtype
            )
        return self._loaded

    def samples(self, dataset: Dataset) -> Samples:
        """The data set's samples, read once."""
        from vlmbench.samples import read

        if dataset.name not in self._samples:
            source = self._source("data set", dataset)
            self._samples[dataset.name] = read(dataset, source, limit=self.options.limit)
        return self._samples[dataset.name]

    def run(self, cell: Cell, progress: Progress = lambda cell, done, total: None) -> Run:
        """The cell's run, made once, whether it succeeds or not."""
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
        from vlmbench.evaluate import evaluate

        samples = self.samples(cell.dataset)
        variant = self.variant(cell.model, cell.compression)
        total, answered = len(samples.items), 0

        def done(answers: int) -> None:
            nonlocal answered
            answered += answers
            progress(cell, answered, total)

        progress(cell, 0, total)
        return evaluate(
            cell,
            variant,
            samples,
            self.entries.metrics,
            tier=self.options.tier,
            batch_size=self.options.batch_size,
            done=done,
        )

    def baseline_path(self, cell: Cell) -> Path:
        """Where the cell's baseline is, or belongs."""
        options = self.options
        return baselines.path_of(options.baselines, options.tier, cell, options.baseline_of)

    def judge(self, cell: Cell, run: Run) -> baselines.Verdict:
        """Compare a run with its baseline, which is written first where the options say so."""
        path = self.baseline_path(cell)
        write = self.options.write
        if write == "update" or (write == "new" and not path.exists()):
            baselines.save(path, run)
        verdict = baselines.compare(
            run,
            baselines.load(path, f"{path.stem}-{cell.dataset.name}", self.options.tier),
            cell.dataset.gates,
            partial=self.options.limit is not None,
        )
        self.verdicts[cell.id] = verdict
        return verdict

    def _check_axes(self) -> None:
        axes: dict[str, Sequence[Model | Compression | Dataset]] = {
            "model": self.models,
            "compression": self.compressions,
            "data set": self.datasets,
        }
        for kind, entries in axes.items():
            for name, count in Counter(entry.name for entry in entries).items():
                if count > 1:
                    raise UsageError(f"{kind} {name!r} is named {count} times: name it once")
        if not self.cells():
            models, _, datasets = (", ".join(e.name for e in entries) for entries in axes.values())
            raise UsageError(f"nothing to run: no model ({models}) answers the data ({datasets})")

    def _source(self, kind: str, entry: Model | Dataset) -> Source:
        try:
            return entry.sources[self.options.tier]
        except KeyError:
            raise UsageError(
                f"{kind} {entry.name!r} is not in tier {self.options.tier!r}; it is in "
                f"{', '.join(entry.sources)}. Choose that tier, or leave it out."
            ) from None

    def _adopt(self, name: str, where: str) -> Model:
        """A catalogued model from another address, or a new name for a known architecture."""
        source = Source(where)
        if name in self.entries.models:
            model = self.entries.models[name]
        else:
            architecture = _architecture(where)
            known = {m.architecture: m for m in self.entries.models.values()}
            if architecture not in known:
                raise UsageError(
                    f"--model {name}={where}: no adapter for architecture {architecture!r}; there "
                    f"are adapters for {', '.join(sorted(known))}. Add one (README, add a model)."
                )
            model = known[architecture]
        return dataclasses.replace(model, name=name, sources={self.options.tier: source})

    def _redirect(self, name: str, where: str) -> Dataset:
        dataset = catalogue.find("data set", name, self.entries.datasets)
        return dataclasses.replace(dataset, sources={self.options.tier: Source(where)}, demos=())


def _chosen(
    kind: str, wanted: tuple[str, ...], entries: Mapping[str, T], adopt: Callable[[str, str], T]
) -> list[T]:
    if not wanted:
        return list(entries.values())
    chosen = []
    for entry in wanted:
        name, equals, where = entry.partition("=")
        if equals and not (name and where):
            raise UsageError(f"{entry!r}: expected NAME or NAME=FOLDER_OR_ID for a {kind}")
        if not equals and name not in entries:
            raise UnknownNameError(kind, name, entries)
        chosen.append(adopt(name, where) if equals else entries[name])
    return chosen


def _architecture(where: str) -> str:
    """The class that a checkpoint's config.json names."""
    path = Path(where).expanduser() / "config.json"
    if not path.parent.is_dir() and not path.parent.is_absolute():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(where, "config.json"))
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise CheckpointError(
                f"no checkpoint {where!r}: it is no folder here, and the hub cannot be asked "
                f"({type(error).__name__}). Name a folder that save_pretrained wrote."
            ) from None
    try:
        return str(json.loads(path.read_text())["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Expected the config.json of "
            "a checkpoint as save_pretrained writes it."
        ) from None
