"""Baselines: what a run must not fall below. Owns the files: their form, their place, their truth.

A baseline keeps of a run what judging the next one needs, a line a sample. Its digest tells an
edit by hand; its anchor is the best it ever was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from vlmbench.errors import BaselineError
from vlmbench.files import write_whole
from vlmbench.run import Run, Scores, as_lines, one_line
from vlmbench.spec import Cell, Gate, Metric

VERSION = 4
_TOLD = ("content", "cluster", "answer")
"""What a sample's line begins with; its scores follow."""
_LOOSENED = 2
"""Margins that updates may lose, all together, before the anchor must be moved on purpose."""
_CONTENT = 4
"""Letters of a content hash that are kept: of 65,536 changed samples, one is taken for the old."""


@dataclass(frozen=True)
class Kept:
    """One sample's answer, as a baseline keeps it."""

    content: str
    """How the hash of what was shown and asked begins."""
    cluster: str
    """Told apart within one baseline only; a file numbers them."""
    answer: str
    scores: Scores


@dataclass(frozen=True)
class Baseline:
    """A run as it is kept to be compared with."""

    cell: str
    tier: str
    protocol: Mapping[str, str]
    subject: Mapping[str, str]
    environment: Mapping[str, Any]
    samples: Mapping[str, Kept]
    census: Mapping[str, Any] = field(default_factory=dict)
    health: Mapping[str, float] = field(default_factory=dict)
    footprint_bytes: int = 0
    file_bytes: int = 0
    peak_bytes: int = 0
    anchor: Scores = field(default_factory=dict)
    """The best mean that a baseline of this cell ever had, by gated metric."""
    visible: Mapping[str, float | None] = field(default_factory=dict)
    """The smallest one-way drop that one metric, judged alone, tells from chance at 1 %."""

    def mean(self, metric: str) -> float:
        """The mean score of a metric over all samples."""
        return fmean(kept.scores[metric] for kept in self.samples.values())

    @property
    def scores(self) -> Scores:
        """The mean of every metric."""
        names = next(iter(self.samples.values())).scores if self.samples else {}
        return {metric: self.mean(metric) for metric in names}

    def to_json(self) -> str:
        """JSON with a line a sample and sorted keys; equal baselines give equal text."""
        head = {name: value for name, value in asdict(self).items() if name != "samples"}
        metrics = sorted(self.scores)
        head |= {"version": VERSION, "scores": self.scores, "columns": [*_TOLD, *metrics]}
        clusters: dict[str, int] = {}
        samples = {
            name: [
                kept.content,
                clusters.setdefault(kept.cluster, len(clusters)),
                kept.answer,
                *(_short(kept.scores[metric]) for metric in metrics),
            ]
            for name, kept in sorted(self.samples.items())
        }
        digest = _digest(as_lines(head, samples, spaced=False))
        return as_lines({**head, "digest": digest}, samples, spaced=False)


def _short(score: float) -> float:
    """Most scores are all or nothing."""
    return int(score) if float(score).is_integer() else score


def of_run(
    run: Run,
    gates: tuple[Gate, ...] = (),
    visible: Mapping[str, float | None] | None = None,
    before: Baseline | None = None,
) -> Baseline:
    """What a baseline keeps of a run; the anchor of the baseline `before` it is carried on."""
    best, now = _best(before), {g.metric: round(run.mean(g.metric), 6) for g in gates}
    anchor = {metric: max(best.get(metric, mean), mean) for metric, mean in now.items()}
    return Baseline(
        cell=run.cell,
        tier=run.tier,
        protocol=run.protocol,
        subject=run.subject,
        environment=run.environment,
        samples={
            name: Kept(one.content[:_CONTENT], one.cluster, one.answer, one.scores)
            for name, one in run.samples.items()
        },
        census=run.census,
        health=run.health,
        footprint_bytes=run.footprint_bytes,
        file_bytes=run.file_bytes,
        peak_bytes=run.peak_bytes,
        anchor=anchor,
        visible=visible or {},
    )


def over_samples_of(run: Run, baseline: Baseline, metrics: Mapping[str, Metric]) -> Baseline:
    """The baseline as the run's samples alone would have it.

    What depends on all samples that are scored together is scored anew for those the run has.
    """
    names = [name for name in run.samples if name in baseline.samples]
    if len(names) == len(baseline.samples):
        return baseline
    answers = [baseline.samples[name].answer for name in names]
    references = [run.samples[name].references for name in names]
    kept = {name: dict(baseline.samples[name].scores) for name in names}
    for metric in metrics.values():
        if metric.corpus_level and metric.name in baseline.scores:
            for name, score in zip(names, metric.score(answers, references), strict=True):
                kept[name][metric.name] = score
    samples = {**baseline.samples}
    for name, scores in kept.items():
        samples[name] = replace(samples[name], scores=scores)
    return replace(baseline, samples=samples)


