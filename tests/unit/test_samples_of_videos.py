"""Videos: in parquet, in a folder with a table of captions, or as frames; a bad one by its name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import datasets
import pytest
from PIL import Image

from vlmbench.catalogue import datasets as catalogued
from vlmbench.embedded import clips
from vlmbench.errors import DataError, VideoError
from vlmbench.samples import content_hash, read, source_hash
from vlmbench.spec import Clip, Source
from vlmbench.video import content
from vlmbench.video import read as decode

CLIPS, VIDEOQA = catalogued()["clips"], catalogued()["videoqa"]
FILM = clips.draw(Random(1)).mp4()
OTHER = clips.draw(Random(2)).mp4()
Rows = list[dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(FILM)
    (tmp_path / "films" / "b.mov").write_bytes(OTHER)
    return tmp_path / "films"


def lines(rows: Rows) -> str:
    return "\n".join(map(json.dumps, rows))


ROWS: Rows = [
    {"video": "a.mp4", "caption": ["A star moves.", "It goes."]},
    {"video": "b.mov", "caption": ["A ring stays."]},
]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("captions.jsonl", lines(ROWS)),
        ("captions.json", json.dumps(ROWS)),
        (
            "metadata.jsonl",
            lines([{"file_name": r["video"], "caption": r["caption"]} for r in ROWS]),
        ),
    ],
)
def test_a_folder_of_videos_with_their_captions(folder: Path, table: str, text: str) -> None:
    (folder / table).write_text(text)
    first, second = read(CLIPS, Source(str(folder))).items
    assert first.references == ("A star moves.", "It goes.")
    assert (first.clip, second.clip) == (Clip(folder / "a.mp4"), Clip(folder / "b.mov"))
    assert first.cluster != second.cluster
    assert first.question == "What is happening in the video ?" and first.pictures == ()


def test_a_csv_has_one_caption_a_row(folder: Path) -> None:
    (folder / "captions.csv").write_text("video,caption\na.mp4,A star moves.\nb.mov,It stays.\n")
    found = read(CLIPS, Source(str(folder))).items
    assert [sample.references for sample in found] == [("A star moves.",), ("It stays.",)]


def test_where_the_file_is_does_not_matter_what_it_shows_does(folder: Path) -> None:
    rows = [{**row, "caption": ["It."]} for row in ROWS]
    (folder / "captions.jsonl").write_text(lines(rows))
    named = read(CLIPS, Source(str(folder))).items
    table = [{"video": {"bytes": b, "path": None}, "caption": ["It."]} for b in (FILM, OTHER)]
    parquet = folder.parent / "parquet"
    parquet.mkdir()
    features = datasets.Features(
        {"video": datasets.Video(), "caption": datasets.List(datasets.Value("string"))}
    )
    datasets.Dataset.from_list(table, features=features).to_parquet(str(parquet / "test.parquet"))
    held = read(CLIPS, Source(str(parquet))).items
    for hashed in (content_hash, source_hash):
        assert [hashed(s) for s in named] == [hashed(s) for s in held]
        assert hashed(named[0]) != hashed(named[1])


def test_a_video_as_frames(folder: Path) -> None:
    pngs = []
    for level in (0, 90, 180, 250):
        out = io.BytesIO()
        Image.new("RGB", (28, 28), (level, 0, 0)).save(out, "PNG")
        pngs.append({"bytes": out.getvalue(), "path": None})
    features = datasets.Features(
        {"frames": datasets.List(datasets.Image()), "caption": datasets.Value("string")}
    )
    table = datasets.Dataset.from_list([{"frames": pngs, "caption": "Redder."}], features=features)
    table.to_parquet(str(folder / "test.parquet"))
    (sample,) = read(CLIPS, Source(str(folder))).items
    assert sample.clip is not None
    assert decode(sample.clip).pictures[:, 0, 0, 0].tolist() == [0, 0, 90, 90, 180, 180, 250, 250]


def test_videos_that_another_data_set_holds(folder: Path) -> None:
    """Rows that only name theirs are given them; a name that is not there is told with its row."""
    asked, held = folder / "asked", folder / "held"
    asked.mkdir(), held.mkdir()
    rows = [{"video_id": v, "question": "What moves?", "answer": "star"} for v in ("b", "a")]
    films = [
        {"video_id": v, "video": {"bytes": f, "path": None}} for v, f in (("a", FILM), ("b", OTHER))
    ]
    features = datasets.Features({"video_id": datasets.Value("string"), "video": datasets.Video()})
    datasets.Dataset.from_list(films, features=features).to_parquet(str(held / "test.parquet"))
    datasets.Dataset.from_list(rows).to_parquet(str(asked / "test.parquet"))
    source = Source(str(asked), films=str(held))
    found = read(VIDEOQA, source).items
    assert [sample.clip for sample in found] == [Clip(OTHER), Clip(FILM)]
    assert [sample.cluster for sample in found] == ["b", "a"]
    datasets.Dataset.from_list([{**rows[0], "video_id": "c"}]).to_parquet(
        str(asked / "test.parquet")
    )
    with pytest.raises(DataError, match=r"row 0 of videoqa .* expected a `video` column"):
        read(VIDEOQA, source)
    datasets.Dataset.from_list([{"caption": "It."}]).to_parquet(str(held / "test.parquet"))
    with pytest.raises(DataError, match=r"held lacks column.s. video_id, video; it has caption"):
        read(VIDEOQA, source)


def test_questions_on_videos_in_the_published_columns(folder: Path) -> None:
    rows = [{"id": 7, "video": "a.mp4", "question": "What moves?", "answer": "star"}]
    (folder / "captions.jsonl").write_text(lines(rows))
    (sample,) = read(VIDEOQA, Source(str(folder))).items
    assert (sample.id, sample.references, sample.cluster) == (
        "7",
        ("star",),
        content(Clip(FILM))[:16],
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"video": None, "caption": ["x"]}], "row 0 of clips .* expected a `video` column"),
        ([{"video": "", "caption": ["x"]}], "row 0 of clips"),
        ([{"video": "a.mp4", "caption": []}], "1 samples have no reference"),
        ([{"video": "a.mp4", "caption": [3]}], "row 0 of clips .* expected a list of texts"),
        ([{"video": "a.mp4", "text": ["x"]}], r"lacks column\(s\) caption"),
    ],
)
def test_rows_that_cannot_be_judged(folder: Path, rows: Rows, says: str) -> None:
    (folder / "captions.jsonl").write_text(lines(rows))
    with pytest.raises(DataError, match=says):
        read(CLIPS, Source(str(folder)))


def named(folder: Path, video: str) -> None:
    table = datasets.Dataset.from_list([{"video": video, "caption": ["x"]}])
    table.to_parquet(str(folder / "test.parquet"))


def test_a_table_may_name_the_videos_beside_it(folder: Path) -> None:
    named(folder, "a.mp4")
    (sample,) = read(CLIPS, Source(str(folder))).items
    assert sample.clip == Clip(folder / "a.mp4")


def test_a_table_that_names_videos_it_does_not_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some published tables do."""
    named(folder, "video0.mp4")
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda where, **asked: load(str(folder), **asked))
    with pytest.raises(DataError, match=r"names its videos .video0\.mp4. and does not hold"):
        read(CLIPS, Source("some/hub-id"))


