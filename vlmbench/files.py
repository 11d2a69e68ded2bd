"""Files: written whole or not at all, and told apart by their content."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file, and the folders it is in; who reads it sees all of it or what was there.

    Raises:
        OSError: it cannot be written; nothing of it is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


def content_of(path: Path) -> str:
    """The sha256 of a file; it is not read again while its size and time stay.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
