"""Read a data set: from a folder or the hub, by the same call, into samples."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from vlmbench import video
from vlmbench.errors import DataError
from vlmbench.spec import Choices, Dataset, Sample, Source

_TABLES = ("jsonl", "json", "csv")


@dataclass(frozen=True)
class Samples:
    """The samples of a data set, and how many rows are not part of its task."""

    items: tuple[Sample, ...]
    left_out: int
    choices: Choices | None = None
    """What answers are chosen from: out of all samples, however few are asked."""


def read(
    dataset: Dataset, source: Source, *, limit: int | None = None, seed: int | None = None
) -> Samples:
    """The first `limit` (all) samples of `source`, in its order, or in one that `seed` gives.

    Of the rest, no picture is read.

    Raises:
        DataError: no such data or split, a missing column, an unreadable row, two rows with one
            id, or no sample at all.
    """
    source, table = _table(dataset, source)
    _check_columns(dataset, source, table, dataset.columns)
    items: list[Sample] = []
    left_out, films = 0, _films(dataset, source)
    rows: Iterable[tuple[int, Any]] = enumerate(table)
    if seed is not None:
        rows = _shuffled(table, seed)
    for number, row in rows:
        if limit is not None and len(items) == limit and not dataset.choose:
            break
        if films:
            row = {**row, "video": films.get(row.get("video_id"))}
        sample = _sample(dataset, source, row, number)
        if sample is None:
            left_out += 1
        else:
            items.append(sample)
    _check(dataset, source, items, left_out)
    choices = dataset.choose(items) if dataset.choose else None
    return Samples(tuple(items[:limit]), left_out, choices)


def _shuffled(table: Any, seed: int) -> Iterator[tuple[int, Any]]:
    numbers = list(range(len(table)))
    Random(seed).shuffle(numbers)
    return ((number, table[number]) for number in numbers)


def choices_hash(choices: Choices) -> str:
    """Content hash of what answers are chosen from."""
    parts = [*(text.encode() for text in choices.texts), *choices.pictures]
    digests = "".join(hashlib.sha256(part).hexdigest() for part in parts)
    return hashlib.sha256(digests.encode()).hexdigest()[:12]


def _check_columns(dataset: Dataset, source: Source, table: Any, names: Iterable[str]) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            f"{dataset.name} at {source.location} lacks column(s) {', '.join(missing)}; it has "
            f"{', '.join(table.column_names)}. Expected the published schema."
        )


def _sample(dataset: Dataset, source: Source, row: dict[str, Any], number: int) -> Sample | None:
    if source.where and row.get(source.where[0]) != source.where[1]:
        return None
    named = row.get("video")
    if isinstance(named, dict) and not named.get("bytes"):
        named = named.get("path")
    if named and isinstance(named, str):
        row = {**row, "video": _place(dataset, source, named)}
    try:
        return dataset.read(row, number)
    except (DataError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
        raise DataError(
            f"row {number} of {dataset.name} at {source.location} cannot be read: "
            f"{type(error).__name__}: {error}. Expected the published schema."
        ) from None


def _place(dataset: Dataset, source: Source, video: str) -> str:
    """Where a video is that a row names: in the folder of the table, if it says no more."""
    folder = Path(source.location).expanduser()
    if "://" in video or Path(video).is_absolute():
        return video
    if not folder.is_dir():
        raise DataError(
            f"{dataset.name} at {source.location} names its videos ({video}) and does not hold "
            "them. Put them into a folder, with a captions.jsonl that names them (README): "
            f"--data {dataset.name}=FOLDER"
        )
    return str(folder / video)


def _check(dataset: Dataset, source: Source, items: list[Sample], left_out: int) -> None:
    if not items:
        raise DataError(
            f"{dataset.name} at {source.location} has no sample ({left_out} rows are not part of "
            "the task). Nothing can be judged on it."
        )
    odd = [s.id for s in items if not isinstance(s.id, str)]
    if odd:
        raise DataError(
            f"{dataset.name}: {len(odd)} samples have an id that is no text, first {odd[0]!r}. "
            "Make it one where the row is read: str(...)."
        )
    doubles = [name for name, count in Counter(s.id for s in items).items() if count > 1]
    if doubles:
        raise DataError(
            f"{dataset.name} at {source.location}: {len(doubles)} sample ids occur twice, first "
            f"{doubles[0]!r}. Ids must be unique: answers are compared by them."
        )
    bare = [s.id for s in items if not s.references]
    if bare:
        raise DataError(
            f"{dataset.name} at {source.location}: {len(bare)} samples have no reference, first "
            f"{bare[0]!r}. A split without answers cannot be scored."
        )


def _table(dataset: Dataset, source: Source) -> tuple[Source, Any]:
    """The table, and which of the source and its fallbacks it came from."""
    from datasets.exceptions import DatasetsError

    failures: list[str] = []
    for candidate in (source, *source.fallbacks):
        try:
            return candidate, _load(dataset, candidate)
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            reason = (str(error).splitlines() or [""])[0]
            failures.append(f"  {candidate.location}: {type(error).__name__}: {reason}")
    raise DataError(
        f"{dataset.name} (split {source.split}) cannot be read:\n" + "\n".join(failures) + "\n"
        f"Name a folder with {source.split}.parquet, or with videos and their captions.jsonl: "
        f"--data {dataset.name}=FOLDER"
    )


def _load(dataset: Dataset, source: Source) -> Any:
    import datasets

    folder = Path(source.location).expanduser()
    if folder.is_absolute() and not folder.is_dir():
        raise FileNotFoundError("no such folder")
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if dataset.of_videos and (named := _captions(folder, source.split)):
            kind = named.suffix[1:].replace("jsonl", "json")
            table = datasets.load_dataset(kind, data_files=glob.escape(str(named)), split="train")
            named_as = {"file_name": "video"}  # as video folders for `datasets` have it
            return table.rename_columns({k: v for k, v in named_as.items() if k in table.features})
        table = datasets.load_dataset(
            str(folder) if folder.is_dir() else source.location,
            name=source.config,
            split=source.split,
            revision=source.revision,
        )
    finally:
        if shown:
            datasets.enable_progress_bars()
    # Encoded bytes, so that one unreadable picture is one error, not a broken table.
    encoded = {
        "image": datasets.Image(decode=False),
        "video": datasets.Video(decode=False),
        "frames": datasets.List(datasets.Image(decode=False)),
    }
    for column, feature in encoded.items():
        if column in table.column_names:
            table = table.cast_column(column, feature)
    return table


def _films(dataset: Dataset, source: Source) -> dict[str, Any]:
    """Videos by name, where another data set holds those that the rows name."""
    if source.films is None:
        return {}
    place, held = _table(dataset, replace(source, location=source.films, films=None))
    _check_columns(dataset, place, held, ("video_id", "video"))
    return {row["video_id"]: row["video"] for row in held}


def _captions(folder: Path, split: str) -> Path | None:
    """The table of a folder of videos: captions or metadata, as JSON lines, JSON or CSV."""
    if any(folder.glob(f"**/{split}*.parquet")):
        return None
    names = (f"{stem}.{kind}" for stem in ("captions", "metadata") for kind in _TABLES)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def content_hash(sample: Sample) -> str:
    """Hash of all that a sample's score depends on beside the answer.

    Of a video: which frames are shown and their pixels.

    Raises:
        VideoError: it cannot be read.
    """
    return _hash(sample, video.seen(sample.clip).digest if sample.clip else None)


def source_hash(sample: Sample) -> str:
    """As `content_hash`, of the video's file in place of its frames: nothing is decoded."""
    return _hash(sample, video.source_digest(sample.clip) if sample.clip else None)


def task_hash(sample: Sample) -> str:
    """Hash of what is asked alone, whatever answers count: case and blanks of it do not."""
    asked = replace(sample, question=" ".join(sample.question.casefold().split()), references=())
    return source_hash(asked)


def _hash(sample: Sample, shown: str | None) -> str:
    digest = hashlib.sha256()
    for picture in sample.pictures:
        digest.update(hashlib.sha256(picture).digest())
    asked = [sample.question, sample.references, *([shown] if shown else [])]
    digest.update(json.dumps(asked).encode())
    return digest.hexdigest()[:12]
