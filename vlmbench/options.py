"""What a user asks for, and the catalogue it is asked of: plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmbench import catalogue
from vlmbench.spec import Compression, Dataset, Metric, Model


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
    error_budget: int = 0
    """How many samples of a cell may be without an answer."""
    strict: bool = False
    """Whether what is inconclusive fails as well."""
    move_anchor: bool = False
    """Whether a baseline may be written far below the best there was."""
    margins: tuple[str, ...] = ()
    """METRIC=VALUE or DATASET.METRIC=VALUE: the drop that is forgiven."""
    floors: tuple[str, ...] = ()
    """As `margins`: the mean that must be reached, whatever the baseline is."""


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
