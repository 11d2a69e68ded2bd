"""Tables of stored runs and what was published of them, as text in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from vlmbench.baseline import in_tier
from vlmbench.report.latencies import Times
from vlmbench.report.published import SECONDS, Finding, Judged, Runs
from vlmbench.report.tables import Table, absent, tables

_ABOUT = """\
A cell is the mean score, its standard error over pictures, and its share of the uncompressed score.
The same direction: both changes go the same way, or both are too small to count. Of a change within
two standard errors one cannot tell.
"""
_TIMES = (
    "Baselines keep no seconds, histories do:  pytest tests/benchmarks --benchmark-autosave, then "
    "vlmbench tables --history FILE\n"
)
_ANSWERS = {True: "yes", False: "no", None: "cannot tell"}


def markdown(tier: str, runs: Runs, known: Sequence[Finding], times: Times | None = None) -> str:
    """All tables of stored runs, and what was published, as one text."""
    lines = [_ABOUT]
    if none := absent(runs, known):
        lines.append(f"Published, but without a stored run in this tier: {', '.join(none)}.\n")
    for table in tables(runs, known, times):
        lines += _lines(tier, table, timed=bool(times))
    return "\n".join(lines)


def _lines(tier: str, table: Table, *, timed: bool) -> Iterator[str]:
    yield f"## {table.section.title} ({tier})\n"
    yield from _grid(("model", "data set", "metric", *table.section.compressions), table.rows)
    if table.missing:
        names = dict.fromkeys(name for _, _, name in table.missing)
        chosen = "".join(f" --compression {name}" for name in names)
        yield (
            f"{len(table.missing)} cells have no stored run. This makes them:\n\n"
            f"    pytest tests/benchmarks/test_regression.py{in_tier(tier)}{chosen} "
            "--baseline-new\n"
        )
    judged = [one for one in table.judged if one.stored]
    if unknown := len(table.judged) - len(judged):
        yield f"Published findings without stored runs to judge them by: {unknown}.\n"
    if not timed and any(one.finding.metric == SECONDS for one in table.judged):
        yield _TIMES
    if not judged:
        yield "Published: nothing of what is stored.\n"
        return
    rows = [
        (one.finding.says, one.model, one.dataset, one.published, one.here, _answer(one))
        for one in judged
    ]
    yield from _grid(("published", "model", "data set", "figures", "here", "same direction"), rows)
    same = [one.same for one in judged]
    counts = ", ".join(f"{text} {same.count(key)}" for key, text in _ANSWERS.items())
    yield f"Same direction: {counts}.\n"
    for source in dict.fromkeys(one.finding.source for one in judged):
        yield f"- {_safe(source)}"
    yield ""


def _answer(one: Judged) -> str:
    return _ANSWERS[one.same] + (
        f"; the other way on {', '.join(one.unlike)}" if one.unlike and one.same else ""
    )


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(map(_safe, row))} |"
    yield ""


def _safe(text: str) -> str:
    """Text from files, as Markdown shows it: on one line, no markup."""
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return re.sub(r"([\\`*\[\]<|&!#~$])", r"\\\1", plain)
