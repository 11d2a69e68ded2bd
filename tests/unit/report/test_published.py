"""Stored runs as tables, and each published finding judged by them, never by its name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vlmbench import baseline, catalogue
from vlmbench.baseline import Baseline, Kept
from vlmbench.errors import BaselineError
from vlmbench.report.markdown import markdown
from vlmbench.report.published import Finding, direction, findings, judge, standard_error
from vlmbench.report.tables import SECTIONS, absent, read, tables

HALVED = Finding("pruning", "halved", "a paper", "32bit", "depth50")
CLAIM = replace(HALVED, within=0, expected=1)


def kept(
    scores: Sequence[float], cell: str = "qwen2_32bit-docvqa", metric: str = "bertscore"
) -> Baseline:
    """A run of one picture a sample, and as many bytes as its scores sum up to."""
    samples = {
        f"s{i}": Kept(f"c{i}", f"p{i}", "said", {metric: score}) for i, score in enumerate(scores)
    }
    size = round(1000 * sum(scores))
    return Baseline(cell, "embedded", {}, {}, {}, samples, file_bytes=size, footprint_bytes=size)


def runs(
    before: Sequence[float], after: Sequence[float], dataset: str = "docvqa"
) -> dict[tuple[str, str, str], Baseline]:
    return {
        ("qwen2", dataset, "32bit"): kept(before),
        ("qwen2", dataset, "depth50"): kept(after),
    }


def figured(before: float, after: float, metric: str = "bertscore") -> Finding:
    place = "docvqa" if metric != "file_bytes" else "*"
    return replace(HALVED, metric=metric, figures={"qwen2": {place: (before, after)}})


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        (0.5, 0.1, 1),
        (-0.5, 0.1, -1),
        (0.15, 0.1, None),
        (0.004, 0.001, 0),
        (0.004, 0.0, 0),
        (0.009, 0.001, 1),
        (0.0, 0.1, None),
        (0.5, math.inf, None),
    ],
)
def test_a_change_has_a_direction_beyond_chance_alone(
    change: float, error: float, expected: int | None
) -> None:
    assert direction(change, error, within=0.01) == expected


def test_no_change_is_no_direction_where_none_is_too_small() -> None:
    assert direction(0.0, 0.0, within=0) is None


@pytest.mark.parametrize(
    ("published", "after", "same"),
    [
        ((0.9, 0.7), [0.4, 0.5, 0.6, 0.5], True),
        ((0.9, 0.7), [0.9, 1.0, 1.0, 1.0], None),
        ((0.7, 0.9), [0.4, 0.5, 0.6, 0.5], False),
        ((0.9, 0.7), [1.0, 1.0, 1.0, 1.0], False),
        ((0.9, 0.895), [1.0, 1.0, 1.0, 1.0], True),
        ((0.9, 0.895), [0.4, 0.5, 0.6, 0.5], False),
    ],
)
def test_figures_are_compared_by_where_they_go(
    published: tuple[float, float], after: list[float], same: bool | None
) -> None:
    (one,) = judge(figured(*published), runs([1.0] * 4, after), "qwen2")
    assert (one.dataset, one.same) == ("docvqa", same)
    assert one.published == f"{published[0]:g} -> {published[1]:g}"
    assert one.here.startswith(f"1.000 -> {sum(after) / 4:.3f} (±")


def test_sizes_are_compared_as_shares_and_seconds_are_not_kept() -> None:
    stored = runs([1.0] * 4, [0.5] * 4)
    (size,) = judge(figured(16.58, 8.26, "file_bytes"), stored, "qwen2")
    assert (size.dataset, size.same) == ("all", True)
    (grown,) = judge(figured(8.26, 16.58, "file_bytes"), stored, "qwen2")
    assert grown.same is False
    (alike,) = judge(figured(1000, 995, "file_bytes"), runs([1.0] * 4, [1.0] * 4), "qwen2")
    assert alike.same is True
    (time,) = judge(figured(100, 50, "seconds"), stored, "qwen2")
    assert (time.here, time.same) == ("-", None)


def test_a_claim_is_judged_over_all_data_sets_and_names_those_that_differ() -> None:
    stored = runs([0.1, 0.2, 0.1], [0.9, 1.0, 1.0]) | runs([0.9] * 3, [0.8, 0.7, 0.8], "vqav2")
    (one,) = judge(CLAIM, stored, "qwen2")
    assert (one.dataset, one.same, one.unlike) == ("mean of 2", True, ("vqav2",))
    (other,) = judge(replace(CLAIM, expected=-1), stored, "qwen2")
    assert (other.same, other.unlike) == (False, ("docvqa",))
    (open_,) = judge(CLAIM, runs([0.5, 0.5, 0.5], [0.6, 0.4, 0.6]), "qwen2")
    assert open_.same is None
    (none,) = judge(CLAIM, {}, "qwen2")
    assert (none.here, none.same) == ("-", None)


@pytest.mark.parametrize(("after", "same"), [(0.3, True), (0.7, False), (0.5, None)])
def test_a_collapse_is_less_than_a_share(after: float, same: bool | None) -> None:
    collapse = replace(CLAIM, expected=-1, share=0.5)
    (one,) = judge(collapse, runs([1.0] * 4, [after] * 4), "qwen2")
    assert (one.published, one.same) == ("below 50 %", same)


def test_the_figures_of_another_model_stand_in_only_where_they_are_alone() -> None:
    stored = runs([1.0] * 4, [0.5] * 4)
    alone: Mapping[str, Mapping[str, tuple[float, float]]] = {"phi3_5": {"docvqa": (0.9, 0.8)}}
    (one,) = judge(replace(HALVED, figures=alone), stored, "qwen2")
    assert (one.published, one.same) == ("phi3_5: 0.9 -> 0.8", True)
    two = {**alone, "idefics2": {"docvqa": (0.9, 0.8)}}
    assert judge(replace(HALVED, figures=two), stored, "qwen2") == []


def test_samples_of_other_content_are_not_paired() -> None:
    stored = runs([1.0, 1.0, 1.0], [0.5, 0.5, 1.0])
    after = stored["qwen2", "docvqa", "depth50"]
    moved = {**after.samples, "s2": replace(after.samples["s2"], content="another")}
    stored["qwen2", "docvqa", "depth50"] = replace(after, samples=moved)
    (one,) = judge(figured(0.9, 0.8), stored, "qwen2")
    assert one.here == "1.000 -> 0.500 (± 0.000)"


def test_questions_on_one_picture_are_no_more_certain_than_one() -> None:
    scores = [0.0, 1.0, 1.0, 0.0, 1.0]
    single, twice = kept(scores), kept(scores * 2)
    pictures = {n: replace(k, cluster=f"p{int(n[1:]) % 5}") for n, k in twice.samples.items()}
    twice = replace(twice, samples=pictures)

    def error(run: Baseline) -> float:
        return standard_error({n: k.scores["bertscore"] for n, k in run.samples.items()}, run)

    assert error(single) == pytest.approx(math.sqrt(1.2 / 4 / 5))
    assert error(twice) == pytest.approx(error(single))
    assert error(kept([1.0])) == math.inf


def test_what_is_published_fits_the_tables_and_names_what_there_is() -> None:
    sections = {section.key: section for section in SECTIONS}
    known = findings()
    # Nobody has published of the chains.
    assert {finding.section for finding in known} == set(sections) - {"chains"}
    for finding in known:
        assert {finding.before, finding.after} <= set(sections[finding.section].compressions)
        assert bool(finding.figures) != bool(finding.expected) and finding.source
        assert set(finding.figures) <= set(catalogue.models())
        places = {name for figures in finding.figures.values() for name in figures}
        assert places <= {*catalogue.datasets(), "*"}
    names = {name for section in SECTIONS for name in section.compressions}
    assert names <= set(catalogue.compressions())


def stored(folder: Path, scores: Mapping[str, float], dataset: str = "docvqa") -> Path:
    for variant, score in scores.items():
        run = kept([score] * 4, f"{variant}-{dataset}")
        baseline.save(folder / "embedded" / dataset / f"{variant}.json", run)
    return folder


def test_a_table_shows_scores_recovery_and_what_is_missing(tmp_path: Path) -> None:
    found = read(stored(tmp_path, {"qwen2_32bit": 0.8, "qwen2_4bit": 0.6}), "embedded")
    quantization = tables(found, findings())[0]
    score, _, files = quantization.rows
    start = ("qwen2", "docvqa (n 4)", "bertscore")
    whole, part = "0.800 ± 0.000 (100.0 %)", "0.600 ± 0.000 (75.0 %)"
    assert score == (*start, whole, "-", "-", part)
    assert files == ("qwen2", "all", "files MB", "0.00 (100.0 %)", "-", "-", "0.00 (75.0 %)")
    assert [name for _, _, name in quantization.missing] == ["16bit", "8bit"]
    text = markdown("embedded", found, findings())
    assert "## Scores by quantization (embedded)" in text
    assert "2 cells have no stored run. This makes them:" in text
    only = "--compression 16bit --compression 8bit --baseline-new"
    assert f"pytest tests/benchmarks/test_regression.py {only}" in text
    assert "without a stored run in this tier: phi3_5, idefics2" in text
    assert "Published findings without stored runs to judge them by: 7." in text
    assert "Same direction: yes 1, no 0, cannot tell 0." in text
    pruning = text[text.index("## Pruning") :]
    assert "| qwen2 | docvqa" not in pruning, "what a table is about is not stored"
    assert "qwen2" not in absent(found, findings())


def test_a_share_is_of_16_bit_where_32_is_not_stored(tmp_path: Path) -> None:
    found = read(stored(tmp_path, {"big_16bit": 0.8, "big_4bit": 0.6}), "embedded")
    assert tables(found, [])[0].rows[0][-1] == "0.600 ± 0.000 (75.0 %)"


def test_names_from_files_are_no_markup(tmp_path: Path) -> None:
    model, dataset = "a|b\n# <b>[x](y)`", "d|\x1b[31m"
    stored(tmp_path, {f"{model}_32bit": 0.5}, dataset)
    text = markdown("embedded", read(tmp_path, "embedded"), findings())
    assert "\x1b" not in text and "# <b>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    # 3 headings and 4 precisions between 8 bars.
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 8
    assert rows[0].startswith(r"| a\|b\\x0a\# \<b>\[x\](y)\` | d\|\\x1b\[31m (n 4) | bertscore |")


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="holds no baseline that a table shows"):
        read(tmp_path / "none", "embedded")
    with pytest.raises(BaselineError, match="hub holds no baseline"):
        read(stored(tmp_path, {"qwen2_32bit": 0.8}), "hub")


def test_a_damaged_or_misplaced_run_is_an_error(tmp_path: Path) -> None:
    folder = stored(tmp_path, {"qwen2_32bit": 0.8}) / "embedded" / "docvqa"
    path, moved = folder / "qwen2_32bit.json", folder / "qwen2_4bit.json"
    moved.write_text(path.read_text())
    with pytest.raises(BaselineError, match=r"is of qwen2_32bit-docvqa .* expected qwen2_4bit-"):
        read(tmp_path, "embedded")
    moved.write_text("{")
    with pytest.raises(BaselineError, match=r"qwen2_4bit\.json cannot be read"):
        read(tmp_path, "embedded")
    for broken in (math.nan, math.inf):
        run = kept([0.5, 0.5], "qwen2_4bit-docvqa")
        odd = replace(run.samples["s1"], scores={"bertscore": broken})
        baseline.save(moved, replace(run, samples={**run.samples, "s1": odd}))
        with pytest.raises(BaselineError, match='sample "s1" lacks a finite score'):
            read(tmp_path, "embedded")
