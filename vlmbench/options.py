"""What a user asks for, and the catalogue it is asked of: plain data."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmbench import catalogue
from vlmbench.errors import UsageError
from vlmbench.spec import Compression, Dataset, Metric, Model


@dataclass(frozen=True)
class Options:
    """What a user can ask for on the command line."""

    tier: str = "embedded"
    models: tuple[str, ...] = ()
    """NAME or NAME=FOLDER_OR_ID; empty: all."""
    compressions: tuple[str, ...] = ()
    matrix: str = "default"
    """`full`: recipes that make checkpoints are judged where they have no baseline, too."""
    data: tuple[str, ...] = ()
    """NAME or NAME=FOLDER_OR_ID; empty: all."""
    limit: int | None = None
    device: str = "cpu"
    dtype: str | None = None
    batch_size: int = 64
    time_limit: float | None = None
    """Seconds that answering a batch may take; samples without an answer by then are errors."""
    baselines: Path = Path("baselines")
    baseline_of: str | None = None
    write: str | None = None
    """None, `new` (write missing baselines) or `update` (rewrite them)."""
    error_budget: int = 0
    """How many samples of a cell may be without an answer."""
    strict: bool = False
    """Whether what is inconclusive fails as well."""
    fresh: bool = False
    """Whether every answer is generated again, whatever earlier sessions left."""
    cache: Path | None = None
    """Where runs are kept between sessions; None: the user's cache folder."""
    move_anchor: bool = False
    """Whether a baseline may be written far below the best there was."""
    margins: tuple[str, ...] = ()
    """METRIC=VALUE or DATASET.METRIC=VALUE: the drop that is forgiven."""
    floors: tuple[str, ...] = ()
    """As `margins`: the mean that must be reached, whatever the baseline is."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit must be at least 1, got {self.limit}")
        if self.limit is not None and self.write:
            raise UsageError("a baseline is written from all samples: leave --limit out")
        if self.error_budget < 0:
            raise UsageError(f"--error-budget must not be negative: {self.error_budget}")
        if self.move_anchor and self.write != "update":
            raise UsageError("--baseline-move-anchor goes with --baseline-update")
        if self.time_limit is not None and not 0 < self.time_limit < math.inf:
            raise UsageError(f"--time-limit must be above 0 seconds, got {self.time_limit}")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, got {self.batch_size}")
        if self.baseline_of and self.write:
            raise UsageError("--baseline-of compares only: it never writes another's baseline")

    def told(self, message: str) -> str:
        """A message whose commands name what this session alone knows by its options.

        Where another model's baselines are compared with, what can be written are its own.
        """
        named = [f"--model {m}" for m in self.models if "=" in m]
        named += [f"--data {d}" for d in self.data if "=" in d]
        named += [f"--compression {c}" for c in self.compressions]
        named += [] if self.baselines == Options.baselines else [f"--baselines {self.baselines}"]
        named += [f"--device {self.device}"] if self.device != Options.device else []
        named += [f"--dtype {self.dtype}"] if self.dtype else []
        command = shlex.join(["pytest", *(word for one in named for word in one.split(" ", 1))])
        if self.baseline_of:
            message = message.replace("--baseline-update", "--baseline-new")
        return message.replace("pytest -k ", f"{command} -k ")


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
