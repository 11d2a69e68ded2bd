"""A variant is compressed once: what its recipe made is kept, and read back from then on."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
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
    learns: Any = None,
    fresh: bool = False,
) -> Variant:
    """As `load`, but that a checkpoint which a recipe makes is read from the store once made.

    Kept is what makers saved, and what `save_pretrained` writes of what a loader quantized;
    `apply` follows each time. `fresh`: it is made again. `data` is for makers alone; `learns` tells
    what it gives from other data.

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
        key = _key(model, compression, source, device=device, dtype=dtype, learns=learns)
    name = f"{model.name}_{compression.name}"
    if key and not fresh and (folder := store.checkpoint(key)):
        try:
            found = variant.load(
                model, compression, source, device=device, dtype=dtype, kept=folder
            )
            return replace(found, made_s=store.seconds(key))
        except VlmbenchError as error:
            store.trouble(f"{folder.name} in the cache cannot be loaded ({error}): made again")

    with ExitStack() as stack:
        making = _Making(model, source, store, data, device, learns, fresh, stack)
        kept, seconds = making.of(compression)

        def keep(network: Any) -> None:
            if key:
                store.keep_checkpoint(key, name, network.save_pretrained, seconds=seconds)

        made = variant.load(
            model, compression, source, device=device, dtype=dtype, kept=kept, loaded=keep
        )
        if "disk" in (getattr(made.network, "hf_device_map", None) or {}).values():
            atexit.register(stack.pop_all().close)  # read from as long as the network runs
        return replace(made, made_s=seconds)


@dataclass(frozen=True)
class _Making:
    """What the makers of a recipe leave, one after another, each beginning with the last."""

    model: Model
    source: Source
    store: Store
    data: Data | None
    device: str
    learns: Any
    fresh: bool
    stack: ExitStack
    """Of folders that are gone when the variant is loaded: where nothing can be kept."""

    def of(self, compression: Compression) -> tuple[Path | None, float]:
        """The folder with what the makers made, and the seconds it took; None: there are none."""
        storing = [part for part in parts_of(compression) if not isinstance(part, Runtime)]
        makers = list(takewhile(lambda part: isinstance(part, Maker), storing))
        kept: Path | None = None
        seconds = 0.0
        for count in range(1, len(makers) + 1):
            so_far = Chain("+".join(part.name for part in makers[:count]), tuple(makers[:count]))
            key = _key(self.model, so_far, self.source, device=self.device, learns=self.learns)
            with self.store.alone(key) if key else nullcontext():
                found = self.store.checkpoint(key) if key and not self.fresh else None
                took = self.store.seconds(key) if key and found else 0.0
                kept, took = (
                    (found, took) if found else self._made(so_far, key, kept, makers[count:])
                )
            seconds += took
        return kept, seconds

    def _made(
        self, so_far: Chain, key: str | None, kept: Path | None, following: Sequence[Compression]
    ) -> tuple[Path, float]:
        """What the last of these makers makes of the checkpoint in `kept`, or of the source."""
        maker: Any = so_far.parts[-1]
        begun = variant.load(self.model, FLOAT32, self.source, device=self.device, kept=kept)
        work = self.store.work(key) if key else self._temporary()
        assert self.data is not None, "a maker needs something to learn from"
        anatomy = self.model.anatomy
        if getattr(maker, "trains", False):
            for later in following:  # which would refuse after minutes what can be refused now
                if fits := getattr(later, "fits", None):
                    fits(begun.network, anatomy)
        start = time.perf_counter()
        maker.make(begun.network, anatomy, self.data(self.model, begun.processor, work))
        seconds = time.perf_counter() - start
        dtype = maker.load_options(anatomy)["dtype"]
        write = partial(saving.write, begun.network, begun.processor, dtype=dtype)
        with variant.quiet():
            if key:
                name = f"{self.model.name}_{so_far.name}"
                self.store.keep_checkpoint(key, name, write, seconds=seconds)
            folder = self.store.checkpoint(key) if key else None
            if folder is None:
                folder = self._temporary()
                write(folder)
        shutil.rmtree(work, ignore_errors=True)
        return folder, seconds

    def _temporary(self) -> Path:
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="vlmbench-")))


def _key(
    model: Model,
    compression: Compression,
    source: Source,
    *,
    device: str,
    dtype: str | None = None,
    learns: Any = None,
) -> str | None:
    """The hash of all that could change the compressed checkpoint; None: it is not kept."""
    makers = [type(part) for part in parts_of(compression)]
    made = origin(
        model, compression, source, dtype=dtype, device=device, makers=makers, learns=learns
    )
    return key_of({"checkpoint": model.architecture, **made}) if made else None
