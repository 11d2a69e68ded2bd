"""What may become a baseline, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vlmbench import baseline
from vlmbench.errors import BaselineError
from vlmbench.run import Run, Scored
from vlmbench.spec import Gate
from vlmbench.update import write

GATES = (Gate("anls", 0.02),)


def run(answers: dict[str, str], **fields: object) -> Run:
    samples = {
        name: Scored(name, "?", ("yes",), text, {"anls": float(text == "yes")}, name)
        for name, text in answers.items()
    }
    made = Run("qwen2_4bit-docvqa", "embedded", {"metric": "1"}, {"recipe": "4bit"}, {}, samples)
    return replace(made, **fields)  # type: ignore[arg-type]


FIRST = run(dict.fromkeys("abcd", "yes"))


def test_what_changes_is_said(tmp_path: Path) -> None:
    def said(made: Run, move_anchor: bool = True) -> str:
        line = write(tmp_path / "b.json", made, GATES, move_anchor=move_anchor)
        return line.removeprefix("baseline of qwen2_4bit-docvqa: ")

    assert said(FIRST) == "new, anls 1.0000"
    assert said(FIRST) == "anls 1.0000 -> 1.0000, 0 of 4 answers changed"
    other = run({"a": "yes", "b": "no", "c": "yes", "e": "yes"})
    assert said(other) == ("anls 1.0000 -> 0.7500, 1 of 4 answers changed, 2 samples come or go")
    later = replace(other, protocol={"metric": "2"}, subject={"recipe": "other"})
    assert said(later, False) == (
        "anls 0.7500 -> 0.7500, 0 of 4 answers changed, another protocol, another subject"
    )
    (tmp_path / "b.json").write_text("{damaged")
    assert said(FIRST) == "new, anls 1.0000"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (replace(FIRST, errors={"z": "out of memory"}), "1 samples have no answer.*out of memory"),
        (
            run({}, samples={"a": Scored("a", "?", ("x",), "x", {"anls": float("nan")}, "a")}),
            "a score is no number",
        ),
        (run(dict.fromkeys("abcd", "no")), "more than 2 margins below 1.0000"),
    ],
)
def test_what_is_no_baseline_leaves_the_old_one(made: Run, says: str, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    write(path, FIRST, GATES, move_anchor=False)
    before = path.read_bytes()
    with pytest.raises(BaselineError, match=says):
        write(path, made, GATES, move_anchor=False)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BaselineError, match=r"cannot be written: File exists\. Mend the fold"):
        write(tmp_path / "file" / "b.json", FIRST, GATES, move_anchor=False)
    assert baseline.of_run(FIRST, GATES).anchor == {"anls": 1.0}
