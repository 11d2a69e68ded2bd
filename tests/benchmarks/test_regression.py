"""The product: on every cell, the answers are no worse than the stored baseline."""

from vlmbench.probe import measure_probe
from vlmbench.verdict import plain


def test_regression(run, baseline, bench, benchmark):
    """Also records how fast a fixed probe batch is answered, in pytest-benchmark's history."""
    measure_probe(benchmark, run, bench)  # first: pytest-benchmark complains of what it never timed
    benchmark.extra_info["verdict"] = plain(baseline.judge(run))
    assert run >= baseline
