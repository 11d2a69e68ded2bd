"""The only place where the axes meet: a cell goes in, a run comes out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench import catalogue, health, measure, video
from vlmbench.anatomy import LLAMA_LIKE, SMOOTHING
from vlmbench.answering import Answer, answer
from vlmbench.checkpoint import checkpoint_digests
from vlmbench.errors import VlmbenchError
from vlmbench.files import content_of
from vlmbench.products import products
from vlmbench.prompting import turns
from vlmbench.provenance import add_files
from vlmbench.run import Run, Scored
from vlmbench.samples import choices_hash, content_hash, source_hash
from vlmbench.shipped import parts_of
from vlmbench.spec import Cell, Compression, Dataset, Maker, Metric, Model, Sample, Source

if TYPE_CHECKING:
    from vlmbench.artifacts import Journal
    from vlmbench.samples import Samples
    from vlmbench.variant import Variant

_PACKAGE = Path(__file__).resolve().parent


def evaluate(
    cell: Cell,
    variant: Variant,
    samples: Samples,
    metrics: Mapping[str, Metric],
    *,
    tier: str,
    batch_size: int,
    journal: Journal | None = None,
    done: Callable[[int], None] = lambda answers: None,
) -> Run:
    """Answer every sample of the cell's data set and score the answers.

    `metrics` are the catalogue's; those of the data set are used, as the tier uses them. Samples
    that cannot be answered are errors of the run; where none can, the first error is raised.
    What stands in `journal` is not answered again; what is answered is added to it.
    """
    chosen = chosen_metrics(cell.dataset, metrics, tier)
    asked = turns(cell.dataset, samples.items, cell.model, samples.choices)
    errors: dict[str, VlmbenchError] = {}
    lines = list(journal.lines()) if journal else []
    known = {name: Answer(**made) for line in lines for name, made in line["answers"].items()}
    seconds, high = sum(li["seconds"] for li in lines), max([0, *(li["peak"] for li in lines)])
    ran = lines[-1]["products"] if lines else {}
    start = time.perf_counter()

    def keep(made: Mapping[str, Answer]) -> None:
        nonlocal start, seconds, high, ran
        took = time.perf_counter() - start
        start, seconds = start + took, seconds + took
        high = max(high, measure.peak_bytes(variant.device))
        ran = products(variant.network)  # now that it has run; a resumed run may have nothing to do
        if journal:
            answers = {name: asdict(answer) for name, answer in made.items()}
            journal.add({"seconds": took, "peak": high, "products": ran, "answers": answers})

    with measure.peak_memory(variant.device) as peak:
        answers = answer(
            variant,
            asked,
            max_new_tokens=cell.dataset.max_new_tokens,
            batch_size=batch_size,
            done=done,
            failed=errors.__setitem__,
            known=known,
            keep=keep,
        )
    if errors and not answers:
        raise next(iter(errors.values()))
    return Run(
        cell=cell.id,
        tier=tier,
        protocol=protocol(cell, variant, chosen, samples),
        subject=subject(cell.model, cell.compression, variant.source, variant.dtype),
        environment=measure.environment(variant.device),
        samples=_scored([s for s in samples.items if s.id not in errors], answers, chosen),
        errors={name: str(error) for name, error in sorted(errors.items())},
        census=variant.census.to_dict(),
        products=ran,
        health=_health(answers),
        footprint_bytes=variant.census.footprint_bytes,
        file_bytes=variant.file_bytes,
        peak_bytes=max(high, peak.peak_bytes),
        seconds=seconds,
        left_out=samples.left_out,
    )


def identity(
    cell: Cell,
    source: Source,
    samples: Samples,
    metrics: Mapping[str, Metric],
    *,
    tier: str,
    dtype: str | None,
    device: str,
    batch_size: int,
    learns: Any = None,
) -> dict[str, Any] | None:
    """All that could change the cell's run, known before anything is loaded; None: unknown.

    The chat template is one of the files that the subject hashes, or part of the adapter.
    `learns`: of a recipe that makes a checkpoint, `learnt_from`.
    """
    chosen = chosen_metrics(cell.dataset, metrics, tier)
    made = origin(
        cell.model,
        cell.compression,
        source,
        dtype=dtype,
        device=device,
        makers=[*_read_by(cell.dataset), *(metric.score for metric in chosen.values())],
        learns=learns,
    )
    return made and {
        **made,
        "cell": cell.id,
        "tier": tier,
        "protocol": _asked(cell, chosen, samples),
        "samples": [[sample.id, sample.cluster, source_hash(sample)] for sample in samples.items],
        "left_out": samples.left_out,
        "batch_size": batch_size,
    }


def origin(
    model: Model,
    compression: Compression,
    source: Source,
    *,
    dtype: str | None,
    device: str,
    makers: Sequence[Any] = (),
    learns: Any = None,
) -> dict[str, Any] | None:
    """What a variant is made of and where: subject, code, device, versions; None: unknown.

    `makers` are a user's own that have a part in it, beside the compression; `learns` is
    `learnt_from`, where a recipe learns.
    """
    written = sources(type(compression), *makers)
    if written is None or None in (learns or []):
        return None
    environment = measure.environment(device)
    return {
        "subject": subject(model, compression, source, dtype),
        "sources": written,
        "device": device.split(":")[0],
        "environment": {name: environment[name] for name in measure.DECISIVE},
        **({"learns": learns} if learns else {}),
    }


def learnt_from(
    model: Model, recipe: Compression, datasets: Mapping[str, Dataset], tier: str
) -> list[Any] | None:
    """What a recipe could learn from: the data sets that the model answers, and who reads them.

    Test splits are part of it: what is in them is not learnt. None: it makes no checkpoint.
    """
    if not any(isinstance(part, Maker) for part in parts_of(recipe)):
        return None
    known = [datasets[name] for name in model.datasets if name in datasets]
    splits = [[one.name, repr(one.sources.get(tier)), repr(one.train.get(tier))] for one in known]
    return [tier, splits, sources(*(read for one in known for read in _read_by(one)))]


def sources(*makers: Any) -> str | None:
    """Hash of this package's code and of the files that a user's own makers are written in.

    None where those cannot be found out: what cannot be seen may have changed.
    """
    files = set(_PACKAGE.rglob("*.py"))
    if not all([add_files(maker, files) for maker in makers]):
        return None
    return hashlib.sha256("".join(map(content_of, sorted(files))).encode()).hexdigest()[:16]


def _read_by(dataset: Dataset) -> list[Any]:
    return [dataset.read, dataset.choose] if dataset.choose else [dataset.read]


def chosen_metrics(dataset: Dataset, metrics: Mapping[str, Metric], tier: str) -> dict[str, Metric]:
    """The metrics of a data set, the gated ones first, as the tier uses them."""
    names = [*(gate.metric for gate in dataset.gates), *dataset.metrics]
    found = {name: catalogue.find("metric", name, metrics) for name in names}
    return {name: metric.by_tier.get(tier, metric) for name, metric in found.items()}


def protocol(
    cell: Cell, variant: Variant, metrics: Mapping[str, Metric], samples: Samples
) -> dict[str, str]:
    """What, beside the samples' content, must be equal for two runs to be compared."""
    template = hashlib.sha256(str(variant.processor.chat_template).encode()).hexdigest()[:12]
    return {
        **_asked(cell, metrics, samples),
        "chat_template": template,
        "decoding": variant.decoding,
    }


