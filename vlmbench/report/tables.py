"""The tables that published work shows, from stored baselines: scores, recovery, sizes.

Seconds come from a benchmark history, where one is named: baselines of several days and machines
keep none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vlmbench import baseline as baselines
from vlmbench.baseline import Baseline
from vlmbench.errors import BaselineError
from vlmbench.report.latencies import Times
from vlmbench.report.published import Finding, Judged, Runs, judge, standard_error
from vlmbench.run import one_line

_SIZES = {"weights MB": "footprint_bytes", "files MB": "file_bytes"}


@dataclass(frozen=True)
class Section:
    """One table: which compressions stand side by side."""

    key: str
    title: str
    compressions: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    """() is all that the model has runs on."""
    scores: bool = True


_PRECISIONS = ("32bit", "16bit", "8bit", "4bit")
_CROSSED = ("docvqa", "vqav2", "scienceqa")
SECTIONS = (
    Section("quantization", "Scores by quantization", _PRECISIONS),
    Section("sizes", "Sizes by quantization", _PRECISIONS, scores=False),
    Section(
        "pruning",
        "Pruning: before, pruned, pruned and fine-tuned",
        tuple("32bit ft depth50 depth50_ft depth25bi depth25bi_ft prune24".split()),
    ),
    Section(
        "cross",
        "Half of the layers dropped, fine-tuned on one data set, judged on each",
        ("32bit", "depth50", *(f"depth50_ft_on_{name}" for name in _CROSSED)),
        _CROSSED,
    ),
    Section(
        "lowrank",
        "Low rank",
        tuple("32bit ft lowrank80 lowrank80_ft lowrank50 lowrank50_ft depth50_ft 8bit".split()),
    ),
    Section(
        "awq",
        "AWQ: searched factors, a fixed factor, rounding",
        tuple("32bit 16bit rtn_w4a16 awqs2_w4a16 awq_w4a16 rtn_w3a16 awq_w3a16".split()),
    ),
    Section(
        "smoothquant",
        "SmoothQuant by granularity",
        tuple("32bit w8a8_tensor sq_w8a8_tensor sq_w8a8_token sq_w8a8_group sq_w4a4_group".split()),
    ),
    Section(
        "whitened",
        "Whitened against plain low rank",
        ("32bit", "lowrankp60", "lowrankp60w", "lowrank80", "lowrank80w"),
    ),
    Section(
        "influence",
        "Block influence against every other layer",
        ("32bit", "depth50", "depth50bi", "depth50_ft", "depth50bi_ft"),
    ),
    Section(
        "chains",
        "Quantized with the decoder alone, and after fine-tuning",
        (
            *"32bit 8bit lm8bit 4bit lm4bit qat4bit depth50_ft depth50_ft+4bit".split(),
            *"lowrank80_ft lowrank80_ft+8bit lowrank80_ft+4bit".split(),
        ),
    ),
)


@dataclass(frozen=True)
class Table:
    """A section's cells and findings."""

    section: Section
    rows: tuple[tuple[str, ...], ...]
    """Model, data set, metric, and a cell for each compression."""
    missing: tuple[tuple[str, str, str], ...]
    """Model, data set and compression of each cell that has no stored run."""
    judged: tuple[Judged, ...]


def read(folder: Path, tier: str) -> Runs:
    """The stored runs of a tier that the tables show, of models that have an uncompressed one.

    Raises:
        BaselineError: there are none, or one is damaged or of another cell.
    """
    wanted = list(dict.fromkeys(name for section in SECTIONS for name in section.compressions))
    paths = sorted((folder / tier).glob("*/*.json"))
    models = dict.fromkeys(p.stem[:-6] for p in paths if p.stem.endswith(("_32bit", "_16bit")))
    stems = {f"{model}_{name}": (model, name) for model in models for name in wanted}
    runs = {
        (stems[path.stem][0], path.parent.name, stems[path.stem][1]): _loaded(path, tier)
        for path in paths
        if path.stem in stems
    }
    if not runs:
        raise BaselineError(
            f"{folder / tier} holds no baseline that a table shows: expected files such as "
            "docvqa/qwen2_32bit.json. Name the folder:  vlmbench tables --baselines DIR"
        )
    return runs


def _loaded(path: Path, tier: str) -> Baseline:
    cell = f"{path.stem}-{path.parent.name}"
    found = baselines.load(path, cell, tier)
    if (found.cell, found.tier) != (cell, tier):
        raise BaselineError(
            f"the baseline {path} is of {found.cell} ({found.tier}), expected {cell} ({tier}). "
            "Put it back where it was."
        )
    metrics = set(next(iter(found.samples.values())).scores)
    for name, kept in found.samples.items():
        if set(kept.scores) != metrics or not all(map(math.isfinite, kept.scores.values())):
            raise BaselineError(
                f"the baseline {path}: sample {one_line(name)} lacks a finite score for each of "
                f"{', '.join(sorted(metrics))}. Restore it from version control."
            )
    return found


