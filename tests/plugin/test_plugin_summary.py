"""What is shown while the cells run and at the end."""

import sys

import pytest

TESTS = """
import pytest

@pytest.mark.cells(datasets=["docvqa"])
def test_no_worse(run, baseline):
    assert run >= baseline

@pytest.mark.cells(compressions=["16bit"])
def test_run(run):
    pass
"""


def test_a_table_for_each_data_set_fits_the_terminal(project, stored):
    project.pytester.makepyfile(test_mine=TESTS)
    project.baseline(stored)
    project.better(project.baseline(stored, "mine_16bit"))
    result = project.pytest(compressions="32bit 16bit", data="docvqa scienceqa")
    result.assert_outcomes(passed=3, failed=1)
    title = next(i for i, line in enumerate(result.outlines) if "= vlmbench (embedded) =" in line)
    table = result.outlines[title:]
    assert max(map(len, table)) <= 80
    result.stdout.re_match_lines(
        [
            r"=+ vlmbench \(embedded\) =+",
            r"docvqa \(embedded\) *",
            r"variant +bertscore +base +anls +base +verdict +ms +MB +per s *",
            r"mine_32bit +0\.\d{3} +0\.\d{3} +\d\.\d{3} +\d\.\d{3} +pass +- +\d\.\d\d +\d+ *",
            r"mine_16bit +0\.\d{3} +1\.000 +\d\.\d{3} +1\.000 +regression +- +\d\.\d\d +\d+ *",
            r"scienceqa \(embedded\) *",
            r"variant +bertscore .*letter_accuracy .*verdict .*",
            r"mine_16bit +0\.\d{3} .*not judged .*",
        ]
    )
    assert "vlmbench (embedded)" not in project.pytest("--collect-only").stdout.str()


class Terminal:
    """Stands for the standard error that somebody watches."""

    def isatty(self):
        return True

    def fileno(self):
        return 2


@pytest.mark.parametrize("ci", ["", "1"])
def test_a_bar_for_whoever_watches_and_none_on_ci(project, monkeypatch, ci):
    project.pytester.makepyfile("def test_run(run): pass")
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(sys, "__stderr__", Terminal())
    result = project.pytest()
    result.assert_outcomes(passed=1)
    # Split where the bar is drawn again; a finished one is wiped from its line.
    shown = [line.strip() for line in result.errlines]
    assert ("mine_32bit-docvqa:   0%" in str(shown)) == (not ci)
    assert shown[-1:] == ([] if ci else [""])


def test_the_header_says_tier_and_cells(project):
    project.pytester.makepyfile("def test_run(run): pass")
    result = project.pytest("--collect-only", compressions="32bit 16bit", data="docvqa vqav2")
    result.stdout.fnmatch_lines(["vlmbench: tier embedded, 4 cells"])
