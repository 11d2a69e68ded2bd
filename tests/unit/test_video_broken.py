"""What is no whole video file is one error that says why, and opens nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
from small_films import FRAMES, WIDTH, film

from vlmbench import video
from vlmbench.errors import VideoError
from vlmbench.spec import Clip, Sampling


def broken(films: Path, folder: Path, name: str) -> Path:
    """A bad file, by its name."""
    path = folder / name
    sources = {"cut.mp4": "h264.mp4", "cut.mkv": "h264.mkv", "cut.webm": "vp9.webm"}
    sources |= {"cut.gif": "any.gif", "cut.avi": "mpeg4.avi", "noise.mp4": "h264.mp4"}
    if name in sources:
        data = (films / sources[name]).read_bytes()
        third = len(data) // 3
        noise = bytes(i * 7 % 256 for i in range(third))
        path.write_bytes(data[: 2 * third] if "cut" in name else data[:third] + noise + data[:9])
    elif name == "faststart.mp4":
        data = film(folder / "h264.mp4", options={"movflags": "faststart"}).read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    elif name == "sound.m4a":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            silence = np.zeros((1, 16000), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.rate = 16000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    elif name != "missing.mp4":
        path.write_text("no video\n" * 40 if name == "text.mp4" else "")
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.mp4", "there is no such file"),
        ("empty.mp4", "it is empty"),
        ("text.mp4", "cannot be read as a video"),
        ("sound.m4a", "no video stream, only audio"),
        ("cut.mp4", "cannot be read as a video"),
        ("faststart.mp4", "Invalid data|truncated"),
        ("cut.mkv", "truncated"),
        ("cut.webm", "truncated"),
        ("cut.gif", "truncated"),
        ("cut.avi", "cannot be read as a video"),
        ("noise.mp4", "cannot be read as a video"),
    ],
)
def test_a_bad_file_is_one_error(films: Path, tmp_path: Path, name: str, says: str) -> None:
    path = broken(films, tmp_path, name)
    with pytest.raises(VideoError, match=f"{re.escape(str(path))}.*({says})") as raised:
        video.read(Clip(path))
    assert raised.value.__cause__ is None and "\n" not in str(raised.value)


def test_neither_a_folder_nor_a_url_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="a folder, not a file"):
        video.read(Clip(tmp_path))
    with pytest.raises(VideoError, match="a URL, not a file"):
        video.read(Clip(Path("https://example.org/clip.mp4")))


def test_a_gif_may_end_in_nothing(films: Path) -> None:
    data = (films / "any.gif").read_bytes()
    assert video.read(Clip(data + bytes(3))).total == FRAMES
    with pytest.raises(VideoError, match="truncated"):
        video.read(Clip(data[:-9]))


def test_a_playlist_opens_nothing(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it names would open, were it let."""
    playlist = films / "list.txt"
    playlist.write_text("ffconcat version 1.0\nfile 'h264.mp4'\n")
    monkeypatch.chdir(films)
    with playlist.open("rb") as file, av.open(file) as opened:
        assert next(opened.decode(video=0)).width == WIDTH
    with pytest.raises(VideoError, match="cannot be read as a video"):
        video.read(Clip(playlist))


def test_more_frames_than_memory_holds_are_never_listed(films: Path) -> None:
    with pytest.raises(VideoError, match="3900000000001 frames are asked for"):
        video.read(Clip(films / "h264.mp4", Sampling(fps=1e12)), most=8)
