"""The life of a baseline, by the commands that a user types."""

from dataclasses import replace

import pytest

from vlmbench.baseline import load, save
from vlmbench.plugin import ERRORED

NO_WORSE = "def test_no_worse(run, baseline):\n    assert run >= baseline\n"
WHERE = "baselines/embedded/docvqa/mine_32bit.json"


@pytest.fixture
def judged(project):
    """A project with the one test that the product is."""
    project.pytester.makepyfile(test_mine=NO_WORSE)
    return project


def test_the_status_is_said_last(judged):
    """Another plugin's own bits would make it one that means something else."""
    judged.pytester.makeconftest(
        "def pytest_sessionfinish(session, exitstatus):\n    session.exitstatus |= exitstatus\n"
    )
    assert judged.pytest().ret == ERRORED


def test_missing_written_kept_rewritten(judged):
    path = judged.path / WHERE
    result = judged.pytest()
    result.assert_outcomes(failed=1)
    assert result.ret == ERRORED, "there was nothing to judge by"
    result.stdout.fnmatch_lines(
        [
            f"BaselineError: mine_32bit-docvqa has no baseline: *{WHERE} does not exist. "
            "Write it:  pytest --model * -k mine_32bit-docvqa --baseline-new"
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*baseline.py:*")

    judged.pytest("-k", "mine_32bit-docvqa", "--baseline-new").assert_outcomes(passed=1)
    assert [file.name for file in path.parent.iterdir()] == ["mine_32bit.json"]
    written = load(path, "", "embedded")
    assert len(written.samples) == 24

    save(path, replace(written, peak_bytes=77))
    judged.pytest("--baseline-new").assert_outcomes(passed=1)
    judged.pytest().assert_outcomes(passed=1)
    assert load(path, "", "embedded").peak_bytes == 77

    judged.pytest("-k", "mine_32bit-docvqa", "--baseline-update").assert_outcomes(passed=1)
    rewritten = load(path, "", "embedded")
    assert rewritten.peak_bytes != 77
    assert rewritten.samples == written.samples


def test_damaged_or_of_another_protocol(judged, stored):
    damaged = judged.baseline(stored)
    damaged.write_text(damaged.read_text()[:-200])
    other = judged.baseline(stored, "mine_16bit")
    old = load(other, "", "embedded")
    save(other, replace(old, protocol={**old.protocol, "instruction": "Shout."}))
    result = judged.pytest(compressions="32bit 16bit")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "BaselineError: the baseline *mine_32bit.json cannot be read (JSONDecodeError: *"
            "  pytest --model * -k mine_32bit-docvqa --baseline-update",
            "BaselineError: the baseline of mine_16bit-docvqa was made under another protocol*",
            '  instruction: baseline "Shout.", this run "Answer briefly."',
            "*pytest --model * -k mine_16bit-docvqa --baseline-update",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_of_another_model(judged, stored):
    judged.baseline(stored, "other_32bit")
    judged.pytest("--baseline-of", "other").assert_outcomes(passed=1)
    result = judged.pytest("--baseline-of", "nobody")
    result.assert_outcomes(failed=1)
    # The missing one is nobody's, which no cell of this session would write.
    result.stdout.fnmatch_lines(
        [
            "BaselineError: mine_32bit-docvqa has no baseline: *nobody_32bit.json does not exist. "
            "Name another model, or leave --baseline-of out and write its own:  "
            "pytest --model * -k mine_32bit-docvqa --baseline-new"
        ]
    )


def test_the_first_samples_are_compared_with_the_first(judged, stored):
    judged.better(judged.baseline(stored), first=3)
    judged.pytest("--limit", "3").assert_outcomes(passed=1)
    result = judged.pytest("--limit", "23")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*20 of 23 samples lost anls; the worst:"])


def test_baselines_elsewhere(judged, stored):
    judged.baseline(stored).parents[2].rename(judged.path / "elsewhere")
    judged.pytest("--baselines", judged.path / "elsewhere").assert_outcomes(passed=1)


EDITED = """
BaselineError: the baseline *mine_32bit.json was edited after it was written. Restore it from \
version control, or write it again:  pytest --model * -k mine_32bit-docvqa --baseline-update
"""


def test_edited_by_hand(judged, stored):
    path = judged.baseline(stored)
    path.write_text(path.read_text().replace('"No",', '"Yes",', 1))
    result = judged.pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([EDITED.strip()])


def test_what_is_inconclusive_passes_unless_strict(judged, stored):
    """A lost picture of twelve is beyond the margin, and could be chance."""
    judged.better(judged.baseline(stored), first=22)
    result = judged.pytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*inconclusive*",
            "mine_32bit-docvqa anls: drop *, p 0.*; about * samples would settle it",
        ]
    )
    judged.pytest("--strict").assert_outcomes(failed=1)


