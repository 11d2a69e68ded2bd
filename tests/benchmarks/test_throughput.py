"""What batching is worth: answers a second one by one, and in batches, side by side."""

import pytest

from vlmbench.answering import answer
from vlmbench.prompting import turn

SAMPLES = 128


@pytest.mark.cells(models=["qwen2"], compressions=["32bit"], datasets=["docvqa"])
@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_throughput(variant, dataset, bench, benchmark, batch_size):
    samples = bench.samples(dataset).items[:SAMPLES]
    turns = {s.id: turn(dataset, s, variant.model) for s in samples}
    tokens = dataset.max_new_tokens

    def work():
        return answer(variant, turns, max_new_tokens=tokens, batch_size=batch_size)

    benchmark.group = "throughput"
    answers = benchmark.pedantic(work, rounds=3, warmup_rounds=1)
    assert len(answers) == len(turns)
    if benchmark.stats is not None:
        benchmark.extra_info["answers_per_s"] = len(turns) / benchmark.stats.stats.median
