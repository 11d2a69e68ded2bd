"""The gate: what is no worse passes, what is worse fails, and the failure says all one needs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from vlmbench.baseline import of_run
from vlmbench.errors import BaselineError
from vlmbench.findings import smallest_drop
from vlmbench.run import Run, Scored
from vlmbench.spec import Gate
from vlmbench.verdict import Comparison, Verdict, compare, plain

ANLS, CIDER = Gate("anls", 0.02), Gate("cider", 0.02, relative=True)
CELL = "qwen2_4bit-docvqa"


def run(scores: dict[str, float], answer: str = "", **fields: Any) -> Run:
    """Another score, another answer, unless one is given."""
    samples = {
        name: Scored(
            "hash",
            f"what is {name}?",
            ("right", "also right"),
            answer or f"{score:.2f}",
            {"anls": score},
        )
        for name, score in scores.items()
    }
    made = Run(CELL, "embedded", {"dataset": "docvqa"}, {}, {}, samples)
    return replace(made, **fields)


def judged(now: Run, then: Run, gates: tuple[Gate, ...] = (ANLS,), **options: Any) -> Verdict:
    return compare(now, of_run(then), gates, **options)


LOST = (1.0,) * 20
"""Twenty pictures whose answers were lost: no chance."""


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
        (replace(ANLS, floor=0.5), 0.5, 0.5, "pass"),
        (replace(ANLS, floor=0.5), 0.49, 0.49, "regression"),
    ],
)
def test_status_at_the_margin(gate: Gate, expected: float, obtained: float, status: str) -> None:
    assert Comparison(gate, expected, obtained, LOST, 20).status == status


@pytest.mark.parametrize(
    ("lost", "won", "comparisons", "status"),
    [
        (11, 0, 2, "regression"),
        (12, 1, 2, "regression"),
        (11, 0, 600, "inconclusive"),
        (16, 0, 600, "regression"),
        (15, 0, 600, "inconclusive"),
        (30, 18, 2, "inconclusive"),
        (9, 0, 1, "pass"),
        (0, 12, 1, "improved"),
    ],
)
def test_a_drop_must_be_told_from_chance(
    lost: int, won: int, comparisons: int, status: str
) -> None:
    then = {f"s{i}": float(not lost <= i < lost + won) for i in range(500)}
    now = {f"s{i}": float(i >= lost) for i in range(500)}
    verdict = judged(run(now), run(then), comparisons=comparisons)
    assert verdict.status == status
    assert ("samples would settle it" in verdict.explain()[1]) == (status == "inconclusive")


def test_questions_on_one_picture_are_not_independent() -> None:
    def on(pictures: int, scores: float) -> Run:
        made = run({f"s{i}": scores if i < 12 else 1.0 for i in range(100)})
        return replace(
            made,
            samples={
                name: replace(one, cluster=f"picture{i % pictures if i < 12 else i}")
                for i, (name, one) in enumerate(made.samples.items())
            },
        )

    assert judged(on(12, 0.0), on(12, 1.0)).status == "regression"
    assert judged(on(3, 0.0), on(3, 1.0)).status == "inconclusive"


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
        scored = Scored("h", "q", ("r",), f"{a} {b}", {"anls": a, "exact": b})
        return run({}, samples={f"x{i}": scored for i in range(20)})

    gates = (ANLS, Gate("exact", 0.02))
    assert judged(both(anls, exact), both(0.5, 0.5), gates).status == status


def test_a_limited_run_is_compared_over_its_own_samples() -> None:
    whole = run({"a": 1.0, "b": 0.0, "c": 0.0})
    verdict = judged(run({"a": 1.0}), whole, partial=True)
    assert verdict.comparisons[0].expected == 1.0
    assert verdict.status == "pass"
    assert plain(verdict) == {"status": "pass", "baseline": {"anls": 1.0}, "p": {"anls": 1.0}}


@pytest.mark.parametrize(("then", "now", "refused"), [(1.0, 0.9, True), (0.9, 0.9015, False)])
def test_a_metric_that_scores_the_same_answer_otherwise_is_refused(
    then: float, now: float, refused: bool
) -> None:
    """Its normalisation went missing, or its encoder's layer is another."""
    old, new = (run({"a": 1.0, "b": score}, "same") for score in (then, now))
    if not refused:
        assert judged(new, old).status == "pass"
        return
    with pytest.raises(BaselineError, match=r'anls gives the answer "same" of sample "b" 0\.9000'):
        judged(new, old)


def test_another_protocol_is_refused_field_by_field() -> None:
    old = run({"a": 1.0}, protocol={"dataset": "docvqa", "metric anls": "1", "gone": "x"})
    new = run({"a": 1.0}, protocol={"dataset": "docvqa", "metric anls": "2", "new": "y"})
    with pytest.raises(BaselineError) as refused:
        judged(new, replace(old, tier="hub"))
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
        assert judged(of(now), old, partial=True).status == "pass"
        return
    with pytest.raises(BaselineError, match=says + r".*--baseline-update"):
        judged(of(now), old, partial=partial)


