"""The pytest plugin: options, hooks and fixtures. It forwards; it computes nothing."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from vlmbench import comparable, hookspecs, pytest_cells, pytest_options, pytest_workers
from vlmbench.bench import Bench
from vlmbench.errors import CatalogueError, VlmbenchError
from vlmbench.options import catalogued

if TYPE_CHECKING:
    from vlmbench.run import Run
    from vlmbench.spec import Cell, Compression, Dataset, Model, Sample
    from vlmbench.variant import Variant

ERRORED = 8
"""Exit code where tests failed, but none because of a regression: nothing could be judged."""
_BENCH = pytest.StashKey[Bench]()
_HEARD = pytest.StashKey[set[str]]()
"""Whose hooks were called for further entries."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    pytest_options.declare(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Build the session's bench; register a mark for each data set."""
    if pytest_workers.is_worker(config):
        pytest_workers.share(config)
    try:
        entries = catalogued(*map(_added, _own_hooks(config)))
        asked = pytest_options.options(config)
        device = pytest_workers.device(config, asked.device)
        config.stash[_BENCH] = Bench(dataclasses.replace(asked, device=device), entries)
    except VlmbenchError as error:
        raise pytest.UsageError(str(error)) from None
    for name in entries.datasets:
        config.addinivalue_line("markers", f"{name}: cells on the data set {name}")
    config.addinivalue_line("markers", "maker: cells of recipes that make a checkpoint, or chains")
    config.addinivalue_line("markers", "trained: cells of recipes that train for minutes")
    config.addinivalue_line(
        "markers",
        "cells(models=[...], compressions=[...], datasets=[...]): only these axes for one test",
    )
    config.stash[_HEARD] = _implementations(config)


def _own_hooks(config: pytest.Config) -> list[Any]:
    return [getattr(config.hook, name) for name in vars(hookspecs) if name.startswith("pytest_")]


def _implementations(config: pytest.Config) -> set[str]:
    return {impl.plugin_name for hook in _own_hooks(config) for impl in hook.get_hookimpls()}


