"""What is loaded when: the plugin itself, heavy libraries, one variant at a time."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = """
import sys

def pytest_unconfigure():
    heavy = {"torch", "transformers", "datasets", "bitsandbytes", "bert_score", "PIL", "pandas"}
    print("heavy:", sorted(heavy & set(sys.modules)))
"""
TESTS = """
from vlmbench.probe import measure_probe

def test_regression(run, baseline, variant, dataset, bench, benchmark):
    measure_probe(benchmark, run, variant, dataset, bench)
    assert run >= baseline

def test_demo(run, sample):
    pass
"""
WATCHED = """
import json
import weakref
from pathlib import Path

import pytest

import vlmbench.variant

@pytest.fixture(scope="session", autouse=True)
def watched():
    seen, alive = [], []
    load = vlmbench.variant.load

    def watching(*args, **kwargs):
        alive.append(sum(ref() is not None for ref in seen))
        made = load(*args, **kwargs)
        seen.append(weakref.ref(made.network))
        return made

    vlmbench.variant.load = watching
    yield
    Path("alive.json").write_text(json.dumps(alive))
"""
FAILING = """
def test_fails(run, variant):
    assert run is None

def test_passes(variant):
    pass

def test_fails_last(variant, run):
    assert variant is None
"""


def test_help_and_collection_load_nothing_heavy(project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    project.pytester.makeconftest(HEAVY)
    project.pytester.makepyfile(test_it=TESTS)
    for option in ("--help", "--collect-only"):
        result = project.pytester.runpytest_subprocess(option)
        assert result.ret == 0
        result.stdout.fnmatch_lines(["heavy: []"])
    result.stdout.fnmatch_lines(["*test_regression[[]qwen2_4bit-docvqa[]]*"])


def test_the_entry_point_and_pytest_plugins_go_together(project, monkeypatch):
    """pytest raises where one module is registered under two names."""
    project.pytester.makeini("[pytest]\n")
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = project.path / "installed" / "installed-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in entries.items())
            for group, entries in entry_points.items()
        )
    )
    monkeypatch.syspath_prepend(info.parent)
    project.pytester.makepyfile("def test_it(pytestconfig): assert pytestconfig.option.tier")
    project.bare().assert_outcomes(passed=1)
    project.pytester.makeconftest("pytest_plugins = ['vlmbench.plugin']")
    project.bare().assert_outcomes(passed=1)
    project.bare("-p", "vlmbench.plugin").assert_outcomes(passed=1)


def test_the_variant_of_a_failed_test_is_gone_before_the_next_is_loaded(project, monkeypatch):
    # In a process of its own: pytester keeps every call of this one, and with it the frames.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    project.pytester.makeconftest(WATCHED)
    project.pytester.makepyfile(test_it=FAILING)
    result = project.pytester.runpytest_subprocess(*project.options("32bit 16bit"))
    result.assert_outcomes(passed=2, failed=4)
    assert project.read("alive.json") == [0, 0]