def test_a_sample_is_known_by_how_its_hash_begins() -> None:
    def of(content: str) -> Run:
        return run({}, samples={"a": Scored(content, "q", ("r",), "a", {"anls": 1.0})})

    old = of("abcd00000000")
    assert judged(old, old).baseline.samples["a"].content == "abcd"
    with pytest.raises(BaselineError, match=r"1 are new or changed"):
        judged(of("abce00000000"), old)


BYTES = {"footprint_bytes": 10, "file_bytes": 9, "census": {"nf4": 3}}


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({}, None),
        ({"footprint_bytes": 11}, "footprint bytes"),
        ({"footprint_bytes": 5}, "footprint bytes"),
        ({"file_bytes": 8}, "file bytes"),
        ({"census": {"nf4": 2}}, "census"),
        ({"peak_bytes": 10**12}, None),
        ({"footprint_bytes": 11, "environment": {"device_kind": "cuda"}}, None),
        ({"file_bytes": 8, "subject": {"weights": "mine"}}, None),
        ({"health": {"cut": 0.2}}, "cut answers"),
        ({"health": {"cut": 0.015}}, None),
    ],
)
def test_storage_and_health_are_gated_too(fields: dict[str, Any], finding: str | None) -> None:
    scores = {f"s{i}": 1.0 for i in range(200)}
    then = run(scores, **BYTES, health={"cut": 0.0})
    verdict = judged(run(scores, **{**BYTES, "health": {"cut": 0.0}, **fields}), then)
    assert [f.what for f in verdict.findings] == ([finding] if finding else [])
    assert verdict.status == ("regression" if finding else "pass")
    assert any(finding in line for line in verdict.explain()) if finding else True


def test_peak_memory_counts_on_cuda() -> None:
    cuda = {"environment": {"device_kind": "cuda"}}
    then = run({"a": 1.0}, peak_bytes=1000, **cuda)
    assert judged(run({"a": 1.0}, peak_bytes=1050, **cuda), then).status == "pass"
    assert judged(run({"a": 1.0}, peak_bytes=1051, **cuda), then).status == "regression"


def test_another_subject_is_compared_and_said() -> None:
    old = run({"a": 1.0}, subject={"weights": "old", "recipe": "4bit"})
    verdict = judged(run({"a": 1.0}, subject={"weights": "new", "recipe": "4bit"}), old)
    assert verdict.status == "pass"
    assert verdict.details() == ['  changed weights: baseline "old", this run "new"']


def test_against_the_uncompressed_twin() -> None:
    twin = run({"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.5}, "before")
    now = run({"a": 1.0, "b": 0.0, "c": 1.0, "d": 0.0})
    verdict = judged(now, now, twin=of_run(twin))
    assert verdict.twin is not None
    assert vars(verdict.twin) == {
        "recovery": {"anls": 0.8},
        "right_to_wrong": 2,
        "wrong_to_right": 1,
        "changed": 4,
    }
    assert plain(verdict)["twin"]["changed"] == 4
    other = of_run(replace(twin, protocol={"dataset": "other"}))
    assert judged(now, now, twin=other).twin is None


def test_a_promised_recovery_is_gated() -> None:
    twin, now = of_run(run({"a": 1.0, "b": 1.0})), run({"a": 1.0, "b": 0.8})
    assert judged(now, now, twin=twin, promised=0.9).status == "pass"
    verdict = judged(now, now, twin=twin, promised=0.91)
    assert verdict.status == "regression"
    assert "recovery anls" in verdict.explain()[2]


def test_a_score_that_is_no_number_is_a_regression_to_the_end() -> None:
    verdict = judged(run({"a": math.nan, "b": 1.0}), run({"a": 1.0, "b": 1.0}))
    assert verdict.status == "regression"
    assert plain(verdict)["p"] == {"anls": 0.0}
    assert "regression" in verdict.explain()[1]


@pytest.mark.parametrize(
    ("then", "now", "status"),
    [(0.44, 0.55, "pass"), (0.5, 0.95, "regression"), (0.95, 0.96, "pass")],
)
def test_a_preferred_letter_is_no_fault_and_one_answer_to_all_is(
    then: float, now: float, status: str
) -> None:
    scores = {f"s{i}": 1.0 for i in range(500)}
    old = run(scores, health={"commonest": then})
    assert judged(run(scores, health={"commonest": now}), old).status == status


def test_the_smallest_drop_a_cell_can_see() -> None:
    """Seven of a hundred answers, one way, are 1 in 128; fewer are told from nothing."""
    seen = smallest_drop(run({f"s{i}": 1.0 for i in range(100)}), ANLS)
    assert seen == pytest.approx(0.07)
    assert smallest_drop(run({f"s{i}": 1.0 for i in range(1000)}), ANLS) == 0.02
    assert smallest_drop(run({f"s{i}": float(i < 5) for i in range(100)}), ANLS) is None
