"""The pytest plugin: options, hooks and fixtures. It forwards; it computes nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlmbench import pytest_cells
from vlmbench.bench import Bench, Options, catalogued
from vlmbench.errors import UnknownNameError, VlmbenchError

if TYPE_CHECKING:
    from vlmbench.run import Run
    from vlmbench.spec import Cell, Compression, Dataset, Model, Sample
    from vlmbench.variant import Variant

_BENCH = pytest.StashKey[Bench]()


class Hooks:
    """Hooks that a user's own conftest.py may implement, one for each axis."""

    @pytest.hookspec
    def pytest_vlmbench_models(self) -> list[Model]:  # type: ignore[empty-body]
        """Further models."""

    @pytest.hookspec
    def pytest_vlmbench_compressions(self) -> list[Compression]:  # type: ignore[empty-body]
        """Further compressions."""

    @pytest.hookspec
    def pytest_vlmbench_datasets(self) -> list[Dataset]:  # type: ignore[empty-body]
        """Further data sets."""

    @pytest.hookspec
    def pytest_vlmbench_metrics(self) -> list[Any]:  # type: ignore[empty-body]
        """Further metrics."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("vlmbench", "compressed vision-language models")
    add = group.addoption
    add(
        "--tier",
        choices=("embedded", "hub"),
        default="embedded",
        help="embedded: checkpoints and data in this package; hub: the published ones",
    )
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=WHERE]",
        help="only this model; WHERE: a checkpoint folder or hub id (repeatable)",
    )
    add(
        "--compression",
        action="append",
        default=[],
        metavar="NAME",
        help="only this compression (repeatable)",
    )
    add(
        "--data",
        action="append",
        default=[],
        metavar="NAME[=WHERE]",
        help="only this data set; WHERE: a folder of parquet files or hub id (repeatable)",
    )
    add("--limit", type=int, metavar="N", help="only the first N samples of each data set")
    add("--device", default="cpu", help="torch device (default: cpu)")
    add("--dtype", help="dtype of what a recipe leaves unquantized, such as float32")
    add("--batch-size", type=int, default=64, metavar="N", help="samples a batch (default: 64)")
    add("--baselines", type=Path, metavar="DIR", help="default: baselines/ beside pytest.ini")
    add("--baseline-of", metavar="MODEL", help="compare with another model's baselines")
    add(
        "--baseline-new",
        dest="baseline_write",
        action="store_const",
        const="new",
        help="write the baselines that are missing",
    )
    add(
        "--baseline-update",
        dest="baseline_write",
        action="store_const",
        const="update",
        help="rewrite the baselines of the selected cells",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Build the session's bench; register a mark for each data set."""
    option = config.getoption
    hook = config.hook
    try:
        entries = catalogued(
            *(
                [entry for entries in extra() for entry in entries]
                for extra in (
                    hook.pytest_vlmbench_models,
                    hook.pytest_vlmbench_compressions,
                    hook.pytest_vlmbench_datasets,
                    hook.pytest_vlmbench_metrics,
                )
            )
        )
        config.stash[_BENCH] = Bench(
            Options(
                tier=option("tier"),
                models=tuple(option("model")),
                compressions=tuple(option("compression")),
                data=tuple(option("data")),
                limit=option("limit"),
                device=option("device"),
                dtype=option("dtype"),
                batch_size=option("batch_size"),
                baselines=option("baselines") or config.rootpath / "baselines",
                baseline_of=option("baseline_of"),
                write=option("baseline_write"),
            ),
            entries,
        )
    except VlmbenchError as error:
        raise pytest.UsageError(str(error)) from None
    for name in entries.datasets:
        config.addinivalue_line("markers", f"{name}: cells on the data set {name}")
    config.addinivalue_line(
        "markers",
        "cells(models=[...], compressions=[...], datasets=[...]): only these axes for one test",
    )
    _check_markexpr(config)


def _check_markexpr(config: pytest.Config) -> None:
    """A name in `-m` that no mark has would select nothing, in silence."""
    known = {line.split(":")[0].split("(")[0].strip() for line in config.getini("markers")}
    names = set(re.findall(r"[A-Za-z_]\w*", config.getoption("markexpr") or ""))
    for name in sorted(names - known - {"and", "or", "not", "True", "False"}):
        raise pytest.UsageError(f"-m: {UnknownNameError('mark', name, known)}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that ask for our fixtures by the cells, variants, data sets or samples."""
    try:
        pytest_cells.parametrize(metafunc, metafunc.config.stash[_BENCH])
    except VlmbenchError as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests of one variant together, so that it is loaded once."""
    pytest_cells.sort(items, config.stash[_BENCH])


def pytest_report_header(config: pytest.Config) -> str:
    """Say which tier is judged, and what of the matrix cannot run."""
    bench = config.stash[_BENCH]
    cells = len(bench.cells())
    pairs = len(bench.models) * len(bench.compressions) * len(bench.datasets)
    left_out = f", {pairs - cells} pairs left out: the model cannot answer" if pairs > cells else ""
    return f"vlmbench: tier {bench.options.tier}, {cells} cells{left_out}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A mistake of the user's is told in its own words, without our traceback."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, VlmbenchError):
        report.longrepr = f"{type(call.excinfo.value).__name__}: {call.excinfo.value}"
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain `assert run >= baseline`."""
    if op == ">=" and isinstance(right, pytest_cells.Expected) and right.verdict is not None:
        return right.verdict.explain()
    return None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the table of the cells that were judged."""
    bench = config.stash[_BENCH]
    if bench.runs:
        from vlmbench.report.table import render

        width = terminalreporter._tw.fullwidth
        terminalreporter.section(f"vlmbench ({bench.options.tier})")
        terminalreporter.write(render(bench, width))


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
    return bench.variant(vlmbench_cell.model, vlmbench_cell.compression)


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
def vlmbench_cell(request: pytest.FixtureRequest) -> Cell:
    """The cell that the other fixtures are about."""
    return request.param  # type: ignore[no-any-return]


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
    if os.environ.get("CI") or not sys.__stderr__ or not sys.__stderr__.isatty():
        return lambda cell, done, total: None
    from vlmbench.report.progress import Bar

    return Bar(config.pluginmanager.getplugin("capturemanager"))
