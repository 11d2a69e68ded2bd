"""A compressed checkpoint of its own: what `vlmbench compress` writes, whole or not at all."""

from __future__ import annotations

import glob
import importlib.metadata
import json
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.baseline import in_tier
from vlmbench.bench import Bench
from vlmbench.compression.precision import STORED
from vlmbench.errors import UsageError
from vlmbench.evaluate import subject
from vlmbench.files import content_of
from vlmbench.shipped import FORMAT, RECIPE, Part, is_stored, parts_of, shipped
from vlmbench.spec import Compression, Runtime, Source

if TYPE_CHECKING:
    from vlmbench.variant import Variant


def compress(bench: Bench, out: Path, *, force: bool = False) -> str:
    """Write the one variant of `bench` to the folder `out`; what it weighs, in words.

    It is read back before `out` is there. `force`: what an earlier call wrote there is replaced.

    Raises:
        UsageError: `out` cannot be written, or the recipe leaves nothing to be written.
        VlmbenchError: the variant cannot be made, or not be read back.
    """
    (model,), (recipe,) = bench.models, bench.compressions
    _check_recipe(recipe)
    with unfinished(out, force=force) as part:
        variant = bench.variant(model, recipe)
        write(variant, part)
        said = _summary(variant, out, bench.options.tier)
        del variant  # before it is loaded again
        there = {bench.options.tier: Source(str(part))}
        bench.variant(replace(model, sources=there), STORED)
    return said


@contextmanager
def unfinished(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place where the block ends well.

    Else nothing is left of it, and what was at `folder` is still there. What a killed process of
    this machine left beside it goes, too.

    Raises:
        UsageError: there is something at `folder`, or nothing can be written beside it.
    """
    goal = folder.expanduser().resolve()
    _check_goal(goal, folder, force=force)
    beside = f".{goal.name}.{socket.gethostname()}"
    part = goal.with_name(f"{beside}.{os.getpid()}.part")
    try:
        with _explained(folder):
            for left in goal.parent.glob(f"{glob.escape(beside)}.*.part"):
                if not _is_running(left.suffixes[-2][1:]):
                    shutil.rmtree(left, ignore_errors=True)
            part.mkdir()
            # Told first: what is left of a killed process is not taken for a checkpoint.
            (part / RECIPE).write_text(json.dumps({"format": FORMAT}), encoding="utf-8")
        yield part
        with _explained(folder):
            _sync(part)
            _put(part, goal)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write(variant: Variant, folder: Path) -> None:
    """Write a variant that has not yet run: weights, configuration, processor, recipe.json.

    Raises:
        UsageError: it cannot be written.
    """
    from vlmbench.variant import quiet

    with _explained(folder), quiet():
        variant.network.save_pretrained(folder)
        variant.processor.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):  # which are written for their owner alone
            weights.chmod((folder / "config.json").stat().st_mode)
        told = json.dumps(_told(variant) | {"files": _files(folder)}, indent=1)
        (folder / RECIPE).write_text(told + "\n", encoding="utf-8")


def _told(variant: Variant) -> dict[str, Any]:
    model, source = variant.model, variant.source
    before = shipped(source)
    parts = [
        Part(part.name, subject(model, part, source, None)["recipe"])
        for part in parts_of(variant.compression)
    ]
    return {
        "format": FORMAT,
        "vlmbench": importlib.metadata.version("vlmbench"),
        "model": model.name,
        "architecture": model.architecture,
        "recipe": variant.compression.name,
        "parts": [asdict(part) for part in (*(before.parts if before else ()), *parts)],
        "made_from": {"location": source.location, **_digests(variant)},
        "census": variant.census.to_dict(),
    }


def _digests(variant: Variant) -> dict[str, str]:
    told = subject(variant.model, variant.compression, variant.source, variant.dtype)
    return {name: told[name] for name in ("weights", "configuration")}


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file but the recipe, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": content_of(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECIPE
    }


def _check_recipe(recipe: Compression) -> None:
    if is_stored(recipe):
        raise UsageError(f"{recipe.name!r} changes no weights: copy the folder instead.")
    runs = [part.name for part in parts_of(recipe) if isinstance(part, Runtime)]
    if runs:
        raise UsageError(
            f"{', '.join(runs)} says how a network runs, which is not written. Leave it out here, "
            f"and judge the folder under stored+{'+'.join(runs)}."
        )


def _check_goal(goal: Path, folder: Path, *, force: bool) -> None:
    if goal == Path.cwd():
        raise UsageError(
            f"--out {folder} is the folder you are in, and another would take its place. Name a "
            "new folder in it."
        )
    try:
        found = sorted(path.name for path in goal.iterdir()) if goal.exists() else []
    except OSError as error:
        raise UsageError(
            f"--out {folder} cannot be used ({error.strerror}). Name a new or empty folder."
        ) from None
    if found and not (force and RECIPE in found):
        todo = (
            f"--force replaces only what vlmbench compress wrote (there is no {RECIPE} in it)."
            if force
            else "Name a new folder, or replace what vlmbench compress wrote there with --force."
        )
        raise UsageError(f"--out {folder} is not empty ({', '.join(found[:3])}, ...). {todo}")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--out {folder} cannot be written ({reason}). Name a folder, new or empty, in one "
            "that exists, may be written to and has room."
        ) from None


def _is_running(number: str) -> bool:
    """Whether there is a process of that number; what names none may be somebody's."""
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (PermissionError, ValueError):
        pass
    return True


def _sync(folder: Path) -> None:
    """Have all of a folder on disk: a name must not outlive a crash that the content does not."""
    for path in [*folder.rglob("*"), folder]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _put(part: Path, goal: Path) -> None:
    """Let `part` take the place of `goal`."""
    if not goal.exists() or not any(goal.iterdir()):
        part.replace(goal)
        return
    old = goal.with_name(f".{goal.name}.{os.getpid()}.old")
    goal.replace(old)
    try:
        part.replace(goal)
    except BaseException:
        old.replace(goal)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _summary(variant: Variant, out: Path, tier: str) -> str:
    census = variant.census
    lines = [
        f"{out}: {variant.file_bytes / 1e6:.1f} MB of weights, "
        f"{census.footprint_bytes / 1e6:.1f} MB in memory"
    ]
    for name, held in census.components.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(held.linears.items()))
        bits = f"{held.bits_per_weight:6.2f} bits a weight"
        lines.append(f"  {name:10} {bits}  {f'linears: {kinds}' if kinds else ''}".rstrip())
    where = shlex.quote(f"mine={out}")
    lines += [
        "Evaluate it:  pytest tests/benchmarks/test_regression.py "
        f"--model {where} --compression stored{in_tier(tier)} --baseline-new",
        f"With --baseline-of {variant.model.name} in place of --baseline-new it is held against "
        f"what {variant.model.name} scored under {variant.compression.name}.",
    ]
    return "\n".join(lines) + "\n"
