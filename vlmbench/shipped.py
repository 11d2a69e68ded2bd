"""What `vlmbench compress` wrote: its recipe.json, and whether a folder still is what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmbench.census import Census
from vlmbench.chain import Chain
from vlmbench.checkpoint import is_folder
from vlmbench.compression.precision import Stored
from vlmbench.errors import CensusError, CheckpointError
from vlmbench.files import content_of
from vlmbench.run import one_line
from vlmbench.spec import Compression, Maker, Runtime, Source

RECIPE = "recipe.json"
FORMAT = 1
"""Of recipe.json; changes when an older vlmbench would read it wrongly."""
LAYERS = "vlmbench_layers"
"""As `vlmbench.layers.FIELD`, which only a module that imports torch has."""

# What a loader may read.
_READ = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True)
class Part:
    """A recipe that was applied."""

    name: str
    recipe: str
    """With all its fields."""


@dataclass(frozen=True)
class File:
    """A file as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shipped:
    """What a recipe.json tells."""

    parts: tuple[Part, ...]
    """What was applied, in order."""
    census: Census
    files: Mapping[str, File]
    """Every other file, by its path in the folder."""


def shipped(source: Source) -> Shipped | None:
    """What the recipe.json at `source` tells; None: there is none.

    Raises:
        CheckpointError: it is damaged, of another format, or was never finished.
    """
    from pydantic import TypeAdapter

    path = _folder(source) / RECIPE
    if not is_folder(source) or not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise CheckpointError(
                f"{path} is of format {told['format']!r}, expected {FORMAT}: another version of "
                "vlmbench wrote it. Use that one, or compress again."
            )
        if "files" not in told:
            raise CheckpointError(
                f"{path.parent} was never finished: its {RECIPE} lists no files. Delete it and "
                "compress again."
            )
        parts = TypeAdapter(list[Part]).validate_python(told["parts"])
        files = TypeAdapter(dict[str, File]).validate_python(told["files"])
        return Shipped(tuple(parts), Census.from_dict(told["census"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {one_line(str(error))}). Expected "
            "what vlmbench compress wrote: copy the folder again, or compress again."
        ) from None


def check_files(source: Source) -> Shipped | None:
    """Hold a folder against its recipe.json, and return that; None: there is none.

    Raises:
        CheckpointError: a file is missing, changed or not listed.
    """
    made = shipped(source)
    faults = list(_faults(_folder(source), made.files)) if made else []
    if faults:
        raise CheckpointError(
            f"{source.location} is not as vlmbench compress wrote it:\n  "
            + "\n  ".join(faults)
            + "\nCopy the whole folder again, or compress again."
        )
    return made


def _faults(folder: Path, files: Mapping[str, File]) -> Iterator[str]:
    for name, expected in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            yield f"{one_line(name)}: not in the folder"
            continue
        try:
            size, digest = (folder / name).stat().st_size, content_of(folder / name)
        except OSError as error:
            yield f"{name}: {error.strerror}"
            continue
        if size != expected.bytes:
            yield f"{name}: {size:,} bytes, expected {expected.bytes:,}"
        elif digest != expected.sha256:
            yield f"{name}: changed (sha256 {digest[:12]}, expected {expected.sha256[:12]})"
    there = {str(path.relative_to(folder)) for kind in _READ for path in folder.rglob(kind)}
    yield from (f"{name}: not listed in {RECIPE}" for name in sorted(there - {*files, RECIPE}))


def check_census(taken: Census, made: Shipped, source: Source) -> None:
    """Hold what was loaded as it is stored against what was shipped.

    Raises:
        CensusError: with each component that differs.
    """
    told, found = made.census.components, taken.components
    pairs = {name: (told.get(name), found.get(name)) for name in sorted({*told, *found})}
    faults = [
        f"{name}: expected {expected}, found {there}"
        for name, (expected, there) in pairs.items()
        if expected is None or there is None or _weighed(vars(expected)) != _weighed(vars(there))
    ]
    if faults:
        raise CensusError(
            f"{source.location} is not loaded as its {RECIPE} says:\n  "
            + "\n  ".join(faults)
            + "\nLoad it with the versions that it was compressed with, or compress again."
        )


def _weighed(holding: Mapping[str, Any]) -> dict[str, Any]:
    """All but what differs between devices: tables of NF4 are shared by linears on some."""
    shared = "nf4" in holding["linears"]
    return {name: value for name, value in holding.items() if name != "state_bytes" or not shared}


def refusal(source: Source, compression: Compression) -> str | None:
    """Why a recipe cannot be applied to what is at `source`; None: it can.

    Nothing is fetched: of a hub id it knows what has been fetched before.

    Raises:
        CheckpointError: as `shipped`.
    """
    parts = parts_of(compression)
    kind = packed(_config(source))
    if kind and all(isinstance(part, Runtime) for part in parts):
        return (
            f"{source.location} is already {kind}: say how it runs behind `stored` "
            f"(--compression stored+{compression.name})."
        )
    if kind and not is_stored(compression):
        return (
            f"{source.location} is already {kind}: judge it `stored` (--compression stored). "
            f"{compression.name!r} needs the checkpoint that it was made from."
        )
    made = shipped(source)
    before = {part.name for part in made.parts} if made else set()
    twice = [part.name for part in parts if isinstance(part, Maker) and part.name in before]
    if twice:
        return (
            f"{', '.join(twice)} has been applied to {source.location} already, says its {RECIPE}: "
            f"judge it `stored`, or leave {', '.join(twice)} out of {compression.name!r}."
        )
    return None


def is_stored(compression: Compression) -> bool:
    """Whether a recipe takes a checkpoint as it is, and says at most how it runs."""
    parts = [part for part in parts_of(compression) if not isinstance(part, Runtime)]
    return bool(parts) and all(isinstance(part, Stored) for part in parts)


def wants_stored(source: Source) -> bool:
    """Whether what is at `source` is to be judged as it is stored, where nothing else is said."""
    return bool(packed(_config(source))) or shipped(source) is not None


def parts_of(compression: Compression) -> tuple[Compression, ...]:
    """The recipes that a chain is made of; of any other, itself."""
    return compression.parts if isinstance(compression, Chain) else (compression,)


def packed(config: Mapping[str, Any]) -> str | None:
    """How weights are packed, as a config.json tells: int4, int8, nf4, gptq, ...; None: floats."""
    quantized = config.get("quantization_config")
    if isinstance(quantized, Mapping):
        options = {"load_in_4bit": "nf4", "load_in_8bit": "int8"}
        found = [kind for option, kind in options.items() if quantized.get(option)]
        return found[0] if found else str(quantized.get("quant_method", "quantized"))
    layers = config.get(LAYERS)
    told = layers.values() if isinstance(layers, Mapping) else ()
    kinds = {_stored(layer) for layer in told if isinstance(layer, Mapping)}
    return ", ".join(sorted(filter(None, kinds))) or None


def _stored(layer: Mapping[str, Any]) -> str | None:
    """How the weights of a layer that was put in place are packed; None: they are floats."""
    if layer.get("kind") in ("Int4Linear", "Int8Linear"):
        return "int8" if layer.get("bits") == 8 else "int4"
    return "sparse24" if layer.get("kind") == "Sparse24Linear" else None


def _config(source: Source) -> Mapping[str, Any]:
    """What config.json says; nothing where it cannot be read, which its loader will tell."""
    path = _folder(source) / "config.json"
    if not is_folder(source):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
        path = Path(found) if isinstance(found, str) else path
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _folder(source: Source) -> Path:
    return Path(source.location).expanduser()
