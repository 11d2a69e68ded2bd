"""A variant is compressed once: what its recipe made is kept, and read back from then on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench import saving, variant
from vlmbench.artifacts import key_of
from vlmbench.chain import Chain
from vlmbench.checkpoint import config_of
from vlmbench.compression.precision import FLOAT32
from vlmbench.errors import UsageError, VlmbenchError
from vlmbench.evaluate import origin
from vlmbench.shipped import parts_of, refusal
from vlmbench.spec import Compression, Maker, Model, Runtime, Source, TrainData
from vlmbench.variant import QUANTIZED

if TYPE_CHECKING:
    from vlmbench.artifacts import Store
    from vlmbench.variant import Variant

Data = Callable[[Model, Any, Path], TrainData]
"""(model, its processor, a folder for unfinished work) -> what its recipes learn from."""


def load_once(
    model: Model,
    compression: Compression,
    source: Source,
    store: Store,
    data: Data | None = None,
    *,
    device: str,
    dtype: str | None,
    fresh: bool = False,
) -> Variant:
    """As `load`, but that a checkpoint which a recipe makes is read from the store once made.

    Kept is what makers saved, and what `save_pretrained` writes of what a loader quantized;
    `apply` follows each time. `fresh`: it is made again. `data` is for makers alone.

    Raises:
        CheckpointError, CensusError, UsageError: as `load`.
        UsageError: the checkpoint is packed already, or has been through that recipe.
        DataError: what a recipe learns from cannot be read.
    """
    config_of(source)  # fetched, where it is on the hub
    if reason := refusal(source, compression):
        raise UsageError(reason)
    key = None
    if QUANTIZED in compression.load_options(model.anatomy):
        key = _key(model, compression, source, device=device, dtype=dtype)
    name = f"{model.name}_{compression.name}"
    if key and not fresh and (folder := store.checkpoint(key)):
        try:
            return variant.load(model, compression, source, device=device, dtype=dtype, kept=folder)
        except VlmbenchError as error:
            store.trouble(f"{folder.name} in the cache cannot be loaded ({error}): made again")

    def keep(network: Any) -> None:
        if key:
            store.keep_checkpoint(key, name, network.save_pretrained)

    with ExitStack() as stack:
        kept = _made(model, compression, source, store, data, stack, device=device, fresh=fresh)
        return variant.load(
            model, compression, source, device=device, dtype=dtype, kept=kept, loaded=keep
        )


def _made(
    model: Model,
    compression: Compression,
    source: Source,
    store: Store,
    data: Data | None,
    stack: ExitStack,
    *,
    device: str,
    fresh: bool,
) -> Path | None:
    """The folder that the makers of a recipe leave, one after another; None: it has none."""
    kept: Path | None = None
    done: list[Compression] = []
    storing = [part for part in parts_of(compression) if not isinstance(part, Runtime)]
    for maker in storing:
        if not isinstance(maker, Maker):
            break
        done.append(maker)
        so_far = Chain("+".join(part.name for part in done), tuple(done))
        name, key = f"{model.name}_{so_far.name}", _key(model, so_far, source, device=device)
        found = None if fresh or key is None else store.checkpoint(key)
        if found is None:
            begun = variant.load(model, FLOAT32, source, device=device, kept=kept)
            work = store.work(key) if key else _temporary(stack)
            assert data is not None, "a maker needs something to learn from"
            maker.make(begun.network, model.anatomy, data(model, begun.processor, work))
            dtype = maker.load_options(model.anatomy)["dtype"]
            write = partial(saving.write, begun.network, begun.processor, dtype=dtype)
            with variant.quiet():
                if key:
                    store.keep_checkpoint(key, name, write)
                    found = store.checkpoint(key)
                if found is None:  # where nothing can be kept
                    found = _temporary(stack)
                    write(found)
            shutil.rmtree(work, ignore_errors=True)
        kept = found
    return kept


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlmbench-")))


def _key(
    model: Model, compression: Compression, source: Source, *, device: str, dtype: str | None = None
) -> str | None:
    """The hash of all that could change the compressed checkpoint; None: it is not kept."""
    makers = [type(part) for part in parts_of(compression)]
    made = origin(model, compression, source, dtype=dtype, device=device, makers=makers)
    return key_of({"checkpoint": model.architecture, **made}) if made else None
