"""The only place where the axes meet: a cell goes in, a run comes out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmbench import catalogue, health, measure
from vlmbench.answering import Answer, answer
from vlmbench.checkpoint import checkpoint_digest
from vlmbench.errors import VlmbenchError
from vlmbench.prompting import turn
from vlmbench.run import Run, Scored, content_hash
from vlmbench.spec import Cell, Dataset, Metric, Sample

if TYPE_CHECKING:
    from vlmbench.samples import Samples
    from vlmbench.variant import Variant


def evaluate(
    cell: Cell,
    variant: Variant,
    samples: Samples,
    metrics: Mapping[str, Metric],
    *,
    tier: str,
    batch_size: int,
    done: Callable[[int], None] = lambda answers: None,
) -> Run:
    """Answer every sample of the cell's data set and score the answers.

    `metrics` are the catalogue's; those of the data set are used, as the tier uses them. Samples
    that cannot be answered are errors of the run; where none can, the first error is raised.
    """
    chosen = chosen_metrics(cell.dataset, metrics, tier)
    turns = {sample.id: turn(cell.dataset, sample) for sample in samples.items}
    errors: dict[str, VlmbenchError] = {}
    start = time.perf_counter()
    with measure.peak_memory(variant.device) as peak:
        answers = answer(
            variant,
            turns,
            max_new_tokens=cell.dataset.max_new_tokens,
            batch_size=batch_size,
            done=done,
            failed=errors.__setitem__,
        )
        measure.synchronise(variant.device)
    seconds = time.perf_counter() - start
    if errors and not answers:
        raise next(iter(errors.values()))
    return Run(
        cell=cell.id,
        tier=tier,
        protocol=protocol(cell, variant.processor, chosen),
        subject=subject(cell, variant),
        environment=measure.environment(variant.device),
        samples=_scored([s for s in samples.items if s.id not in errors], answers, chosen),
        errors={name: str(error) for name, error in sorted(errors.items())},
        census=variant.census.to_dict(),
        health=_health(answers),
        footprint_bytes=variant.census.footprint_bytes,
        file_bytes=variant.file_bytes,
        peak_bytes=peak.peak_bytes,
        seconds=seconds,
        left_out=samples.left_out,
    )


def chosen_metrics(dataset: Dataset, metrics: Mapping[str, Metric], tier: str) -> dict[str, Metric]:
    """The metrics of a data set, the gated ones first, as the tier uses them."""
    names = [*(gate.metric for gate in dataset.gates), *dataset.metrics]
    found = {name: catalogue.find("metric", name, metrics) for name in names}
    return {name: metric.by_tier.get(tier, metric) for name, metric in found.items()}


def protocol(cell: Cell, processor: Any, metrics: Mapping[str, Metric]) -> dict[str, str]:
    """What, beside the samples' content, must be equal for two runs to be compared."""
    dataset = cell.dataset
    return {
        "dataset": dataset.name,
        "prompt_style": dataset.prompt_style,
        "instruction": dataset.instruction,
        "chat_template": hashlib.sha256(str(processor.chat_template).encode()).hexdigest()[:12],
        "generation": f"greedy, at most {dataset.max_new_tokens} new tokens",
        **{f"metric {name}": metric.version for name, metric in metrics.items()},
    }


def subject(cell: Cell, variant: Variant) -> dict[str, str]:
    """What is judged: weights, processor, recipe, adapter."""
    return {
        "architecture": cell.model.architecture,
        "checkpoint": checkpoint_digest(variant.source),
        "recipe": repr(cell.compression),
    }


def _scored(
    samples: Sequence[Sample], answers: Mapping[str, Answer], metrics: Mapping[str, Metric]
) -> dict[str, Scored]:
    texts = [answers[sample.id].text for sample in samples]
    references = [sample.references for sample in samples]
    columns = {name: metric.score(texts, references) for name, metric in metrics.items()}
    return {
        sample.id: Scored(
            content=content_hash(sample),
            question=sample.question,
            references=sample.references,
            answer=texts[i],
            scores={name: column[i] for name, column in columns.items()},
            cluster=sample.cluster or sample.id,
        )
        for i, sample in enumerate(samples)
    }


def _health(answers: Mapping[str, Answer]) -> dict[str, float]:
    texts = [made.text for made in answers.values()]
    measured = health.measure(texts, [made.cut for made in answers.values()])
    return dict(vars(measured))
