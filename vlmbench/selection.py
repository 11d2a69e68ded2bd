"""Which models and data sets a session has: those of the catalogue, or a user's own by address."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from vlmbench import catalogue
from vlmbench.chain import Chain
from vlmbench.compression.bnb import LM_INT8
from vlmbench.compression.precision import FLOAT32, STORED
from vlmbench.errors import CheckpointError, UnknownNameError, UsageError
from vlmbench.options import Entries, Options
from vlmbench.shipped import is_stored, parts_of, refusal, shipped, wants_stored
from vlmbench.spec import Cell, Compression, Dataset, Maker, Model, Runtime, Source

T = TypeVar("T")


def models(options: Options, entries: Entries) -> list[Model]:
    """The models asked for, or all of the tier; `NAME=WHERE` is one from another address.

    Raises:
        UnknownNameError: there is no such model.
        UsageError: there is no adapter for the architecture at `WHERE`.
    """

    def adopt(name: str, where: str) -> Model:
        model = entries.models.get(name) or _adapter(name, where, entries)
        return dataclasses.replace(model, name=name, sources={options.tier: Source(where)})

    if not options.models:
        return [model for model in entries.models.values() if options.tier in model.sources]
    return _chosen("model", options.models, entries.models, adopt)


def compressions(options: Options, entries: Entries) -> list[Compression]:
    """The recipes asked for, or all; `A+B` is a chain of known ones, `A_ft` one fine-tuned.

    Raises:
        UnknownNameError: there is no such recipe.
        UsageError: a chain cannot mean anything.
    """
    wanted = options.compressions or entries.compressions
    return [compression(name, entries.compressions) for name in wanted]


def compression(name: str, known: Mapping[str, Compression]) -> Compression:
    """The recipe of that name; see `compressions`."""
    if name in known:
        return known[name]
    links = [link for part in name.split("+") for link in _links(part, known)]
    found = [catalogue.find("compression", link, known) for link in links]
    parts = [part for one in found for part in parts_of(one)]
    return Chain(name, tuple(parts)) if len(parts) > 1 else parts[0]


def makes(recipe: Compression) -> bool:
    """Whether more than a loader has a part in a recipe."""
    return isinstance(recipe, Maker | Runtime | Chain)


def on_request(recipe: Compression) -> bool:
    """Whether a recipe without a baseline waits to be asked for.

    Those that take minutes to make, and `lm8bit`: as slow as `8bit`, and nearly as faithful.
    """
    return makes(recipe) or recipe == LM_INT8


def trains(recipe: Compression) -> bool:
    """Whether a recipe trains for minutes: a part of it says so (`trains = True`)."""
    return any(getattr(part, "trains", False) for part in parts_of(recipe))


def _links(part: str, known: Mapping[str, Compression]) -> list[str]:
    """`depth50_ft_on_docvqa` is depth50, then ft_on_docvqa."""
    first, tuned, rest = part.partition("_ft")
    return [part] if part in known or not (first and tuned) else [first, f"ft{rest}"]


def variants(
    models: Sequence[Model], compressions: Sequence[Compression], entries: Entries
) -> list[tuple[Model, Compression]]:
    """Every model under every recipe that its checkpoint, wherever that is, can be put through.

    Raises:
        UsageError: a model's checkpoint is packed already, and no recipe takes it as it is.
    """
    all_of_them = {recipe.name for recipe in compressions} == set(entries.compressions)
    return [
        (model, compression)
        for model in models
        for compression in _fitting(model, compressions, all_of_them)
    ]


def cells(
    variants: Sequence[tuple[Model, Compression]], datasets: Sequence[Dataset], entries: Entries
) -> list[Cell]:
    """Every pair that can run, variant by variant; what no model claims, any may that can."""
    claimed = {name for model in entries.models.values() for name in model.datasets}
    return [
        Cell(model, compression, dataset)
        for model, compression in variants
        for dataset in datasets
        if dataset.name in model.datasets
        or (dataset.name not in claimed and model.can_answer(dataset))
    ]


def _fitting(
    model: Model, compressions: Sequence[Compression], all_of_them: bool
) -> list[Compression]:
    """The recipes that can be applied to a model's checkpoint, wherever that is.

    `stored` repeats another where a checkpoint is neither packed nor shipped: it must be named.
    """
    sources = list(model.sources.values())
    if all_of_them and not any(map(wants_stored, sources)):
        compressions = [recipe for recipe in compressions if not is_stored(recipe)]
    reasons = [[refusal(source, recipe) for source in sources] for recipe in compressions]
    if reasons and all(map(any, reasons)):
        raise UsageError(next(filter(None, reasons[0])))
    return [r for r, why in zip(compressions, reasons, strict=True) if not any(why)]


def usual(model: str) -> str:
    """The recipe of NAME=WHERE where none is named: `stored` where that was compressed already."""
    _, _, where = model.partition("=")
    return STORED.name if where and wants_stored(Source(where)) else FLOAT32.name


def held_against(cell: Cell, options: Options, entries: Entries) -> str | None:
    """The variant whose baseline `--baseline-of` means for a cell; None: its own.

    A checkpoint that vlmbench compressed is held against the recipe that it has been through.
    """
    if not options.baseline_of:
        return None
    recipe = cell.compression.name
    if is_stored(cell.compression):
        made = shipped(source("model", cell.model, options.tier))
        names = [part.name for part in made.parts if part.name != STORED.name] if made else []
        if names:
            same = (r.name for r in entries.compressions.values() if _names(r) == names)
            recipe = next(same, "+".join(names).replace("+ft", "_ft"))
    return f"{options.baseline_of}_{recipe}"


def _names(recipe: Compression) -> list[str]:
    return [part.name for part in parts_of(recipe)]


def source(kind: str, entry: Model | Dataset, tier: str) -> Source:
    """Where an entry is in a tier.

    Raises:
        UsageError: it is not in that tier.
    """
    found = entry.sources.get(tier)
    if found is None:
        raise UsageError(
            f"{kind} {entry.name!r} is not in tier {tier!r}; it is in "
            f"{', '.join(entry.sources)}. Choose that tier, or leave it out."
        )
    return found


def datasets(options: Options, entries: Entries) -> list[Dataset]:
    """The data sets asked for; `NAME=WHERE` is one with other rows, and no demos of its own."""

    def redirect(name: str, where: str) -> Dataset:
        dataset = catalogue.find("data set", name, entries.datasets)
        return dataclasses.replace(dataset, sources={options.tier: Source(where)}, demos=())

    return _chosen("data set", options.data, entries.datasets, redirect)


def check(
    models: Sequence[Model], compressions: Sequence[Compression], datasets: Sequence[Dataset]
) -> None:
    """Refuse an entry that is named twice.

    Raises:
        UsageError: with its name.
    """
    axes: dict[str, Sequence[Model | Compression | Dataset]]
    axes = {"model": models, "compression": compressions, "data set": datasets}
    for kind, entries in axes.items():
        for name, count in Counter(entry.name for entry in entries).items():
            if count > 1:
                raise UsageError(f"{kind} {name!r} is named {count} times: name it once")


def _adapter(name: str, where: str, entries: Entries) -> Model:
    architecture = _architecture(where)
    known = {model.architecture: model for model in entries.models.values()}
    if architecture not in known:
        raise UsageError(
            f"--model {name}={where}: no adapter for architecture {architecture!r}; there "
            f"are adapters for {', '.join(sorted(known))}. Add one (README, add a model)."
        )
    return known[architecture]


def _chosen(
    kind: str, wanted: tuple[str, ...], entries: Mapping[str, T], adopt: Callable[[str, str], T]
) -> list[T]:
    if not wanted:
        return list(entries.values())
    chosen = []
    for entry in wanted:
        name, equals, where = entry.partition("=")
        if equals and not (name and where):
            raise UsageError(f"{entry!r}: expected NAME or NAME=FOLDER_OR_ID for a {kind}")
        if not equals and name not in entries:
            raise UnknownNameError(kind, name, entries)
        chosen.append(adopt(name, where) if equals else entries[name])
    return chosen


def _architecture(where: str) -> str:
    """The class that a checkpoint's config.json names."""
    path = Path(where).expanduser() / "config.json"
    if not path.parent.is_dir() and not path.parent.is_absolute():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(where, "config.json"))
        except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise CheckpointError(
                f"no checkpoint {where!r}: it is no folder here, and the hub cannot be asked "
                f"({type(error).__name__}). Name a folder that save_pretrained wrote."
            ) from None
    try:
        return str(json.loads(path.read_text())["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Expected the config.json of "
            "a checkpoint as save_pretrained writes it."
        ) from None
