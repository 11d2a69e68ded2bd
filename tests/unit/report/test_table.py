"""The table fits its terminal, and says variant, gated metrics and verdict whatever the width."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vlmbench import baseline, verdict
from vlmbench.bench import Bench
from vlmbench.models.qwen2 import QWEN2
from vlmbench.options import Options, catalogued
from vlmbench.report.table import render
from vlmbench.run import Run, Scored
from vlmbench.spec import Cell, Model

LONG = replace(QWEN2, name="video_llava_next")
HEADLINE = ("32bit", "16bit", "8bit", "4bit", "lm8bit", "lm4bit")


def run_of(cell: Cell, score: float) -> Run:
    first, second = (gate.metric for gate in cell.dataset.gates)
    scored = Scored("h", "q", ("r",), f"{score}", {first: 0.875, second: score})
    samples = {f"s{i}": scored for i in range(20)}
    made = Run(cell.id, "embedded", {}, {}, {}, samples)
    return replace(made, footprint_bytes=8_835_940_000, seconds=0.2)


def session(*models: Model) -> Bench:
    """Every cell is run; all but those on ScienceQA are judged and timed."""
    names = tuple(m.name for m in models)
    made = Bench(Options(models=names, compressions=HEADLINE), catalogued(models=[LONG]))
    for cell in made.cells():
        now = run_of(cell, {"4bit": 0.375, "8bit": 0.75}.get(cell.compression.name, 0.5))
        made.runs[cell.id] = now
        if cell.dataset.name != "scienceqa":
            gates = cell.dataset.gates
            made.verdicts[cell.id] = verdict.compare(now, baseline.of_run(run_of(cell, 0.5)), gates)
            made.latencies[cell.id] = 1.234
    return made


@pytest.fixture
def bench() -> Bench:
    return session(QWEN2, LONG)


@pytest.mark.parametrize("width", [200, 80, 60, 40, 30])
def test_no_line_is_wider_than_the_terminal(bench: Bench, width: int) -> None:
    assert max(map(len, render(bench, width).splitlines())) <= width


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_it_says_what_matters_at_any_width(bench: Bench, width: int) -> None:
    table = render(bench, width)
    assert "…" not in table
    assert width == 40 or table.count("bertscore") == 6, "a name is folded only where it must be"
    joined = "".join(table.split())
    for dataset in {cell.dataset.name for cell in bench.cells()}:
        assert f"{dataset} (embedded)" in table
    for row, status in (("4bit", "regression"), ("8bit", "improved"), ("32bit", "pass")):
        line = next(line for line in table.splitlines() if line.startswith(f"qwen2_{row}"))
        assert "0.875" in line and status in line
    assert "notjudged" in joined


def test_a_metrics_name_is_folded_before_a_variants() -> None:
    made = session(QWEN2)
    words = render(made, 40).split()
    assert all(words.count(cell.variant) == 6 for cell in made.cells())


def test_a_wide_table_says_everything(bench: Bench) -> None:
    lines = render(bench, 100).splitlines()
    header = lines[lines.index("docvqa (embedded)".ljust(len(lines[0]))) + 1]
    assert header.split() == "variant bertscore base anls base verdict ms MB per s".split()
    row = next(line for line in lines if line.startswith("qwen2_4bit"))
    values = "0.875 0.875 0.375 0.500 regression 1234 8835.94 100"
    assert row.split() == ["qwen2_4bit", *values.split()]


def test_what_was_not_judged_has_no_baseline(bench: Bench) -> None:
    text = render(bench, 200)
    part = text[text.index("scienceqa") : text.index("vqav2")]
    row = next(line for line in part.splitlines() if line.startswith("qwen2_4bit"))
    assert row.split() == ["qwen2_4bit", *"0.875 - 0.375 - not judged - 8835.94 100".split()]


def test_nothing_run_is_nothing_shown() -> None:
    assert render(Bench(Options(), catalogued()), 80) == ""
