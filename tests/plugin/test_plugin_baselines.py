"""The life of a baseline, by the commands that a user types."""

from dataclasses import replace

import pytest

from vlmbench.run import Run

NO_WORSE = "def test_no_worse(run, baseline):\n    assert run >= baseline\n"
WHERE = "baselines/embedded/docvqa/mine_32bit.json"


@pytest.fixture
def judged(project):
    """A project with the one test that the product is."""
    project.pytester.makepyfile(test_mine=NO_WORSE)
    return project


def test_missing_written_kept_rewritten(judged):
    path = judged.path / WHERE
    result = judged.pytest()
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"BaselineError: mine_32bit-docvqa has no baseline: *{WHERE} does not exist. "
            "Write it:  pytest -k mine_32bit-docvqa --baseline-new"
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*baseline.py:*")

    judged.pytest("-k", "mine_32bit-docvqa", "--baseline-new").assert_outcomes(passed=1)
    assert [file.name for file in path.parent.iterdir()] == ["mine_32bit.json"]
    written = Run.from_json(path.read_text())
    assert len(written.samples) == 6

    path.write_text(replace(written, seconds=77.0).to_json())
    judged.pytest("--baseline-new").assert_outcomes(passed=1)
    judged.pytest().assert_outcomes(passed=1)
    assert Run.from_json(path.read_text()).seconds == 77.0

    judged.pytest("-k", "mine_32bit-docvqa", "--baseline-update").assert_outcomes(passed=1)
    rewritten = Run.from_json(path.read_text())
    assert rewritten.seconds != 77.0
    assert rewritten.samples == written.samples


def test_damaged_or_of_another_protocol(judged, stored):
    damaged = judged.baseline(stored)
    damaged.write_text(damaged.read_text()[:-200])
    other = judged.baseline(stored, "mine_16bit")
    run = Run.from_json(other.read_text())
    other.write_text(replace(run, protocol={**run.protocol, "instruction": "Shout."}).to_json())
    result = judged.pytest(compressions="32bit 16bit")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "BaselineError: the baseline *mine_32bit.json cannot be read (JSONDecodeError: *"
            "  pytest -k mine_32bit-docvqa --baseline-update",
            "BaselineError: the baseline of mine_16bit-docvqa was made under another protocol*",
            '  instruction: baseline "Shout.", this run "Answer briefly."',
            "*pytest -k mine_16bit-docvqa --baseline-update",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_of_another_model(judged, stored):
    judged.baseline(stored, "other_32bit")
    judged.pytest("--baseline-of", "other").assert_outcomes(passed=1)
    result = judged.pytest("--baseline-of", "nobody")
    result.assert_outcomes(failed=1)
    # The missing one is nobody's, not mine: its name is the one in the command.
    result.stdout.fnmatch_lines(["*nobody_32bit.json*pytest -k nobody_32bit-docvqa --baseline-new"])


def test_the_first_samples_are_compared_with_the_first(judged, stored):
    judged.better(judged.baseline(stored), first=3)
    judged.pytest("--limit", "3").assert_outcomes(passed=1)
    result = judged.pytest("--limit", "4")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*1 of 4 samples lost anls; the worst:"])


def test_baselines_elsewhere(judged, stored):
    judged.baseline(stored).parents[2].rename(judged.path / "elsewhere")
    judged.pytest("--baselines", judged.path / "elsewhere").assert_outcomes(passed=1)
