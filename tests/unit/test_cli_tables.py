"""`vlmbench tables`: the stored runs of this repository, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmbench import cli

OWN = str(Path(__file__).parents[2] / "baselines")


def test_the_stored_runs_as_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "--baselines", OWN]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("\n## ") == 10
    begins = "| 4 bit against 32 bit | qwen2 | docvqa | 0.858 -> 0.73 | 0.9"
    (row,) = [line for line in shown.out.splitlines() if line.startswith(begins)]
    assert row.endswith(" | yes |")
    out = tmp_path / "new" / "tables.md"
    assert cli.main(["tables", "--baselines", OWN, "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") + "\n" == shown.out
    assert capsys.readouterr().out == ""


def test_no_runs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "--baselines", str(tmp_path)]) == 2
    assert cli.main(["tables", "--baselines", OWN, "--tier", "hub"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("holds no baseline that a table shows" in line for line in lines)


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "--baselines", OWN, "--out", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err
