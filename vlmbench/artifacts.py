"""What was computed once and need not be again: finished runs, and answers of unfinished ones.

An entry is named by the hash of all that could change it, written whole or not at all, and checked
when it is read: what is damaged counts as absent. Where nothing can be kept, work goes on without.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmbench.errors import ArtifactError
from vlmbench.files import write_whole
from vlmbench.run import Run

FOLDER = "VLMBENCH_CACHE"
"""The environment variable that names another folder."""
_LAYOUT = "1"
"""Changes with the form of the entries: other versions' are left alone."""


def default_folder() -> Path:
    """The user's cache folder, or the one that the environment names."""
    import platformdirs

    return Path(os.environ.get(FOLDER) or platformdirs.user_cache_dir("vlmbench", appauthor=False))


def key_of(identity: Mapping[str, Any]) -> str:
    """The name of the entry that all this makes what it is."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """One file of the store."""

    path: Path
    what: str
    """The cell; `unfinished` or `damaged` where that is all there is to say."""
    size: int
    used: float
    """When it was last written or read, in seconds since 1970."""


@dataclass
class Store:
    """A folder of artifacts; made when the first one is written."""

    folder: Path
    troubles: list[str] = field(default_factory=list)
    """Why something could not be kept or used, to be told once."""

    def run(self, key: str) -> Run | None:
        """The finished run of that identity, where there is a sound one."""
        path = self._path(key, "run")
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.trouble(f"{path.name} in the cache cannot be read ({error}): answered again")
            return None
        digest, _, body = text.partition("\n")
        if digest == _digest(body):
            with suppress(OSError):  # a folder that can only be read serves as well
                os.utime(path)
            return Run.from_json(body)
        self.trouble(f"{path.name} in the cache is damaged: answered again")
        return None

    def keep(self, key: str, run: Run) -> Run:
        """Keep a finished run; the run as it will be read."""
        body = run.to_json()
        try:
            write_whole(self._path(key, "run"), f"{_digest(body)}\n{body}")
        except OSError as error:
            self.trouble(f"the run of {run.cell} is not kept in {self.folder}: {error}")
        return Run.from_json(body)

    def journal(self, key: str) -> Journal:
        """The answers of an unfinished run, to be added to."""
        return Journal(self._path(key, "journal"), self)

    def forget(self, key: str) -> None:
        """Drop what there is of that identity.

        Raises:
            ArtifactError: it cannot be deleted.
        """
        for kind in ("run", "journal"):
            self._delete(self._path(key, kind))

    def entries(self) -> list[Entry]:
        """All that is kept, the least recently used first."""
        found = []
        for path in self._root().glob("*/*"):
            with suppress(FileNotFoundError):  # another session has just dropped it
                found.append(_entry(path))
        return sorted(found, key=lambda entry: entry.used)

    def trim(self, size: int) -> list[Entry]:
        """Drop the least recently used entries until at most `size` bytes are left; those dropped.

        Raises:
            ArtifactError: an entry cannot be deleted.
        """
        kept = self.entries()
        total, dropped = sum(entry.size for entry in kept), []
        for entry in kept:
            if total <= size:
                break
            self._delete(entry.path)
            total -= entry.size
            dropped.append(entry)
        return dropped

    def _root(self) -> Path:
        return self.folder / _LAYOUT

    def _path(self, key: str, kind: str) -> Path:
        return self._root() / key[:2] / f"{key}.{kind}"

    def _delete(self, path: Path) -> None:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise ArtifactError(
                f"{path} cannot be deleted: {error.strerror}. Mend the permissions of "
                f"{self.folder}, or name another folder in {FOLDER}."
            ) from None

    def trouble(self, text: str) -> None:
        """Note what is to be told once."""
        if text not in self.troubles:
            self.troubles.append(text)


@dataclass
class Journal:
    """Answers as they are made, a line a batch; a line that was not finished does not count."""

    path: Path
    store: Store

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was added, in order."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            digest, _, body = line.partition(" ")
            if digest == _digest(body):
                yield json.loads(body)

    def drop(self) -> None:
        """Its run is finished."""
        with suppress(OSError):
            self.path.unlink()

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line, in one write: two processes that answer the same cell may share the file."""
        body = json.dumps(line)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # A line that a killed process began must not swallow this one.
                file.write(f"\n{_digest(body)} {body}\n")
        except OSError as error:
            self.store.trouble(f"unfinished answers are not kept in {self.store.folder}: {error}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(path: Path) -> Entry:
    stat = path.stat()
    what = path.suffix.removeprefix(".")
    if what == "run":
        try:
            what = json.loads(path.read_text(encoding="utf-8").partition("\n")[2])["cell"]
        except (OSError, ValueError, KeyError, TypeError):
            what = "damaged"
    return Entry(path, "unfinished" if what == "journal" else what, stat.st_size, stat.st_mtime)


def age(entry: Entry) -> str:
    """How long ago an entry was used, in words."""
    seconds = max(0.0, time.time() - entry.used)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "just now"
