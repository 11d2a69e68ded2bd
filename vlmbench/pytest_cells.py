"""Which cells a test is run for, in which order, and what its `baseline` is."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING

import pytest

from vlmbench import catalogue, selection
from vlmbench.bench import Bench
from vlmbench.errors import BaselineError, UnknownNameError, UsageError
from vlmbench.spec import Cell, Dataset

if TYPE_CHECKING:
    from vlmbench.run import Run
    from vlmbench.verdict import Verdict

_VARIANT = {"model", "compression", "variant", "run", "baseline"}
_DATASET = {"dataset", "sample", "run", "baseline"}
DEMOS = 10


class Expected:
    """A cell's baseline, as a test compares with it: `assert run >= baseline`."""

    def __init__(self, cell: Cell, bench: Bench) -> None:
        self.cell, self._bench = cell, bench
        self.verdict: Verdict | None = None

    def judge(self, run: Run) -> Verdict:
        """Compare, writing the baseline first where the options say so."""
        if self.verdict is None or self.verdict.run is not run:
            try:
                self.verdict = self._bench.judge(self.cell, run)
            except BaselineError as error:
                raise BaselineError(self._bench.options.told(str(error))) from None
        return self.verdict

    def __le__(self, run: Run) -> bool:
        """Whether `run` is no worse, and needs no waiver that it has."""
        return self._bench.accepts(self.judge(run))

    def explain(self) -> tuple[list[str], list[str]]:
        """(metrics and what to do, worst samples): why a run fails.

        The first part is short: pytest cuts an assertion's explanation after eight lines.
        """
        assert self.verdict is not None, "judge a run first"
        complaints = self._bench.complaints(self.verdict)
        remedy = self._bench.options.told(self.verdict.remedy)
        short = [*self.verdict.summary(), *complaints, remedy]
        return short, self.verdict.details()

    def __repr__(self) -> str:
        return f"baseline of {self.cell.id}"


def plan(items: list[pytest.Item], bench: Bench) -> None:
    """Say how many gated metrics the selected tests will judge."""
    # A project may have a fixture `baseline` of its own, which is about no cell.
    judged = {
        item.callspec.params.get("vlmbench_cell")
        for item in items
        if "baseline" in getattr(item, "fixturenames", ()) and hasattr(item, "callspec")
    }
    bench.planned = sum(len(cell.dataset.gates) for cell in bench.cells() if cell.id in judged)


def check_markexpr(config: pytest.Config) -> None:
    """Refuse a name in `-m` that no mark has: it would select nothing, in silence."""
    known = {line.split(":")[0].split("(")[0].strip() for line in config.getini("markers")}
    # Without what is in the brackets of mark(key="value").
    expression = re.sub(r"\([^()]*=[^()]*\)", "", config.getoption("markexpr") or "")
    names = set(re.findall(r"[A-Za-z_]\w*", expression))
    for name in sorted(names - known - {"and", "or", "not", "True", "False"}):
        raise pytest.UsageError(f"-m: {UnknownNameError('mark', name, known)}")


def parametrize(metafunc: pytest.Metafunc, bench: Bench) -> None:
    """Give `metafunc` a cell for each combination of the axes that its fixtures need."""
    wanted = set(metafunc.fixturenames)
    if "vlmbench_cell" not in wanted:
        return
    # A test of variants alone, or of data sets alone, is not run again for the other axis.
    name: Callable[[Cell], str] = attrgetter("id")
    if not wanted & _DATASET:
        name = attrgetter("variant")
    elif not wanted & _VARIANT:
        name = attrgetter("dataset.name")
    cells = {name(cell): cell for cell in reversed(_restricted(metafunc, bench))}
    names, params = ["vlmbench_cell"], []
    for label, cell in reversed(cells.items()):
        marks = [getattr(pytest.mark, cell.dataset.name)] if wanted & _DATASET else []
        marks += [pytest.mark.maker] if selection.makes(cell.compression) else []
        marks += [pytest.mark.trained] if selection.trains(cell.compression) else []
        if "vlmbench_demo" in wanted:
            names = ["vlmbench_cell", "vlmbench_demo"]
            params += [
                pytest.param(cell.id, demo, id=f"{label}-{demo}", marks=marks)
                for demo in demo_names(cell.dataset)
            ]
        else:
            params.append(pytest.param(cell.id, id=label, marks=marks))
    metafunc.parametrize(names, params, indirect=True)


def _restricted(metafunc: pytest.Metafunc, bench: Bench) -> list[Cell]:
    """The cells that the test's `cells` mark leaves."""
    cells = bench.cells()
    for mark in metafunc.definition.iter_markers("cells"):
        unknown = set(mark.kwargs) - {"models", "compressions", "datasets"}
        if unknown or mark.args:
            raise UsageError(
                "mark 'cells' takes models=[...], "
                f"compressions=[...] and datasets=[...], got {sorted(unknown) or mark.args}"
            )
        entries = bench.entries
        for kind, known in (
            ("model", {model.name: model for model in bench.models} | dict(entries.models)),
            ("compression", entries.compressions),
            ("dataset", entries.datasets),
        ):
            names = mark.kwargs.get(f"{kind}s")
            if isinstance(names, str):
                raise UsageError(f"mark 'cells': expected {kind}s=[{names!r}], a list")
            if names is not None:
                for name in names:
                    catalogue.find(kind, name, known)
                cells = [cell for cell in cells if getattr(cell, kind).name in names]
    return cells


def demo_names(dataset: Dataset) -> tuple[str, ...]:
    """Names of the first rows, whose answers are snapshots."""
    return dataset.demos or tuple(f"row{i}" for i in range(DEMOS))


def sort(items: list[pytest.Item], bench: Bench) -> None:
    """Order tests by variant, then data set, demos last; tests of no cell stay before them."""
    order = {cell.id: i for i, cell in enumerate(bench.cells())}

    def place(item: pytest.Item) -> tuple[int, bool]:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        return order.get(params.get("vlmbench_cell", ""), -1), "vlmbench_demo" in params

    items.sort(key=place)
