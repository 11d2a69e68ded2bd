"""The folder is the registry: what each axis has, by the name users type.

Each file of an axis is imported, and its module-level instances of the axis's own type are its
entries; what starts with `_`, file or variable, is a helper. Importing a file must be cheap:
neither torch nor transformers.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from vlmbench.errors import CatalogueError, UnknownNameError
from vlmbench.spec import Compression, Dataset, Metric, Model

T = TypeVar("T")

# '-' parts variant from data set in a test's id and '@' is illegal in `pytest -k`.
_NAME = re.compile(r"[a-z0-9][a-z0-9_+]*")


def models(extra: Iterable[Model] = ()) -> dict[str, Model]:
    """Every model adapter, `extra` ones (a user's own) included.

    Raises:
        CatalogueError: a file cannot be imported or holds no entry, or two entries share a name.
    """
    return _merged(_collect("vlmbench.models", Model), extra, Model)


def compressions(extra: Iterable[Compression] = ()) -> dict[str, Compression]:
    """Every compression recipe; as `models`."""
    # A Protocol is not a `type[...]` to mypy, though isinstance takes it.
    return _merged(_collect("vlmbench.compression", Compression), extra, Compression)


def datasets(extra: Iterable[Dataset] = ()) -> dict[str, Dataset]:
    """Every data set; as `models`."""
    return _merged(_collect("vlmbench.datasets", Dataset), extra, Dataset)


def metrics(extra: Iterable[Metric] = ()) -> dict[str, Metric]:
    """Every metric; as `models`. The stand-ins of a tier (`by_tier`) are no entries."""
    return _merged(_collect("vlmbench.metrics", Metric), extra, Metric)


def find(kind: str, name: str, entries: Mapping[str, T]) -> T:
    """Look `name` up.

    Raises:
        UnknownNameError: no such entry; says which `kind` was sought and the closest name.
    """
    if name not in entries:
        raise UnknownNameError(kind, name, entries)
    return entries[name]


@cache
def _collect(package: str, kind: Any) -> dict[str, tuple[Any, str]]:
    """{name: (entry, its file)} of all files of `package`, in the order of file names."""
    found: dict[str, tuple[Any, str]] = {}
    folder = _import(package, package)
    for info in sorted(pkgutil.iter_modules(folder.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        module = _import(f"{package}.{info.name}", f"{folder.__path__[0]}/{info.name}.py")
        own = [
            value
            for name, value in vars(module).items()
            if not name.startswith("_") and _is_entry(value, kind)
        ]
        if not own:
            raise CatalogueError(
                f"{module.__file__} holds no {kind.__name__}: expected at least one module-level "
                "instance with all of its fields and methods. Add it, or start the file's name "
                "with '_' if it is a helper."
            )
        for entry in own:
            _add(found, entry, str(module.__file__), kind)
    return found


def _merged(found: Mapping[str, tuple[Any, str]], extra: Iterable[T], kind: Any) -> dict[str, T]:
    merged = dict(found)
    for entry in extra:
        if not _is_entry(entry, kind):
            protocol = getattr(kind, "_is_protocol", False)  # else it is a class of its own
            wanted = [*kind.__annotations__, *vars(kind)] if protocol else []
            lacks = [part for part in wanted if part[0] != "_" and not hasattr(entry, part)]
            why = f": it lacks {', '.join(lacks)}" if lacks else ""
            raise CatalogueError(
                f"{entry!r} was added as a {kind.__name__} and is none{why}. Return instances "
                f"like those of vlmbench.spec.{kind.__name__} from your hook."
            )
        _add(merged, entry, "an entry added by a hook", kind)
    return {name: entry for name, (entry, _) in merged.items()}


def _add(found: dict[str, tuple[Any, str]], entry: Any, origin: str, kind: Any) -> None:
    name = entry.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CatalogueError(
            f"{origin}: {kind.__name__} name {name!r} must be lower-case letters, digits, '_' or "
            "'+'. Rename it."
        )
    if "+" in name and kind is Compression and not hasattr(entry, "parts"):
        raise CatalogueError(
            f"{origin}: Compression {name!r} has the name of a chain, and is none. Rename it."
        )
    earlier, where = found.setdefault(name, (entry, origin))
    if earlier is not entry:  # the same object seen twice is an import, not a second entry
        raise CatalogueError(
            f"{kind.__name__} {name!r} is defined twice: in {where} and in {origin}. Rename one."
        )


def _is_entry(value: object, kind: Any) -> bool:
    # A class has the methods that the Compression protocol asks for, too.
    return isinstance(value, kind) and not isinstance(value, type)


def _import(name: str, file: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a file raises, its name is what the reader needs
        raise CatalogueError(
            f"{file} cannot be imported: {type(error).__name__}: {error}. Correct the file."
        ) from error
