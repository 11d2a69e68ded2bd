"""How fast a cell answers: a fixed probe batch, measured through pytest-benchmark."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmbench import measure
from vlmbench.answering import answer
from vlmbench.prompting import encode, turns

if TYPE_CHECKING:
    from vlmbench.bench import Bench
    from vlmbench.run import Run

PROBE = 8
"""Samples of the probe batch: the data set's first."""
ROUNDS = 5


def measure_probe(benchmark: Any, run: Run, bench: Bench) -> None:
    """Time the probe batch end to end, and store beside it what the run and its parts gave.

    `extra_info` holds the latency of prefill and of each decoded token at a fixed token count,
    every score, which products ran, footprint, file bytes, peak memory and answers a second. Where
    pytest-benchmark measures nothing (off, or under pytest-xdist) the model is not even loaded.
    """
    cell = bench.cell(run.cell)
    dataset = cell.dataset
    benchmark.group = dataset.name
    benchmark.extra_info.update(
        cell=run.cell,
        of=[cell.model.name, cell.compression.name, dataset.name],
        tier=run.tier,
        scores=run.scores,
        health=dict(run.health),
        products=dict(run.products),
        footprint_bytes=run.footprint_bytes,
        file_bytes=run.file_bytes,
        peak_bytes=run.peak_bytes,
        samples_per_s=run.samples_per_s,
        environment=dict(run.environment),
    )
    if benchmark.disabled:
        benchmark(lambda: None)  # else pytest-benchmark asks why it was not used
        return
    samples = bench.samples(dataset)
    first = [sample for sample in samples.items[:PROBE] if sample.id not in run.errors]
    asked = turns(dataset, first, cell.model, samples.choices)
    if not asked:
        return
    variant = bench.variant(cell.model, cell.compression)

    def end_to_end() -> None:
        answer(variant, asked, max_new_tokens=dataset.max_new_tokens, batch_size=PROBE)
        measure.synchronise(variant.device)

    benchmark.pedantic(end_to_end, rounds=ROUNDS, warmup_rounds=1)
    bench.latencies[run.cell] = benchmark.stats.stats.median / len(asked)
    benchmark.extra_info.update(probe_samples=len(asked), made_s=variant.made_s)
    if dataset.choose:
        return  # nothing is decoded
    unhurried = replace(variant, time_limit_s=None)  # what is cut short measures nothing
    parts = measure.latency(unhurried, encode(variant.processor, list(asked.values())))
    benchmark.extra_info.update(
        prefill_s=parts.prefill_s,
        decode_s_per_token=parts.decode_s_per_token,
    )
