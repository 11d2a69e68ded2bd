"""The files that a user's own entries are made of: what they do may change with any of them."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

_INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]


def add_files(maker: Any, found: set[Path]) -> bool:
    """Add the file a function or class is written in, and those of all that it can name.

    What it names of installed packages is left out; versions tell it. False where nothing can be
    found out, as of an object that is neither. Files in `found` are not looked into again.
    """
    seen = list(_globals_of(maker))
    for names in seen:
        _walk(names, found)
    own = {path for names in seen if (path := _file(names))}
    found |= own
    return bool(own)


def _globals_of(maker: Any) -> Iterator[dict[str, Any]]:
    """The module-level names that a function, what it closes over, or a class's methods can see.

    Not by the module's name: several conftest.py share one.
    """
    if isinstance(maker, type):
        for base in maker.__mro__:
            for member in vars(base).values():
                if isinstance(member, FunctionType):
                    yield member.__globals__
            module = sys.modules.get(base.__module__)
            if module is not None and base.__module__ != "conftest":
                yield vars(module)
    elif isinstance(maker, FunctionType):
        yield maker.__globals__
        for cell in maker.__closure__ or ():
            if isinstance(cell.cell_contents, FunctionType | type):
                yield from _globals_of(cell.cell_contents)


def _walk(names: Mapping[str, Any], found: set[Path]) -> None:
    path = _file(names)
    if path is None or path in found or _installed(path):
        return
    found.add(path)
    for value in list(names.values()):
        if isinstance(value, ModuleType):
            _walk(vars(value), found)
        elif isinstance(value, FunctionType | type):
            for seen in _globals_of(value):
                _walk(seen, found)


def _file(names: Mapping[str, Any]) -> Path | None:
    """The source of the module of these names."""
    file = str(names.get("__file__"))
    return _resolved(file) if file.endswith(".py") else None


@cache
def _resolved(file: str) -> Path:
    return Path(file).resolve()


@cache
def _installed(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _INSTALLED)
