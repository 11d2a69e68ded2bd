"""Seconds in tables come from a history, and only from a sound one of the same tier."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmbench.baseline import Baseline, Kept
from vlmbench.errors import UsageError
from vlmbench.report.latencies import Time, Times, read
from vlmbench.report.markdown import markdown
from vlmbench.report.published import Finding, judge

FASTER = Finding(
    "pruning",
    "seconds",
    "a paper",
    "32bit",
    "depth50",
    metric="seconds",
    figures={"qwen2": {"docvqa": (100, 50)}},
)


def entry(compression: str = "32bit", median: float = 0.8, **info: Any) -> dict[str, Any]:
    about = {"tier": "embedded", "of": ["qwen2", compression, "docvqa"], "made_s": 0.0}
    return {
        "extra_info": {**about, "probe_samples": 8, **info},
        "stats": {"median": median, "stddev": 0.04, "rounds": 4},
    }


def history(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps({"benchmarks": entries}))
    return path


def test_a_history_is_read(tmp_path: Path) -> None:
    stored = history(tmp_path / "a.json", entry(), entry("depth50", 0.4, made_s=12.5))
    times = read(stored, "embedded")
    assert times["qwen2", "docvqa", "32bit"] == Time(0.1, pytest.approx(0.025 / 8), 0.0)
    assert times["qwen2", "docvqa", "depth50"].made_s == 12.5


def test_one_round_is_sure_of_nothing(tmp_path: Path) -> None:
    once = entry()
    once["stats"]["rounds"] = 1
    times = read(history(tmp_path / "a.json", once), "embedded")
    assert times["qwen2", "docvqa", "32bit"].error_s == math.inf


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read .FileNotFoundError"),
        ("{", "cannot be read .JSONDecodeError"),
        ("[]", "cannot be read .TypeError"),
        ('{"benchmarks": [1]}', "cannot be read .TypeError"),
        (json.dumps({"benchmarks": [entry(of="qwen2")]}), "cannot be read .ValueError"),
        (json.dumps({"benchmarks": []}), "holds no latency of tier 'embedded'"),
        (json.dumps({"benchmarks": [entry(tier="hub")]}), "holds no latency of tier 'embedded'"),
        ('{"benchmarks": [{"extra_info": {}}]}', "holds no latency"),
    ],
)
def test_what_is_no_history(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read(path, "embedded")


@pytest.mark.parametrize(
    ("seconds", "error", "same"), [(0.05, 0.001, True), (0.2, 0.001, False), (0.11, 0.01, None)]
)
def test_seconds_are_judged_beyond_their_scatter(seconds: float, error: float, same: bool) -> None:
    times: Times = {
        ("qwen2", "docvqa", "32bit"): Time(0.1, 0.001, 0.0),
        ("qwen2", "docvqa", "depth50"): Time(seconds, error, 3.0),
    }
    (one,) = judge(FASTER, {}, "qwen2", times)
    assert one.same is same
    assert one.here.startswith(f"100.0 -> {1e3 * seconds:.1f} ms an answer, x {seconds * 10:.2f}")
    (none,) = judge(FASTER, {}, "qwen2", {})
    assert (none.here, none.same) == ("-", None)


def test_tables_show_seconds_where_they_are_known() -> None:
    kept = {f"s{i}": Kept("c", f"p{i}", "a", {"bertscore": 1.0}) for i in range(3)}
    base = Baseline("qwen2_32bit-docvqa", "embedded", {}, {}, {}, kept)
    runs = {
        ("qwen2", "docvqa", "32bit"): base,
        ("qwen2", "docvqa", "depth50"): replace(base, cell="qwen2_depth50-docvqa"),
    }
    times: Times = {
        ("qwen2", "docvqa", "32bit"): Time(0.1, 0.001, 0.0),
        ("qwen2", "docvqa", "depth50"): Time(0.05, 0.001, 3.0),
    }
    shown = markdown("embedded", runs, [FASTER], times)
    assert "| qwen2 | docvqa | ms an answer | 100.0 | - | 50.0 |" in shown
    assert "100 -> 50 | 100.0 -> 50.0 ms an answer, x 0.50 (± 0.01) | yes |" in shown
    assert "| qwen2 | all | seconds to make | - | - | 3 |" in shown
    assert "Baselines keep no seconds" not in shown
    plain = markdown("embedded", runs, [FASTER])
    assert "ms an answer" not in plain and "Baselines keep no seconds" in plain