def tables(runs: Runs, known: Iterable[Finding], times: Times | None = None) -> list[Table]:
    """Every table of `SECTIONS`; of `times`, those of cells with a stored run are shown."""
    known = tuple(known)
    return [_table(section, runs, known, times or {}) for section in SECTIONS]


def absent(runs: Runs, known: Iterable[Finding]) -> list[str]:
    """Models with published figures and no stored run."""
    published = dict.fromkeys(model for finding in known for model in finding.figures)
    return [model for model in published if model not in {model for model, _, _ in runs}]


def _table(section: Section, runs: Runs, known: Iterable[Finding], times: Times) -> Table:
    rows: list[tuple[str, ...]] = []
    missing: list[tuple[str, str, str]] = []
    judged: list[Judged] = []
    mine = [finding for finding in known if finding.section == section.key]
    own = set(section.compressions) - set(_PRECISIONS)
    for model in dict.fromkeys(model for model, _, _ in runs):
        places = section.datasets or tuple(dict.fromkeys(d for m, d, _ in runs if m == model))
        cells = [(model, d, name) for d in places for name in section.compressions]
        missing += [cell for cell in cells if cell not in runs]
        # Of a model that has none of what a table is about, its precisions are in another.
        if own and not any(cell in runs for cell in cells if cell[2] in own):
            continue
        for dataset in places if section.scores else ():
            rows += _score_rows(section, runs, model, dataset)
        rows += _size_rows(section, runs, model, places)
        rows += _time_rows(section, times, model, places)
        judged += [one for finding in mine for one in judge(finding, runs, model, times)]
    return Table(section, tuple(rows), tuple(missing), tuple(judged))


def _score_rows(
    section: Section, runs: Runs, model: str, dataset: str
) -> Iterator[tuple[str, ...]]:
    found = [runs.get((model, dataset, name)) for name in section.compressions]
    base = _base(runs, model, dataset)
    metrics = dict.fromkeys(m for run in found if run for m in run.anchor or run.scores)
    counts = sorted({len(run.samples) for run in found if run})
    for metric in metrics or ["-"]:
        place = f"{dataset} (n {'/'.join(map(str, counts)) or '-'})"
        yield model, place, metric, *(_score(run, base, metric) for run in found)


def _score(run: Baseline | None, base: Baseline | None, metric: str) -> str:
    if run is None or metric not in run.scores:
        return "-"
    kept = {name: one.scores[metric] for name, one in run.samples.items()}
    shown = f"{fmean(kept.values()):.3f} ± {standard_error(kept, run):.3f}"
    whole = base.scores.get(metric, 0.0) if base else 0.0
    return f"{shown} ({100 * fmean(kept.values()) / whole:.1f} %)" if whole else shown


def _size_rows(
    section: Section, runs: Runs, model: str, places: Iterable[str]
) -> Iterator[tuple[str, ...]]:
    """A variant is as large on one data set as on another: the first is shown."""
    sized = {d: _base(runs, model, d) for d in places}
    for shown, name in _SIZES.items():
        sizes = [
            next((getattr(runs[key], name) for d in sized if (key := (model, d, c)) in runs), 0)
            for c in section.compressions
        ]
        whole = next((getattr(base, name) for base in sized.values() if base), 0)
        yield (
            *(model, "all", shown),
            *(
                f"{size / 1e6:.2f}" + (f" ({100 * size / whole:.1f} %)" if whole else "")
                if size
                else "-"
                for size in sizes
            ),
        )


def _time_rows(
    section: Section, times: Times, model: str, places: Iterable[str]
) -> Iterator[tuple[str, ...]]:
    """Of every data set that was timed; how long a variant took to make, once."""
    made: dict[str, float] = {}
    for dataset in places:
        found = {c: times.get((model, dataset, c)) for c in section.compressions}
        made |= {c: time.made_s for c, time in found.items() if time and time.made_s}
        if any(found.values()):
            milliseconds = (f"{1e3 * t.answer_s:.1f}" if t else "-" for t in found.values())
            yield model, dataset, "ms an answer", *milliseconds
    if made:
        yield (
            *(model, "all", "seconds to make"),
            *(f"{made[c]:.0f}" if c in made else "-" for c in section.compressions),
        )


def _base(runs: Runs, model: str, dataset: str) -> Baseline | None:
    """What recovery is a share of: the uncompressed model, of 16 bit where 32 is not stored."""
    return runs.get((model, dataset, "32bit")) or runs.get((model, dataset, "16bit"))