def test_margins_and_floors_of_a_project(judged, stored):
    judged.better(judged.baseline(stored))
    judged.pytest().assert_outcomes(failed=1)
    judged.pytest("--margin=anls=1", "--margin=docvqa.bertscore=1").assert_outcomes(passed=1)
    table = "vlmbench_margins =\n    anls=1\n    bertscore=1\n"
    ini = judged.path / "tox.ini"
    ini.write_text(f"{ini.read_text()}\n{table}")
    judged.pytest().assert_outcomes(passed=1)
    result = judged.pytest("--floor=docvqa.anls=0.99")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*anls *regression  below the floor 0.9900"])
    for wrong in ("anls", "anls=x", "vqav2.anls=0.1", "cider=-1", "nothing.anls=0.1"):
        result = judged.pytest(f"--margin={wrong}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.no_fnmatch_line("*Traceback*")


def test_quality_is_not_walked_down(judged, stored):
    path = judged.baseline(stored)
    old = load(path, "", "embedded")
    save(path, replace(old, anchor={"anls": 0.9, "bertscore": 0.9}))
    result = judged.pytest("--baseline-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*BaselineError: *more than 2 margins below 0.9000*--baseline-move-anchor"]
    )
    assert load(path, "", "embedded").anchor["anls"] == 0.9
    judged.pytest("--baseline-update", "--baseline-move-anchor").assert_outcomes(passed=1)
    assert load(path, "", "embedded").anchor["anls"] < 0.5


WAIVER = """[[waiver]]
cell = "mine_32bit-docvqa"
metric = "{metric}"
reason = "known"
owner = "ann@example.org"
expires = {expires}
"""


def test_a_waiver_lets_a_known_regression_pass_until_its_day(judged, stored):
    path = judged.baseline(stored)
    judged.better(path)
    file = path.parents[1] / "waivers.toml"
    both = [WAIVER.format(metric=m, expires="2999-01-01") for m in ("anls", "bertscore")]
    file.write_text("".join(both))
    judged.pytest().assert_outcomes(passed=1)
    file.write_text(both[0])
    judged.pytest().assert_outcomes(failed=1)
    file.write_text("".join(both).replace("2999", "2001"))
    result = judged.pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*waiver of *(ann@example.org, until 2001-01-01) has expired*"])
    judged.baseline(stored)
    file.write_text(both[0])
    result = judged.pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*waiver of mine_32bit-docvqa anls: known*is not needed*"])
    for wrong in (
        both[0].replace("owner", "own"),
        both[0].replace("[[waiver]]", "[waiver]"),
        both[0].replace("[[waiver]]", "[[waivers]]"),
        "waiver = 1",
    ):
        file.write_text(wrong)
        result = judged.pytest()
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.no_fnmatch_line("*Traceback*")


def test_a_waiver_stays_needed_where_the_drop_is_inconclusive(judged, stored):
    path = judged.baseline(stored)
    judged.better(path)
    both = [WAIVER.format(metric=m, expires="2999-01-01") for m in ("anls", "bertscore")]
    (path.parents[1] / "waivers.toml").write_text("".join(both))
    judged.pytest("--limit=6").assert_outcomes(passed=1)


def test_a_project_may_have_a_fixture_of_that_name(judged):
    judged.pytester.makepyfile(
        test_mine="""
import pytest

@pytest.fixture
def baseline():
    return 1

@pytest.mark.parametrize("x", [1])
def test_own(baseline, x):
    pass

def test_plain(baseline):
    pass
"""
    )
    judged.pytest().assert_outcomes(passed=2)
