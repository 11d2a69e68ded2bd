"""Write the drawn data sets: parquet in the published columns, rebuilt byte for byte."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from vlmbench.embedded import DATA, rows

DIGESTED = 200
"""Train pictures whose keys are stored, to show that train is drawn the same again."""


def write_all(folder: Path = DATA) -> None:
    """Write every stored split of every data set under `folder`."""
    for dataset in rows.DATASETS:
        write(dataset, folder)


def write(dataset: str, folder: Path) -> None:
    """Write one data set: its stored splits as parquet, and beside them what pins train."""
    (folder / dataset).mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for split in ("test", "validation"):
        drawn = split_rows(dataset, split, seen)
        if dataset == "videoqa":  # its films are those of clips
            drawn = [{name: cell for name, cell in row.items() if name != "video"} for row in drawn]
        _write_parquet(dataset, drawn, folder / dataset / f"{split}.parquet")
    pins = {"held_out": sorted(seen), "train": train_digest(dataset, frozenset(seen))}
    (folder / f"{dataset}.json").write_text(json.dumps(pins, indent=0) + "\n")


def split_rows(dataset: str, split: str, seen: set[str]) -> list[rows.Row]:
    """The rows of a stored split; pictures whose keys are in `seen` are passed over."""
    kept: list[rows.Row] = []
    asked = 0
    for number in itertools.count():
        drawn = rows.draw(dataset, split, number)
        keys = set(filter(None, map(rows.key_of, drawn)))
        if keys & seen:
            continue
        seen |= keys
        kept += drawn
        asked += len(drawn) if keys else 0
        if asked >= rows.SPLITS[split] * (2 if dataset == "videoqa" else 1):
            return kept
    raise AssertionError("count() has no end")


def train_digest(dataset: str, held_out: frozenset[str]) -> dict[str, Any]:
    """What pins the train split: its first pictures' keys, hashed together."""
    drawn = itertools.islice(rows.train(dataset, held_out), DIGESTED)
    keys = list(filter(None, map(rows.key_of, drawn)))
    return {"rows": DIGESTED, "sha256": rows.picture_key("".join(keys).encode())}


def _write_parquet(dataset: str, drawn: list[rows.Row], path: Path) -> None:
    import datasets
    import pyarrow.parquet as pq

    features: dict[str, Any] = {"image": datasets.Image(), "video": datasets.Video()}
    features = {name: feature for name, feature in features.items() if name in drawn[0]}
    if dataset == "scienceqa":
        features["answer"] = datasets.Value("int8")
    table = datasets.Dataset.from_list(drawn)
    for column, feature in features.items():
        table = table.cast_column(column, feature)
    # Questions that share a picture repeat its bytes: a dictionary stores them once.
    pq.write_table(
        table.data.table,
        path,
        compression="zstd",
        compression_level=19,
        dictionary_pagesize_limit=16 * 2**20,
        store_schema=True,
    )
