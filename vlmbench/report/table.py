"""The summary table at the end of a session, no wider than the terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import compress
from typing import TYPE_CHECKING

from vlmbench.run import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vlmbench.bench import Bench
    from vlmbench.run import Run
    from vlmbench.verdict import Comparison, Verdict

_OPTIONAL = ("per s", "MB", "ms", "base")
"""Columns that a narrow terminal does without, the first one first."""
_COLOURS = {
    "regression": "bold red",
    "error": "magenta",
    "inconclusive": "yellow",
    "improved": "cyan",
    "pass": "green",
}


def render(bench: Bench, width: int) -> str:
    """A table for each data set, a line for each run made.

    `base` is the baseline of the metric before it; `ms` the median latency of an answer in the
    probe batch; `MB` the footprint of the weights; `per s` answers a second over the data set.
    """
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=None, highlight=False)
    for dataset in bench.datasets:
        runs = {
            cell.variant: bench.runs[cell.id]
            for cell in bench.cells()
            if cell.dataset == dataset and cell.id in bench.runs
        }
        if runs:
            console.print(_fitting(console, dataset.name, runs, bench))
    return out.getvalue()


def notes(bench: Bench) -> list[str]:
    """What the table leaves open, a line each: what is inconclusive, waived, or not of today."""
    lines = []
    for cell, verdict in bench.verdicts.items():
        for c in verdict.comparisons:
            if c.status == "inconclusive":
                lines.append(f"{cell} {c.gate.metric}: drop {c.drop:.4f}, {c.why}")
    lines += [f"waived: {waiver}" for waiver in bench.waivers if waiver.cell in bench.verdicts]
    if bench.reused:
        lines.append(
            f"{len(bench.reused)} of {len(bench.runs)} cells are unchanged: answered by an earlier "
            "session (--fresh answers them again)"
        )
    lines += bench.written
    return lines + [one_line(trouble) for trouble in dict.fromkeys(bench.store.troubles)]


def _fitting(console: Console, dataset: str, runs: dict[str, Run], bench: Bench) -> Table:
    """The table with as many columns as fit; what is still too wide is folded, never cut."""
    endless = console.options.update(max_width=10_000)
    tables = (_table(dataset, runs, bench, _OPTIONAL[:n]) for n in range(len(_OPTIONAL) + 1))
    for table in tables:
        if console.measure(table, options=endless).maximum <= console.width:
            break
    # Rather the names of metrics than those of variants.
    table.columns[0].no_wrap = 3 * max(map(len, runs)) <= console.width
    return table


def _table(dataset: str, runs: dict[str, Run], bench: Bench, hidden: tuple[str, ...]) -> Table:
    from rich.table import Table

    gates = [gate.metric for d in bench.datasets if d.name == dataset for gate in d.gates]
    title = f"{dataset} ({bench.options.tier})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", overflow="fold")
    pairs = [column for metric in gates for column in (metric, "base")]
    columns = [*pairs, "verdict", "ms", "MB", "per s"]
    shown = [column not in hidden for column in columns]
    for column in compress(columns, shown):
        table.add_column(column, justify="right", overflow="fold", no_wrap=column not in gates)
    for variant, run in runs.items():
        table.add_row(variant, *compress(_row(run, gates, bench), shown))
    return table


def _row(run: Run, gates: list[str], bench: Bench) -> Iterator[str]:
    verdict = bench.verdicts.get(run.cell)
    compared = _compared(verdict)
    for metric in gates:
        yield f"{run.mean(metric):.3f}"
        yield f"{compared[metric].expected:.3f}" if metric in compared else "-"
    status = verdict.status if verdict else "not judged"
    yield f"[{_COLOURS.get(status, 'yellow')}]{status}[/]"
    latency = bench.latencies.get(run.cell)
    yield f"{latency * 1e3:.0f}" if latency else "-"
    yield f"{run.footprint_bytes / 1e6:.2f}"
    yield f"{run.samples_per_s:.0f}"


def _compared(verdict: Verdict | None) -> dict[str, Comparison]:
    return {c.gate.metric: c for c in verdict.comparisons} if verdict else {}
