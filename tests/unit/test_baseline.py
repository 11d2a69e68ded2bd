"""The gate: what is no worse passes, what is worse fails, and the failure says all one needs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from vlmbench import baseline
from vlmbench.baseline import Comparison, compare
from vlmbench.errors import BaselineError
from vlmbench.run import Run, Scored
from vlmbench.spec import Gate

ANLS, CIDER = Gate("anls", 0.02), Gate("cider", 0.02, relative=True)
CELL = "qwen2_4bit-docvqa"


def run(scores: dict[str, float], answer: str = "now", **fields: Any) -> Run:
    samples = {
        name: Scored("hash", f"what is {name}?", ("right", "also right"), answer, {"anls": score})
        for name, score in scores.items()
    }
    made = Run(CELL, "embedded", {"dataset": "docvqa"}, {}, {}, samples)
    return replace(made, **fields)


@pytest.mark.parametrize(
    ("gate", "expected", "obtained", "status"),
    [
        (ANLS, 0.5, 0.5, "pass"),
        (ANLS, 0.5, 0.48, "pass"),
        (ANLS, 0.5, 0.479998, "regression"),
        (ANLS, 0.5, 0.52, "pass"),
        (ANLS, 0.5, 0.520002, "improved"),
        (ANLS, 0.0, 0.0, "pass"),
        (ANLS, 0.5, math.nan, "regression"),
        (ANLS, math.nan, 0.5, "regression"),
        (CIDER, 1.5, 1.47, "pass"),
        (CIDER, 1.5, 1.469998, "regression"),
        (CIDER, 1.5, 1.53, "pass"),
        (CIDER, 1.5, 1.530002, "improved"),
        (CIDER, 0.1, 0.09, "regression"),
    ],
)
def test_status_at_the_margin(gate: Gate, expected: float, obtained: float, status: str) -> None:
    assert Comparison(gate, expected, obtained).status == status


@pytest.mark.parametrize(
    ("anls", "exact", "status"),
    [
        (0.9, 0.1, "regression"),
        (0.9, 0.5, "improved"),
        (0.5, 0.5, "pass"),
        (0.1, 0.1, "regression"),
    ],
)
def test_the_worst_metric_decides(anls: float, exact: float, status: str) -> None:
    def both(a: float, b: float) -> Run:
        return run({}, samples={"x": Scored("h", "q", ("r",), "a", {"anls": a, "exact": b})})

    gates = (ANLS, Gate("exact", 0.02))
    assert compare(both(anls, exact), both(0.5, 0.5), gates).status == status


def test_a_limited_run_is_compared_over_its_own_samples() -> None:
    whole = run({"a": 1.0, "b": 0.0, "c": 0.0})
    verdict = compare(run({"a": 1.0}), whole, (ANLS,), partial=True)
    assert verdict.comparisons[0].expected == 1.0
    assert verdict.status == "pass"
    assert baseline.summary(verdict) == {"status": "pass", "baseline": {"anls": 1.0}}


def test_another_protocol_is_refused_field_by_field() -> None:
    old = run({"a": 1.0}, protocol={"dataset": "docvqa", "metric anls": "1", "gone": "x"})
    new = run({"a": 1.0}, protocol={"dataset": "docvqa", "metric anls": "2", "new": "y"})
    with pytest.raises(BaselineError) as refused:
        compare(new, replace(old, tier="hub"), (ANLS,))
    assert str(refused.value).splitlines()[1:] == [
        '  gone: baseline "x", this run "None"',
        '  metric anls: baseline "1", this run "2"',
        '  new: baseline "None", this run "y"',
        '  tier: baseline "hub", this run "embedded"',
        f"Make a new one:  pytest -k {CELL} --baseline-update",
    ]


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({"a": "h", "b": "other"}, r"1 are new or changed \(first: b\), 0 are missing"),
        ({"a": "h", "b": "h", "c": "h"}, r"1 are new or changed \(first: c\), 0 are missing"),
        ({"a": "h"}, r"0 are new or changed \(first: none\), 1 are missing \(first: b\)"),
    ],
)
def test_other_samples_are_refused(now: dict[str, str], says: str, partial: bool) -> None:
    def of(content: dict[str, str]) -> Run:
        samples = {n: Scored(c, "q", ("r",), "a", {"anls": 1.0}) for n, c in content.items()}
        return run({}, samples=samples)

    old = of({"a": "h", "b": "h"})
    if partial and len(now) == 1:
        assert compare(of(now), old, (ANLS,), partial=True).status == "pass"
        return
    with pytest.raises(BaselineError, match=says + r".*--baseline-update"):
        compare(of(now), old, (ANLS,), partial=partial)
