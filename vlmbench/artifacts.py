"""What was computed once and need not be again: runs, unfinished answers, compressed checkpoints.

An entry is named by the hash of all that could change it, written whole or not at all, and checked
when it is read: what is damaged counts as absent. Where nothing can be kept, work goes on without.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from vlmbench.errors import ArtifactError
from vlmbench.files import content_of, write_whole
from vlmbench.run import Run

FOLDER = "VLMBENCH_CACHE"
"""The environment variable that names another folder."""
_DIGESTS = "digests.json"
"""Of a compressed checkpoint's files."""
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
    """One file of the store, or one folder."""

    path: Path
    what: str
    """The cell, or the variant; `unfinished` or `damaged` where that is all there is to say."""
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

    def checkpoint(self, key: str) -> Path | None:
        """The folder of the compressed checkpoint of that identity, where there is a sound one."""
        folder = self._path(key, "checkpoint")
        if not folder.is_dir():
            return None
        try:
            digests = json.loads((folder / _DIGESTS).read_text())["files"]
            if digests == _digests(folder):
                with suppress(OSError):
                    os.utime(folder)
                return folder
            reason = "damaged"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"unreadable ({error})"
        self.trouble(f"{folder.name} in the cache is {reason}: made again")
        return None

    def keep_checkpoint(
        self, key: str, what: str, write: Callable[[Path], object], *, seconds: float = 0.0
    ) -> None:
        """Keep the checkpoint that `write` puts into a folder, whole or not at all.

        `seconds`: how long it took to make.
        """
        folder = self._path(key, "checkpoint")
        part = folder.with_suffix(f".{os.getpid()}.part")
        try:
            part.mkdir(parents=True)
            write(part)
            told = {"what": what, "seconds": seconds, "files": _digests(part)}
            (part / _DIGESTS).write_text(json.dumps(told), encoding="utf-8")
            self._delete(folder)
            part.replace(folder)
        except Exception as error:  # whatever a library cannot write: work goes on without
            if not folder.is_dir():  # else another process has just kept the same
                self.trouble(f"{what} is not kept in {self.folder}: {error}")
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def seconds(self, key: str) -> float:
        """How long the checkpoint of that identity took to make; 0.0 where nobody knows."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = (self._path(key, "checkpoint") / _DIGESTS).read_text(encoding="utf-8")
            return float(json.loads(told)["seconds"])
        return 0.0

    def work(self, key: str) -> Path:
        """Where what becomes the checkpoint of that identity may leave its unfinished state."""
        return self._path(key, "work")

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """One process at a time makes what that identity names; the next finds it made."""
        path = self.folder / "locks" / f"{key}.lock"
        lock = FileLock(path)
        # Where a file cannot be locked, work goes on without.
        with suppress(OSError, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

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
            shutil.rmtree(path) if path.is_dir() else path.unlink()
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
    stat, kind = path.stat(), path.suffix.removeprefix(".")
    what, size = {"journal": "unfinished", "work": "unfinished"}.get(kind, "damaged"), stat.st_size
    with suppress(OSError, ValueError, KeyError, TypeError):
        if kind == "run":
            what = json.loads(path.read_text(encoding="utf-8").partition("\n")[2])["cell"]
        elif path.is_dir():
            size = sum(file.stat().st_size for file in path.rglob("*"))
            what = json.loads((path / _DIGESTS).read_text())["what"]
    return Entry(path, what, size, stat.st_mtime)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.name != _DIGESTS)
    return {file.name: content_of(file) for file in files}


def age(entry: Entry) -> str:
    """How long ago an entry was used, in words."""
    seconds = max(0.0, time.time() - entry.used)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "just now"
