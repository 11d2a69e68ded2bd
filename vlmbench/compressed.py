"""A variant is compressed once: what the loader quantized is kept, and read back from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmbench import variant
from vlmbench.artifacts import key_of
from vlmbench.errors import VlmbenchError
from vlmbench.evaluate import origin
from vlmbench.spec import Compression, Model, Source
from vlmbench.variant import QUANTIZED

if TYPE_CHECKING:
    from vlmbench.artifacts import Store
    from vlmbench.variant import Variant


def load_once(
    model: Model,
    compression: Compression,
    source: Source,
    store: Store,
    *,
    device: str,
    dtype: str | None,
    fresh: bool = False,
) -> Variant:
    """As `load`, but that a quantized checkpoint is read from the store where it has been made.

    Kept is what `save_pretrained` writes of what the loader made; `apply` follows each time.
    `fresh`: it is made again.

    Raises:
        CheckpointError, CensusError, UsageError: as `load`.
    """
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

    return variant.load(model, compression, source, device=device, dtype=dtype, loaded=keep)


def _key(
    model: Model, compression: Compression, source: Source, *, device: str, dtype: str | None
) -> str | None:
    """The hash of all that could change the compressed checkpoint; None: it is not kept."""
    if QUANTIZED not in compression.load_options(model.anatomy):
        return None
    made = origin(model, compression, source, dtype=dtype, device=device)
    return key_of({"checkpoint": model.architecture, **made}) if made else None
