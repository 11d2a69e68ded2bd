"""A run goes through JSON and comes back as it was, whatever models and data say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmbench.run import Run, Scored
from vlmbench.samples import content_hash
from vlmbench.spec import Sample

HOSTILE = [
    "\x00\x1b[31mred\r\n\t\x7f\x9b",
    "\ud800 lone surrogates \udfff",
    "\" ' \\ \\u0041 \\\\n",
    "line\u2028paragraph\u2029next\x85\x0b\x0c",
    "</script><!--",
    "naïve 日本 😀 \u202egnp.exe",
    "",
]
SAMPLE = Sample("a", (b"ab", b"c"), "why?", ("yes", "no"), "cluster")


def made(texts: list[str]) -> Run:
    """A run whose every text is one of `texts`."""
    scores = [{"anls": i / 64, "cider": 9.765625} for i in range(len(texts))]
    samples = {
        f"{9 - i}{text}": Scored(text, text, (text, "x"), text, scores[i])
        for i, text in enumerate(texts)
    }
    said = {text: text for text in texts}
    return Run("cell", "embedded", said, said, {**said, "gpu": None, "n": 3}, samples, left_out=41)


def keys_in_order(text: str) -> list[str]:
    pairs: list[list[str]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append([key for key, _ in found])
        return dict(found)

    json.loads(text, object_pairs_hook=keep)
    return pairs[-1]


def test_nothing_is_lost(tmp_path: Path) -> None:
    run = made(HOSTILE)
    (tmp_path / "run.json").write_text(run.to_json(), encoding="utf-8")
    assert Run.from_json((tmp_path / "run.json").read_text(encoding="utf-8")) == run


def test_one_line_a_sample_and_keys_in_order() -> None:
    text = made(HOSTILE).to_json()
    *head, samples = keys_in_order(text)
    assert head == sorted(head) and samples == "samples"
    start = text.splitlines().index(' "samples": {')
    lines = text.splitlines()[start + 1 : -2]
    names = [json.loads(f"{{{line.rstrip(',')}}}").popitem()[0] for line in lines]
    assert names == sorted(made(HOSTILE).samples)


def test_nothing_in_it_drives_a_terminal() -> None:
    text = made(HOSTILE).to_json()
    assert [c for c in text if not c.isprintable() and c not in "\n\u202e"] == []


def test_another_answer_is_another_line() -> None:
    run = made(["a", "b", "c"])
    name = next(iter(run.samples))
    changed = {**run.samples, name: replace(run.samples[name], answer="other")}
    pairs = zip(
        run.to_json().splitlines(),
        replace(run, samples=changed).to_json().splitlines(),
        strict=True,
    )
    assert sum(a != b for a, b in pairs) == 1


def test_means() -> None:
    run = made(["a", "b", "c"])
    assert run.metrics == ["anls", "cider"]
    assert run.scores == {"anls": pytest.approx(1 / 64), "cider": 9.765625}
    assert json.loads(run.to_json())["scores"] == {"anls": 0.015625, "cider": 9.765625}
    assert run.samples_per_s == 0.0
    assert replace(run, seconds=1.5).samples_per_s == 2.0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"scores": {}, "samples": []}'])
def test_what_is_no_run(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        Run.from_json(text)


@pytest.mark.parametrize(
    "change",
    [
        {"pictures": (b"a", b"bc")},
        {"pictures": (b"c", b"ab")},
        {"question": "why"},
        {"references": ("no", "yes")},
        {"references": ("yes",)},
    ],
)
def test_the_hash_is_of_all_that_a_score_depends_on(change: dict[str, Any]) -> None:
    assert content_hash(replace(SAMPLE, **change)) != content_hash(SAMPLE)


def test_the_hash_is_of_nothing_else() -> None:
    assert content_hash(replace(SAMPLE, id="b", cluster="d")) == content_hash(SAMPLE)
