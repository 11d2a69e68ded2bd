"""What the readers of the data sets share."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vlmbench.errors import DataError
from vlmbench.spec import Clip, Row, Source
from vlmbench.video import content


def embedded(name: str, *, films: str | None = None) -> Source:
    """The folder of a data set that ships with this package; `films`: of which are its videos."""
    data = Path(__file__).parents[1] / "embedded" / "data"
    return Source(str(data / name), films=films and str(data / films))


def picture(cell: Any) -> bytes:
    """The encoded bytes of an image column's cell."""
    if isinstance(cell, dict) and cell.get("bytes"):
        return bytes(cell["bytes"])
    if isinstance(cell, dict) and cell.get("path"):
        return Path(cell["path"]).read_bytes()
    raise DataError(f"expected an image column with encoded bytes, got {type(cell).__name__}")


def picture_id(data: bytes) -> str:
    """Content hash of an encoded picture: questions on one picture share it."""
    return hashlib.sha256(data).hexdigest()[:16]


def film(row: Row) -> Clip:
    """The video of a row: a file's bytes or path in `video`, or its `frames` as pictures."""
    if frames := row.get("frames"):
        return Clip(tuple(picture(frame) for frame in frames))
    cell = row.get("video")
    if isinstance(cell, bytes):
        return Clip(cell)
    if isinstance(cell, dict) and cell.get("bytes"):
        return Clip(bytes(cell["bytes"]))
    path = cell.get("path") if isinstance(cell, dict) else cell
    if isinstance(path, str) and path:
        return Clip(Path(path))
    raise DataError(
        f"expected a `video` column with files or their bytes, or `frames`, got {str(cell)[:80]!r}"
    )


def film_id(row: Row, clip: Clip) -> str:
    """What the samples on one video share: the row's own name for it, or its content's hash."""
    if row.get("video_id") is not None:
        return str(row["video_id"])
    return content(clip)[:16]


def texts(cell: Any) -> tuple[str, ...]:
    """A column's cell that lists texts. A single text is refused: it would become its letters."""
    if isinstance(cell, str) or not all(isinstance(text, str) for text in cell):
        raise DataError(f"expected a list of texts, got {str(cell)[:80]!r}")
    return tuple(cell)


def identity(row: Row, number: int, *columns: str) -> str:
    """The row's own id in the first of `columns` that it has, else its number."""
    own = (row[name] for name in columns if row.get(name) is not None)
    return str(next(own, number))
