"""The product: on every cell, the answers are no worse than the stored baseline."""

from vlmbench.probe import measure_probe


def test_regression(run, baseline, variant, dataset, bench, benchmark):
    """Also records how fast a fixed probe batch is answered, in pytest-benchmark's history."""
    measure_probe(benchmark, run, variant, dataset, bench)
    assert run >= baseline
