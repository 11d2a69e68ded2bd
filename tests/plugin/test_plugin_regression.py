"""What a user sees when answers got worse."""

import pytest

NO_WORSE = """
def test_no_worse(run, baseline):
    assert run >= baseline

def test_no_worse_said_otherwise(run, baseline):
    verdict = baseline.judge(run)
    assert verdict.status == "regression"
"""


@pytest.fixture
def regressed(project, stored):
    """A baseline of better answers than the random checkpoint gives."""
    project.pytester.makepyfile(test_mine=NO_WORSE)
    project.better(project.baseline(stored))
    return project


# pytest cuts explanations after eight lines, but neither on CI nor with -vv.
@pytest.mark.parametrize(("ci", "options"), [("", []), ("1", []), ("", ["-vv"])])
def test_metrics_worst_samples_and_the_command_that_accepts_it(regressed, monkeypatch, ci, options):
    monkeypatch.setenv("CI", ci)
    result = regressed.pytest(*options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       assert run >= baseline",
            "E       *mine_32bit-docvqa (embedded) is regression against its baseline",
            "E         *bertscore *baseline 1.0000  obtained 0.*  margin 0.01*  regression  p *",
            "E         *anls *baseline 1.0000  obtained 0.*  margin 0.02*  regression  p *",
            "E         Accept it:  pytest --model * -k mine_32bit-docvqa --baseline-update",
            "*worst samples of mine_32bit-docvqa*",
            "  24 of 24 samples lost bertscore; the worst:",
            "    *: 1.00 -> 0.??",
            '      question    "*"',
            '      references  "*"',
            '      baseline    "The Right Answer"',
            '      obtained    "No"',
            "  24 of 24 samples lost anls; the worst:",
        ]
    )
    shown = result.stdout.str()
    # Five of each gated metric, and each once.
    assert shown.count('baseline    "The Right Answer"') == 10
    assert "truncated" not in shown
    # The traceback is the user's own test and nothing of ours.
    assert {line.split(":")[0] for line in result.outlines if ": AssertionError" in line} == {
        "test_mine.py"
    }
    assert "pytest_cells.py" not in shown and "baseline.py" not in shown


def test_the_command_accepts_it(regressed):
    result = regressed.pytest("-k", "mine_32bit-docvqa and not otherwise", "--baseline-update")
    result.assert_outcomes(passed=1, deselected=1)
    regressed.pytest("-k", "not otherwise").assert_outcomes(passed=1, deselected=1)