def test_a_url_is_told_as_one(folder: Path) -> None:
    (folder / "captions.jsonl").write_text(
        lines([{"video": "https://example.org/a.mp4", "caption": ["x"]}])
    )
    (sample,) = read(CLIPS, Source(str(folder))).items
    with pytest.raises(VideoError, match=r"https://example\.org/a\.mp4: a URL, not a file"):
        content_hash(sample)


def test_the_same_name_in_two_folders_is_two_videos(folder: Path) -> None:
    for name, film in (("cook", FILM), ("sport", OTHER)):
        (folder / name).mkdir()
        (folder / name / "1.mp4").write_bytes(film)
    rows = [{"video": f"{name}/1.mp4", "caption": ["x"]} for name in ("cook", "sport", "cook")]
    (folder / "captions.jsonl").write_text(lines(rows))
    first, second, third = read(CLIPS, Source(str(folder))).items
    assert first.cluster == third.cluster != second.cluster


def test_other_data_sets_keep_their_metadata(folder: Path) -> None:
    """A table of captions is looked for where rows show videos, and where no split is stored."""
    (folder / "metadata.json").write_text('{"license": "cc"}')
    png = io.BytesIO()
    Image.new("RGB", (28, 28)).save(png, "PNG")
    picture = {"bytes": png.getvalue(), "path": None}
    rows = [{"image": picture, "video": "a.mp4", "caption": ["x"]}]
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "test.parquet"))
    assert len(read(catalogued()["flickr30k"], Source(str(folder))).items) == 1
    assert len(read(CLIPS, Source(str(folder))).items) == 1


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "a\0b.mp4"])
def test_a_name_that_no_system_takes_is_the_error_of_its_sample(folder: Path, name: str) -> None:
    (folder / "captions.jsonl").write_text(lines([{"video": name, "caption": ["x"]}]))
    (sample,) = read(CLIPS, Source(str(folder))).items
    source_hash(sample)
    with pytest.raises(VideoError, match="cannot be read as a video"):
        content_hash(sample)


def test_a_missing_video_is_the_error_of_its_sample(folder: Path) -> None:
    (folder / "captions.jsonl").write_text(lines([{"video": "no.mp4", "caption": ["x"]}]))
    (sample,) = read(CLIPS, Source(str(folder))).items
    source_hash(sample)  # known before anything is loaded
    with pytest.raises(VideoError, match=r"no\.mp4 cannot be read .*there is no such file"):
        content_hash(sample)
