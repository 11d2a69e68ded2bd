"""The fixtures, in a user's own test files in a folder of their own."""

import re

NAMES = ("model", "compression", "variant", "dataset", "sample", "run", "baseline")

COUNTED = """
import json
from pathlib import Path

import pytest

@pytest.fixture(scope="session", autouse=True)
def counted(bench):
    yield
    Path("loads.json").write_text(json.dumps(bench.loads))
"""
AXES = """
from vlmbench.spec import Compression, Dataset, Model, Sample

def test_compression(compression):
    assert isinstance(compression, Compression) and compression.name in ("32bit", "16bit")

def test_dataset(dataset):
    assert isinstance(dataset, Dataset) and dataset.name in ("docvqa", "vqav2")

def test_model(model):
    assert isinstance(model, Model) and model.name == "mine"

def test_sample(sample):
    assert isinstance(sample, Sample) and sample.question and sample.pictures
"""
RUNS = """
def test_variant(variant, model, compression):
    assert variant.name == f"{model.name}_{compression.name}"
    assert compression.dtype in str(variant.network.dtype)

def test_run(run, variant, dataset):
    assert run.cell == f"{variant.name}-{dataset.name}"
    assert len(run.samples) == 6 and set(run.scores) == set(run.metrics)

def test_demo(run, sample):
    assert run.samples[sample.id].question == sample.question

def test_baseline(baseline, variant, dataset):
    assert baseline.cell.id == f"{variant.name}-{dataset.name}"
"""
BOTH = {"compressions": "32bit 16bit", "data": "docvqa vqav2"}


def write(project):
    project.pytester.makeconftest(COUNTED)
    folder = project.path / "judging"
    folder.mkdir()
    (folder / "test_axes.py").write_text(AXES)
    (folder / "test_runs.py").write_text(RUNS)


def test_pytest_fixtures_documents_each(project):
    shown = project.bare("--fixtures").stdout.str()
    for name in NAMES:
        assert re.search(rf"^{name} -- .*plugin\.py:\d+\n    [A-Z].{{30,}}", shown, re.M), name


def test_ids_name_the_axes_that_a_test_needs(project):
    write(project)
    lines = project.pytest("judging", "--collect-only", "-q", **BOTH).outlines
    variants = ["mine_32bit", "mine_16bit"]
    datasets = ["docvqa", "vqav2"]
    cells = [f"{variant}-{dataset}" for variant in variants for dataset in datasets]
    expected = {
        "axes.py::test_compression": variants,
        "axes.py::test_dataset": datasets,
        "axes.py::test_model": variants,
        "axes.py::test_sample": [f"{name}-row{i}" for name in datasets for i in range(10)],
        "runs.py::test_variant": variants,
        "runs.py::test_run": cells,
        "runs.py::test_demo": [f"{cell}-row{i}" for cell in cells for i in range(10)],
        "runs.py::test_baseline": cells,
    }
    ids = [f"judging/test_{test}[{label}]" for test, labels in expected.items() for label in labels]
    assert sorted(line for line in lines if "::" in line) == sorted(ids)


def test_each_gives_what_it_says_and_each_variant_is_loaded_once(project):
    write(project)
    result = project.pytest("judging", "--limit=6", **BOTH)
    # Four of the ten demos are beyond the six rows that are left.
    result.assert_outcomes(passed=2 + 2 + 2 + 12 + 2 + 4 + 24 + 4, skipped=8 + 16)
    assert project.read("loads.json") == {"mine_32bit": 1, "mine_16bit": 1}


def test_a_name_that_a_user_parametrizes_is_theirs(project):
    project.pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def dataset():
            return 3

        @pytest.mark.parametrize("model", ["a", "b"])
        def test_theirs(model, dataset):
            assert model in "ab" and dataset == 3
        """
    )
    project.pytest().assert_outcomes(passed=2)
