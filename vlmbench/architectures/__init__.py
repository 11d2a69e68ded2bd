"""Networks that transformers lacks, built from its parts; importing a file registers it there."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def find(name: str) -> Any:
    """The class of that name, of transformers or of this folder; None where neither has it."""
    import transformers

    if hasattr(transformers, name):
        return getattr(transformers, name)
    # All of them: what reads pictures for a network may stand in another file.
    names = [file.name for file in pkgutil.iter_modules(__path__)]
    files = [importlib.import_module(f"{__name__}.{file}") for file in names]
    return next((getattr(file, name) for file in files if hasattr(file, name)), None)
