"""Who may loosen the gate, and how: margins and floors of a project, and waivers with an owner."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlmbench import catalogue
from vlmbench.errors import UsageError
from vlmbench.spec import Dataset, Gate

WAIVERS = "waivers.toml"
_KEYS = {"cell", "metric", "reason", "owner", "expires"}


def adjusted(
    datasets: Mapping[str, Dataset], margins: Iterable[str], floors: Iterable[str]
) -> dict[str, Dataset]:
    """Data sets whose gates have a project's own margins and floors; the last entry wins.

    Entries are `METRIC=VALUE`, or `DATASET.METRIC=VALUE` for one data set.

    Raises:
        UsageError: an entry is not of that form, or names no gated metric.
    """
    made = dict(datasets)
    for field, entries in (("margin", margins), ("floor", floors)):
        for entry in entries:
            where, metric, value = _parsed(entry, field)
            if where:
                catalogue.find("data set", where, made)
            met = False
            for name in [where] if where else list(made):
                gates = tuple(
                    _with(gate, field, value) if gate.metric == metric else gate
                    for gate in made[name].gates
                )
                met |= any(gate.metric == metric for gate in gates)
                made[name] = replace(made[name], gates=gates)
            if not met:
                known = {
                    g.metric for d in made.values() for g in d.gates if d.name == where or not where
                }
                raise UsageError(
                    f"{field} {entry!r}: {metric!r} gates nothing there. "
                    f"Gated: {', '.join(sorted(known))}."
                )
    return made


def _with(gate: Gate, field: str, value: float) -> Gate:
    return replace(gate, margin=value) if field == "margin" else replace(gate, floor=value)


def _parsed(entry: str, field: str) -> tuple[str, str, float]:
    name, equals, text = entry.partition("=")
    where, _, metric = name.strip().rpartition(".")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not equals or not metric or not 0 <= value < float("inf"):
        raise UsageError(
            f"{field} {entry!r}: expected METRIC=VALUE or DATASET.METRIC=VALUE with a value of at "
            f"least 0, such as docvqa.anls=0.03"
        )
    return where, metric, value


@dataclass(frozen=True)
class Waiver:
    """A known regression of one cell, which somebody answers for until a day."""

    cell: str
    metric: str
    reason: str
    owner: str
    expires: datetime.date

    @property
    def expired(self) -> bool:
        """Whether the last day is over."""
        return self.expires < datetime.date.today()

    def __str__(self) -> str:
        return f"{self.cell} {self.metric}: {self.reason} ({self.owner}, until {self.expires})"


def read_waivers(path: Path, gates: Mapping[str, Iterable[Gate]]) -> list[Waiver]:
    """The waivers of a tier; none where there is no file.

    `gates`: the gated metrics of every cell there is, by the cell's id.

    Raises:
        UsageError: an entry lacks something, or its metric gates nothing in that cell.
    """
    if not path.exists():
        return []
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}). Expected [[waiver]] tables.") from None
    entries = data.get("waiver", [])
    tables = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if set(data) - {"waiver"} or not tables:
        raise UsageError(f"{path}: expected [[waiver]] tables alone, found {', '.join(data)}")
    return [_waiver(path, entry, gates) for entry in entries]


def _waiver(path: Path, entry: Mapping[str, object], gates: Mapping[str, Iterable[Gate]]) -> Waiver:
    named = f"{path}: the waiver of {entry.get('cell', '?')} {entry.get('metric', '?')}"
    if set(entry) != _KEYS or not all(entry.values()):
        raise UsageError(f"{named} must have exactly {', '.join(sorted(_KEYS))}, none empty")
    expires = entry["expires"]
    if not isinstance(expires, datetime.date) or isinstance(expires, datetime.datetime):
        raise UsageError(f"{named}: expires must be a day, such as 2027-01-31 (no quotes)")
    cell, metric = str(entry["cell"]), str(entry["metric"])
    if cell in gates and metric not in {gate.metric for gate in gates[cell]}:
        raise UsageError(f"{named}: {metric!r} is no gated metric of that cell")
    return Waiver(cell, metric, str(entry["reason"]), str(entry["owner"]), expires)