def _added(hook: Any) -> list[Any]:
    answers = hook()
    for answer in answers:
        if not isinstance(answer, list | tuple):
            raise CatalogueError(f"{hook.name} must return a list, got {answer!r}")
    return [entry for answer in answers for entry in answer]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Check `-m`, now that every plugin has registered its marks."""
    pytest_cells.check_markexpr(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that ask for our fixtures by the cells, variants, data sets or samples."""
    try:
        pytest_cells.parametrize(metafunc, metafunc.config.stash[_BENCH])
    except VlmbenchError as error:
        # pytest shows the message alone, at the file's name; a UsageError would be a traceback.
        where = metafunc.definition.nodeid
        raise pytest.Collector.CollectError(f"{where}: {error}") from None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests of one variant together, so that it is loaded once."""
    heard: set[str] = config.stash[_HEARD]
    for late in _implementations(config) - heard:
        raise pytest.UsageError(
            f"{late} has a pytest_vlmbench_ hook that was found too late: move it to the "
            "conftest.py beside pytest.ini, or name its folder on the command line"
        )
    pytest_cells.sort(items, config.stash[_BENCH])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count what will be judged: the more, the stricter each comparison."""
    pytest_cells.plan(session.items, session.config.stash[_BENCH])


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fail what only all comparisons together tell; tell errors from regressions."""
    yield  # other plugins add their own status to what they find
    bench = session.config.stash[_BENCH]
    if pytest_workers.is_worker(session.config):
        pytest_workers.send(session.config, bench)
        return
    late = bench.settle()
    if late and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    failed = session.exitstatus == pytest.ExitCode.TESTS_FAILED
    if failed and not late and session.testsfailed == bench.errored:
        session.exitstatus = ERRORED


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """What a latency was measured in: device, driver, versions; no clock that never stands."""
    from vlmbench import measure

    return measure.environment(config.stash[_BENCH].options.device)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Judge no latency by one that was measured in something else."""
    differing = [
        f"  {difference}"
        for difference in comparable.differences(compared_benchmark["machine_info"], machine_info)
    ]
    if differing and config.getoption("benchmark_compare_fail"):
        raise pytest.UsageError(
            "--benchmark-compare-fail: the latencies compared with were measured in something "
            "else and cannot judge these:\n"
            + "\n".join(differing)
            + "\nMeasure anew where it was measured, or leave --benchmark-compare-fail out."
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Unless another distribution was asked for, keep the tests of a variant together."""
    if config.getoption("dist") != "load":
        return None
    return pytest_workers.ByVariant(config, log, config.stash[_BENCH])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over what a worker judged."""
    pytest_workers.receive(node, node.config.stash[_BENCH])


def pytest_report_header(config: pytest.Config) -> str:
    """Say which tier is judged, and what of the matrix cannot run."""
    bench = config.stash[_BENCH]
    cells = len(bench.cells())
    pairs = len(bench.models) * len(bench.compressions) * len(bench.datasets)
    mute = pairs - cells - bench.left_out
    told = [f"vlmbench: tier {bench.options.tier}, {cells} cells"]
    told += [f"{mute} pairs left out: the model cannot answer"] if mute else []
    told += [f"{bench.left_out} without a baseline (--matrix full)"] if bench.left_out else []
    return ", ".join(told)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A mistake of the user's is told in its own words, without our traceback."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    bench = item.config.stash[_BENCH]
    if isinstance(error, VlmbenchError):
        report.longrepr = f"{type(error).__name__}: {error}"
        bench.errored += report.failed
    expected = (getattr(item, "funcargs", None) or {}).get("baseline")
    if isinstance(error, AssertionError) and isinstance(expected, pytest_cells.Expected):
        _, samples = expected.explain() if expected.verdict else ([], [])
        unjudged = expected.verdict is not None and expected.verdict.status == "error"
        bench.errored += report.failed and unjudged
        if samples:
            report.sections.append((f"worst samples of {expected.cell.id}", "\n".join(samples)))
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain `assert run >= baseline`."""
    if op == ">=" and isinstance(right, pytest_cells.Expected) and right.verdict is not None:
        return right.explain()[0]
    return None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the table of the cells that were judged."""
    bench = config.stash[_BENCH]
    if bench.runs:
        from vlmbench.report.table import notes, render

        width = terminalreporter._tw.fullwidth
        terminalreporter.section(f"vlmbench ({bench.options.tier})")
        terminalreporter.write(render(bench, width))
        late = [line for cell in bench.late for line in bench.verdicts[cell].explain()]
        for line in [*notes(bench), *late]:
            terminalreporter.write_line(line)


@pytest.fixture
def model(vlmbench_cell: Cell) -> Model:
    """The model (vlmbench.spec.Model): where its checkpoint is, what its modules are called."""
    return vlmbench_cell.model


@pytest.fixture
def compression(vlmbench_cell: Cell) -> Compression:
    """The compression recipe (vlmbench.spec.Compression)."""
    return vlmbench_cell.compression


@pytest.fixture
def variant(vlmbench_cell: Cell, bench: Bench) -> Variant:
    """The loaded model under the compression; loaded once for all tests that use it."""
    return bench.variant(vlmbench_cell.model, vlmbench_cell.compression, lent=True)


@pytest.fixture
def dataset(vlmbench_cell: Cell) -> Dataset:
    """The data set (vlmbench.spec.Dataset)."""
    return vlmbench_cell.dataset


@pytest.fixture
def sample(vlmbench_cell: Cell, vlmbench_demo: str, bench: Bench) -> Sample:
    """One of the data set's ten demo samples."""
    index = pytest_cells.demo_names(vlmbench_cell.dataset).index(vlmbench_demo)
    samples = bench.samples(vlmbench_cell.dataset).items
    if index >= len(samples):
        pytest.skip(f"there are only {len(samples)} samples: no demo {vlmbench_demo!r}")
    return samples[index]


@pytest.fixture
def run(vlmbench_cell: Cell, bench: Bench, pytestconfig: pytest.Config) -> Run:
    """The cell's run: every answer on the data set with its scores; made once a session."""
    return bench.run(vlmbench_cell, _progress(pytestconfig))


@pytest.fixture
def baseline(vlmbench_cell: Cell, bench: Bench) -> pytest_cells.Expected:
    """The cell's stored baseline: `assert run >= baseline` says that no answer got worse."""
    return pytest_cells.Expected(vlmbench_cell, bench)


@pytest.fixture
def vlmbench_cell(request: pytest.FixtureRequest, bench: Bench) -> Cell:
    """The cell that the other fixtures are about."""
    # By its name, which pytest-benchmark keeps; of an object it would keep the repr.
    return bench.cell(request.param)


@pytest.fixture
def vlmbench_demo(request: pytest.FixtureRequest) -> str:
    """The name of the demo that `sample` is about."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def bench(pytestconfig: pytest.Config) -> Bench:
    """The session: options, samples, runs and the one loaded variant."""
    return pytestconfig.stash[_BENCH]


def _progress(config: pytest.Config) -> Callable[[Cell, int, int], None]:
    """A progress bar on a terminal that somebody watches; else nothing."""
    # The bars of several workers would mix.
    if (
        pytest_workers.is_worker(config)
        or os.environ.get("CI")
        or not sys.__stderr__
        or not sys.__stderr__.isatty()
    ):
        return lambda cell, done, total: None
    from vlmbench.report.progress import Bar

    return Bar(config.pluginmanager.getplugin("capturemanager"))
