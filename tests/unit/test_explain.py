"""What a failure says: metrics, the samples that lost most, the command that accepts it."""

from __future__ import annotations

from vlmbench.baseline import of_run
from vlmbench.run import Run, Scored
from vlmbench.spec import Gate
from vlmbench.verdict import compare

ANLS = Gate("anls", 0.02)
CELL = "qwen2_4bit-docvqa"


def run(scores: dict[str, float], answer: str = "") -> Run:
    samples = {
        name: Scored(
            "hash",
            f"what is {name}?",
            ("right", "also right"),
            answer or str(score),
            {"anls": score},
        )
        for name, score in scores.items()
    }
    return Run(CELL, "embedded", {"dataset": "docvqa"}, {}, {}, samples)


def test_a_failure_is_explained() -> None:
    names = [f"s{i}" for i in range(8)]
    old = run({name: 1.0 for name in names}, "before")
    now = run({name: i / 10 for i, name in enumerate(names)}, "after")
    lines = compare(now, of_run(old), (ANLS,)).explain()
    assert lines[:3] == [
        f"{CELL} (embedded) is regression against its baseline",
        "  anls             baseline 1.0000  obtained 0.3500  drop +0.6500  margin 0.0200"
        "  regression  p 0.0039",
        "  8 of 8 samples lost anls; the worst:",
    ]
    assert lines[3:8] == [
        '    "s0": 1.00 -> 0.00',
        '      question    "what is s0?"',
        '      references  "right | also right"',
        '      baseline    "before"',
        '      obtained    "after"',
    ]
    shown = [line.split(":")[0].strip() for line in lines if "->" in line]
    assert shown == [f'"s{i}"' for i in range(5)]
    assert lines[-1] == f"Accept it:  pytest -k {CELL} --baseline-update"


def test_only_the_metric_that_fell_shows_samples() -> None:
    lines = compare(
        run({"a": 1.0, "b": 0.99}), of_run(run({"a": 1.0, "b": 1.0})), (ANLS,)
    ).explain()
    assert len(lines) == 3 and "->" not in "".join(lines)


def test_an_explanation_cannot_drive_the_terminal() -> None:
    hostile = "\x1b[2J\r\n\x9b\u202e\ud800" + "long " * 100
    lines = compare(
        run({hostile: 0.0}, hostile), of_run(run({hostile: 1.0}, "x" + hostile)), (ANLS,)
    ).explain()
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 200
    assert r"\u001b[2J\r\n\u009b\u202e\ud800long" in "".join(lines)
