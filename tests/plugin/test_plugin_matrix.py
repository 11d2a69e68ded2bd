"""The shipped benchmarks, as a user selects them from the repository root; nothing is run."""

from itertools import permutations
from pathlib import Path

import pytest

from vlmbench.bench import Bench
from vlmbench.options import Options, catalogued
from vlmbench.pytest_cells import demo_names

ROOT = Path(__file__).parents[2]
HEADLINE = ("32bit", "16bit", "8bit", "4bit", "lm8bit", "lm4bit")
FEWER_DEMOS = {"clips": 3, "videoqa": 6}
EXTENSIONS = ("_ft", "_on_", "+", "bi", "w", "s")


@pytest.fixture
def collect(project):
    def run(*args):
        where = (f"--rootdir={ROOT}", "-c", ROOT / "pytest.ini", ROOT / "tests" / "benchmarks")
        result = project.bare("--collect-only", "-q", "-p", "no:cacheprovider", *where, *args)
        return [line.rpartition("/")[2] for line in result.outlines if "::" in line]

    return run


@pytest.fixture(scope="module")
def cells():
    return Bench(Options(), catalogued()).cells()


def test_the_first_command_of_the_readme_selects_one_cell_and_its_demos(collect, cells):
    (cell,) = [cell for cell in cells if cell.id == "qwen2_4bit-docvqa"]
    demos = [f"test_demos.py::test_demos[{cell.id}-{demo}]" for demo in cell.dataset.demos]
    assert len(demos) == 10
    expected = [f"test_regression.py::test_regression[{cell.id}]", *demos]
    assert sorted(collect("-m", "docvqa", "-k", "qwen2_4bit")) == sorted(expected)


def test_the_whole_matrix_is_a_regression_test_and_ten_demos_a_cell(collect, cells):
    found = [name for name in collect() if name.startswith(("test_regression", "test_demos"))]
    expected = {f"test_regression.py::test_regression[{cell.id}]" for cell in cells} | {
        f"test_demos.py::test_demos[{cell.id}-{demo}]"
        for cell in cells
        for demo in demo_names(cell.dataset)
    }
    assert len(found) == len(expected)
    assert set(found) == expected
    demos = {cell.dataset.name: len(demo_names(cell.dataset)) for cell in cells}
    assert demos == {name: FEWER_DEMOS.get(name, 10) for name in demos}
    assert [name for name in found if "qwen2_4bit" in name] == collect("-k", "qwen2_4bit")


def test_no_cell_is_selected_by_the_name_of_another(cells):
    """The commands that messages print select a cell with `-k`, which matches substrings."""
    ids = [cell.id for cell in cells]
    assert [pair for pair in permutations(ids, 2) if pair[0] in pair[1]] == []


def test_headline_variants_are_selected_by_their_names(cells):
    """Others may extend a recipe's name (`depth50`, `depth50bi`, `depth50_ft+4bit`)."""
    variants = {cell.variant: cell.compression.name for cell in cells}
    assert set(HEADLINE) <= set(variants.values())
    for name, longer in permutations(variants, 2):
        if name in longer:
            assert variants[name] not in HEADLINE, longer
            assert longer.removeprefix(name).startswith(EXTENSIONS), longer
