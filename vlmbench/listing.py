"""What there is, as text: models, recipes by family, data sets and metrics."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from itertools import groupby
from typing import Any

from vlmbench.chain import Chain
from vlmbench.options import Entries
from vlmbench.spec import Compression


def listing(entries: Entries) -> str:
    """Every entry's name, and what it is in a few words."""
    models = {
        model.name: model.architecture + ("" if "embedded" in model.sources else " (hub tier)")
        for model in entries.models.values()
    }
    datasets = {
        dataset.name: "gated on " + ", ".join(gate.metric for gate in dataset.gates)
        for dataset in entries.datasets.values()
    }
    metrics = {metric.name: metric.version for metric in entries.metrics.values()}
    lines = ["models", *_lines(models), "compressions"]
    for family, recipes in groupby(sorted(entries.compressions.values(), key=_family), key=_family):
        lines += [f"  {family}", *_lines(_told(list(recipes)), indent=4)]
    lines += ["data sets", *_lines(datasets), "metrics", *_lines(metrics)]
    return "\n".join(lines)


def _lines(entries: dict[str, str], indent: int = 2) -> list[str]:
    return [f"{' ' * indent}{name:{26 - indent}} {what}".rstrip() for name, what in entries.items()]


def _family(recipe: Compression) -> str:
    return (type(recipe).__doc__ or type(recipe).__name__).splitlines()[0]


def _told(family: list[Compression]) -> dict[str, str]:
    """What tells each from others of its family."""
    values = {recipe.name: _values(recipe) for recipe in family}
    common = set.intersection(*({*told.items()} for told in values.values()))
    return {
        name: ", ".join(f"{k}={v}" if k else v for k, v in told.items() if (k, v) not in common)
        for name, told in values.items()
    }


def _values(recipe: Any) -> dict[str, str]:
    if isinstance(recipe, Chain):
        return {"": " -> ".join(part.name for part in recipe.parts)}
    if not is_dataclass(recipe):
        return {}
    return {
        field.name: _written(getattr(recipe, field.name))
        for field in fields(recipe)
        if field.name != "name"
    }


def _written(value: Any) -> str:
    return "+".join(sorted(value)) if isinstance(value, frozenset) else str(value)