def _best(before: Baseline | None) -> Scores:
    """The best there was; a baseline of the first version knows only its own scores."""
    return {**before.scores, **before.anchor} if before else {}


def check_anchor(run: Run, before: Baseline | None, gates: tuple[Gate, ...]) -> None:
    """Refuse a new baseline more than two margins below the best there was.

    Raises:
        BaselineError: updates, each within its margin, would have walked the quality down.
    """
    for gate in gates if before else ():
        assert before is not None
        best, obtained = _best(before).get(gate.metric), run.mean(gate.metric)
        if best is not None and obtained < best - _LOOSENED * gate.allowed(best) - 1e-6:
            raise BaselineError(
                f"{run.cell}: {gate.metric} {obtained:.4f} is more than {_LOOSENED} margins below "
                f"{best:.4f}, the best a baseline of this cell had. If it is to stay there:  "
                + again(run.cell, run.tier, "--baseline-update --baseline-move-anchor")
            )


def path_of(folder: Path, tier: str, cell: Cell, of: str | None = None) -> Path:
    """Where the baseline of a cell is; `of` names another variant to compare with."""
    variant = of or f"{cell.model.name}_{cell.compression.name}"
    return folder / tier / cell.dataset.name / f"{variant}.json"


def again(cell: str, tier: str, option: str) -> str:
    """The command that judges a cell again with an option."""
    return f"pytest -k {cell}{in_tier(tier)} {option}"


def in_tier(tier: str) -> str:
    """What a command needs to be about a tier: nothing where it is the default."""
    return "" if tier == "embedded" else f" --tier {tier}"


def load(path: Path, cell: str, tier: str, *, edited: bool = False) -> Baseline:
    """Read the baseline of a cell; older versions of the form are read as well.

    `edited`: even one that was edited by hand, which is about to be replaced.

    Raises:
        BaselineError: there is none, it is damaged, or it was edited by hand.
    """
    from pydantic import TypeAdapter

    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        version = data.pop("version", 1)
        if version > VERSION:
            raise BaselineError(
                f"the baseline {path} is of version {version}; this vlmbench reads up to "
                f"{VERSION}. Install the vlmbench that wrote it."
            )
        if version == 1:
            data = _from_run(data)
        else:
            if not (edited or _as_written(data, version)):
                raise BaselineError(
                    f"the baseline {path} was edited after it was written. Restore it from "
                    "version control, or write it again:  " + again(cell, tier, "--baseline-update")
                )
            data = _from_file(data, version)
        if unknown := data.keys() - {known.name for known in fields(Baseline)}:
            raise KeyError(*sorted(unknown))
        found = TypeAdapter(Baseline).validate_python(data)
    except FileNotFoundError:
        own = cell.startswith(f"{path.stem}-")  # else it is another model's (--baseline-of)
        todo = (
            "Write it"
            if own
            else "Name another model, or leave --baseline-of out and write its own"
        )
        raise BaselineError(
            f"{cell} has no baseline: {path} does not exist. {todo}:  "
            + again(cell, tier, "--baseline-new")
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaselineError(
            f"the baseline {path} cannot be read ({type(error).__name__}: "
            f"{one_line(str(error))}). Restore it from version control, or write it again:  "
            + again(cell, tier, "--baseline-update")
        ) from None
    if not found.samples:
        raise BaselineError(f"the baseline {path} is empty. Write it again.")
    return found


def _from_run(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 kept whole runs, questions and references included, and no clusters."""
    kept = ("content", "answer", "scores")
    data["samples"] = {
        name: {"cluster": name} | {part: one[part] for part in kept}
        for name, one in data["samples"].items()
    }
    for name in ("scores", "seconds", "left_out"):
        del data[name]
    return data


def _as_written(data: dict[str, Any], version: int) -> bool:
    head = {name: value for name, value in data.items() if name not in ("digest", "samples")}
    text = as_lines({**head, "version": version}, data["samples"], spaced=version < 4)
    return bool(data["digest"] == _digest(text))


def _from_file(data: dict[str, Any], version: int) -> dict[str, Any]:
    """Version 2 named every field in every line; before version 4 clusters had long names."""
    del data["digest"], data["scores"]
    if version > 2:
        metrics = data.pop("columns")[len(_TOLD) :]
        data["samples"] = {
            name: {
                "content": content,
                "cluster": str(cluster),
                "answer": answer,
                "scores": dict(zip(metrics, scores, strict=True)),
            }
            for name, (content, cluster, answer, *scores) in data["samples"].items()
        }
    return data


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(path: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all."""
    write_whole(path, baseline.to_json())