def _asked(cell: Cell, metrics: Mapping[str, Metric], samples: Samples) -> dict[str, str]:
    dataset, choices = cell.dataset, samples.choices
    samplings = sorted({str(sample.clip.sampling) for sample in samples.items if sample.clip})
    unasked = dataset.captions and cell.model.captions_unasked
    return {
        **({"frames": ", ".join(samplings)} if samplings else {}),
        **({"choices": f"{len(choices.texts)}, {choices_hash(choices)}"} if choices else {}),
        **({"question": "none: what is shown is gone on from"} if unasked else {}),
        "dataset": dataset.name,
        "prompt_style": dataset.prompt_style,
        "instruction": dataset.instruction,
        "max_new_tokens": str(dataset.max_new_tokens),
        **{f"metric {name}": metric.version for name, metric in metrics.items()},
    }


def subject(
    model: Model, compression: Compression, source: Source, dtype: str | None
) -> dict[str, str]:
    """What is judged: weights, processor configuration, recipe, adapter."""
    adapter = repr((model.architecture, model.anatomy, model.watching))
    if (model.anatomy.feeds, model.anatomy.smoothing) != (LLAMA_LIKE, SMOOTHING):
        adapter += repr((model.anatomy.feeds, model.anatomy.smoothing))
    if model.template or model.anatomy.kept:
        adapter += repr((model.template, model.anatomy.kept))
    return {
        **checkpoint_digests(source),
        "recipe": _described(compression),
        "dtype": dtype or "as the recipe says",
        "adapter": f"{model.architecture} {hashlib.sha256(adapter.encode()).hexdigest()[:12]}",
    }


def _described(recipe: Any) -> str:
    """As `repr`, but that sets are in order: theirs changes from process to process."""
    if isinstance(recipe, frozenset | set):
        parts = ", ".join(sorted(map(_described, recipe)))
        return f"{type(recipe).__name__}({{{parts}}})"
    if is_dataclass(recipe) and not isinstance(recipe, type):
        parts = ", ".join(f"{f.name}={_described(getattr(recipe, f.name))}" for f in fields(recipe))
        return f"{type(recipe).__name__}({parts})"
    return repr(recipe)


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
            scores={name: float(column[i]) for name, column in columns.items()},
            cluster=sample.cluster or sample.id,
            frames=video.seen(sample.clip).frames if sample.clip else 0,
        )
        for i, sample in enumerate(samples)
    }


def _health(answers: Mapping[str, Answer]) -> dict[str, float]:
    texts = [made.text for made in answers.values()]
    measured = health.measure(texts, [made.cut for made in answers.values()])
    return dict(vars(measured))
