"""Small projects of a user's own, in which pytest is run as users run it."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import small_inputs

from vlmbench import artifacts, baseline
from vlmbench.bench import Bench
from vlmbench.options import Options, catalogued

INI = """[pytest]
addopts = --strict-markers -p vlmbench.plugin
filterwarnings =
    error
    ignore:.*torch.jit.*:DeprecationWarning
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return small_inputs.checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """{data set: a folder with the first rows of the shipped one}."""
    return {
        name: small_inputs.rows(tmp_path_factory.mktemp(name), name)
        for name in ("docvqa", "vqav2", "scienceqa")
    }


@pytest.fixture(scope="session")
def stored(checkpoint, data, tmp_path_factory):
    """The baseline of mine_32bit on docvqa, a file."""
    bench = Bench(
        Options(
            models=(f"mine={checkpoint}",),
            compressions=("32bit",),
            data=(f"docvqa={data['docvqa']}",),
            baselines=tmp_path_factory.mktemp("baselines"),
            cache=tmp_path_factory.mktemp("cache"),
            write="new",
        ),
        catalogued(),
    )
    (cell,) = bench.cells()
    bench.judge(cell, bench.run(cell))
    return bench.baseline_path(cell)


class Project:
    """A folder of a user's own, with pytest.ini, and how pytest is run in it."""

    def __init__(self, pytester, keeper, checkpoint, data):
        self.pytester, self.keeper = pytester, keeper
        self.checkpoint, self.data = checkpoint, data
        self.path = pytester.path
        pytester.makeini(INI)

    def options(self, compressions="32bit", data="docvqa"):
        """Judge the random checkpoint on small data."""
        return [
            f"--model=mine={self.checkpoint}",
            *(f"--compression={name}" for name in compressions.split()),
            *(f"--data={name}={self.data[name]}" for name in data.split()),
        ]

    def pytest(self, *args, **axes):
        """Run pytest in this process, on the cells that `axes` (see `options`) leave."""
        return self.bare(*self.options(**axes), *args)

    def bare(self, *args):
        """Run pytest in this process with these arguments alone."""
        result = self.pytester.runpytest_inprocess(*map(str, args), plugins=[self.keeper])
        self.keeper.give_back()
        return result

    def baseline(self, stored, variant="mine_32bit", dataset="docvqa"):
        """Put a stored baseline where the cell's belongs."""
        path = self.path / "baselines" / "embedded" / dataset / f"{variant}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(stored, path))

    def better(self, path, first=0):
        """Make a stored baseline one of better answers, from sample number `first` on."""
        old = baseline.load(path, "", "embedded")
        samples = dict(old.samples)
        for name in list(samples)[first:]:
            best = dict.fromkeys(samples[name].scores, 1.0)
            samples[name] = replace(samples[name], answer="The Right Answer", scores=best)
        baseline.save(path, replace(old, samples=samples))

    def spoil(self, dataset, picture):
        """Give the third row of a data set another picture (bytes); the row."""
        folder = self.path / f"spoilt_{dataset}"
        folder.mkdir()
        self.data = self.data | {dataset: small_inputs.rows(folder, dataset, picture)}
        return pq.read_table(folder / "test.parquet").slice(2, 1).to_pylist()[0]

    def read(self, name):
        """What the inner run left in a JSON file."""
        return json.loads((self.path / name).read_text())


class _Keeper:
    """pytester forgets what a run imports, and torch cannot be imported twice."""

    def __init__(self):
        self.modules = {}

    def pytest_unconfigure(self):
        self.modules |= sys.modules

    def give_back(self):
        for name, module in self.modules.items():
            if not name.startswith(("conftest", "test_")):
                sys.modules.setdefault(name, module)


@pytest.fixture
def keeper():
    made = _Keeper()
    yield made
    made.give_back()


# `keeper` comes first: pytester forgets once more when its fixture ends.
@pytest.fixture
def project(keeper, pytester, monkeypatch, checkpoint, data):
    """An empty project, on a terminal of 80 columns that is no CI's."""
    for name in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    # An inner session is none of this one's workers.
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv(artifacts.FOLDER, str(pytester.path / "cache"))
    return Project(pytester, keeper, checkpoint, data)
