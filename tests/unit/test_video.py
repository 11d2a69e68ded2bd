"""Frames of video files: the right ones, by time stamp, upright, without decoding all."""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from small_films import FORMATS, FRAMES, HEIGHT, WIDTH, film, repeated

from vlmbench import container, video
from vlmbench.errors import VideoError
from vlmbench.spec import Clip, Sampling

SPARSE = ("h264.mp4", "open_gop.mp4", "hevc.mov", "vp9.webm", "h264.mkv")
"""Those that are read from the key frame before each chosen frame."""


def whole(path: Path) -> np.ndarray[Any, Any]:
    """Every frame, decoded from the first to the last."""
    with av.open(str(path)) as opened:
        frames = [
            f.to_ndarray(format="rgb24", interpolation="BICUBIC") for f in opened.decode(video=0)
        ]
    return np.stack(frames)


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        (40, 8, [0, 5, 10, 15, 20, 25, 30, 35]),
        (25, 8, [0, 3, 6, 9, 12, 15, 18, 21]),
        (8, 8, list(range(8))),
        (5, 8, [0, 0, 1, 1, 2, 3, 3, 4]),
        (1, 3, [0, 0, 0]),
        (10**6, 2, [0, 500_000]),
    ],
)
def test_uniform_frames(total: int, count: int, expected: list[int]) -> None:
    assert video.uniform(total, count) == expected
    published = np.arange(0, total, total / count).astype(int)
    assert published[:count].tolist() == expected


@pytest.mark.parametrize(
    ("times", "fps", "expected"),
    [
        ([0.0, 0.1, 0.2, 0.3, 0.4], 10, [0, 1, 2, 3, 4]),
        ([0.0, 0.1, 0.2, 0.3, 0.4], 5, [0, 2, 4]),
        ([0.0, 0.1, 0.2], 20, [0, 0, 1, 1, 2]),
        ([5.0, 5.1, 7.0], 1, [0, 1, 2]),
        ([3.0], 1, [0]),
    ],
)
def test_frames_a_second_are_those_on_show(
    times: list[float], fps: float, expected: list[int]
) -> None:
    assert video.at_rate(times, fps) == expected


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("source", ["file", "bytes"])
def test_chosen_frames_are_those_of_decoding_all(films: Path, name: str, source: str) -> None:
    path = films / name
    seen = video.read(Clip(path if source == "file" else path.read_bytes()))
    expected = whole(path)
    assert seen.total == len(expected)
    assert seen.indices == tuple(video.uniform(len(expected), 8))
    shown = np.rot90(seen.pictures, -1, axes=(1, 2)) if name == "vertical.mp4" else seen.pictures
    assert np.array_equal(shown, expected[list(seen.indices)])


def shown_by_ffmpeg(path: Path, like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every frame, of the shape of those in `like`."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, *like.shape[1:])


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed: make system")
@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_those_of_ffmpeg(films: Path, name: str) -> None:
    seen = video.read(Clip(films / name))
    expected = shown_by_ffmpeg(films / name, seen.pictures)
    apart = np.abs(expected[list(seen.indices)].astype(int) - seen.pictures)
    # From 10 bits to 8 is left to the scaler, whose version differs.
    assert apart.mean() < 0.5 if name == "hevc.mov" else not apart.any()


def test_a_vertical_video_is_upright(films: Path) -> None:
    """Filmed lying, to be shown turned by 90 degrees: the yellow corner is at the bottom left."""
    seen = video.read(Clip(films / "vertical.mp4"))
    assert seen.pictures.shape == (8, WIDTH, HEIGHT, 3)
    corner = seen.pictures[0, -12, 8].astype(int)
    assert corner[0] > 200 and corner[1] > 200 and corner[2] < 80


def test_varying_frame_rates_go_by_time_stamps(films: Path) -> None:
    seen = video.read(Clip(films / "varying.mp4", Sampling(fps=2)))
    expected = [(100 * i + 300 * (i // 4)) / 1000 for i in range(FRAMES)]
    assert seen.times_s == pytest.approx([expected[i] for i in seen.indices])
    assert seen.indices == tuple(video.at_rate(expected, 2.0))


@pytest.mark.parametrize("name", SPARSE)
def test_only_what_leads_to_the_chosen_frames_is_decoded(
    films: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    decoded = 0
    plain = container._from

    def counting(*args: Any) -> Any:
        nonlocal decoded
        for frame in plain(*args):
            decoded += 1
            yield frame

    monkeypatch.setattr(container, "_from", counting)
    seen = video.read(Clip(films / name, Sampling(frames=2)))
    assert seen.indices == (0, 20)
    assert 0 < decoded <= 10, "the first frame, and from frame 12 or 13 on to 20"


def test_a_seek_that_misses_is_made_good(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a seek lands behind the frame, everything is decoded instead."""
    plain = container._from
    monkeypatch.setattr(container, "_from", lambda *args: itertools.islice(plain(*args), 9, None))
    path = films / "h264.mp4"
    seen = video.read(Clip(path))
    assert np.array_equal(seen.pictures, whole(path)[list(seen.indices)])


def test_a_file_that_cannot_be_wound_back_is_decoded(films: Path) -> None:
    """A raw stream: no container, no time stamps, no seeking."""
    raw = films / "raw.h264"
    with av.open(str(films / "h264.ts")) as source, av.open(str(raw), "w", "h264") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                target.mux(packet)
    seen, same = video.read(Clip(raw)), video.read(Clip(films / "h264.ts"))
    assert seen.total == FRAMES and np.array_equal(seen.pictures, same.pictures)


def test_a_trimmed_video_is_whole(films: Path) -> None:
    """An edit list, as telephones write it, shows a part of the frames that are stored."""
    data = bytearray((films / "h264.mp4").read_bytes())
    place = data.index(b"elst") + 12
    length = int.from_bytes(data[place : place + 4])
    data[place : place + 4] = (length // 2).to_bytes(4)
    seen = video.read(Clip(bytes(data)))
    assert seen.total == FRAMES // 2
    assert np.array_equal(seen.pictures, whole(films / "h264.mp4")[list(seen.indices)])


def test_a_slide_show_is_whole(films: Path) -> None:
    """A frame every ten seconds: the last one is shown for as long."""
    path = films / "slides.mkv"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mjpeg", rate=Fraction(1, 10))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for i in range(3):
            pixels = np.full((HEIGHT, WIDTH, 3), 100 * i, np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(stream.encode(None))
    assert video.read(Clip(path, Sampling(frames=3))).times_s == (0.0, 10.0, 20.0)


@pytest.mark.parametrize("turned", [(0, 1, 0), (0, 0, 1), (90, 1, 0), (90, 0, 1), (180, 0, 0)])
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed: make system")
def test_what_is_filmed_mirrored_is_shown_so(films: Path, turned: tuple[int, bool, bool]) -> None:
    path = film(films / "mirrored.mp4", turned=turned)
    seen, plain = video.read(Clip(path)).pictures, video.read(Clip(films / "h264.mp4")).pictures
    assert np.array_equal(seen, shown_by_ffmpeg(path, seen)[[0, 5, 10, 15, 20, 25, 30, 35]])
    assert not np.array_equal(seen, plain)


def test_frames_may_come_as_pictures() -> None:
    pngs = []
    for level in range(10):
        out = io.BytesIO()
        Image.new("RGB", (8, 6), (level, 0, 0)).save(out, "PNG")
        pngs.append(out.getvalue())
    seen = video.read(Clip(tuple(pngs), Sampling(frames=5)))
    assert seen.pictures[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]
    with pytest.raises(VideoError, match="without frames"):
        video.read(Clip(()))


def test_more_frames_than_the_model_takes(films: Path) -> None:
    with pytest.raises(VideoError, match="16 frames are asked for, the model takes 8 at most"):
        video.read(Clip(films / "h264.mp4", Sampling(frames=16)), most=8)


def test_what_is_seen_is_told_by_its_hash(films: Path) -> None:
    path = films / "h264.mp4"
    first = video.seen(Clip(path))
    assert first == video.seen(Clip(path.read_bytes())), "where the file is does not matter"
    assert first.frames == 8
    others = [Clip(path, Sampling(frames=4)), Clip(path, Sampling(fps=4)), Clip(films / "h264.ts")]
    digests = {first.digest, *(video.seen(other).digest for other in others)}
    assert len(digests) == 4
    assert len({video.source_digest(c) for c in (Clip(path), *others)}) == 4


PEAK = """
import sys
from pathlib import Path
from vlmbench import video
from vlmbench.measure import peak_bytes
from vlmbench.spec import Clip

seen = video.read(Clip(Path(sys.argv[1])))
print(seen.total, *seen.indices, peak_bytes("cpu"))
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="elsewhere a process's peak is that of its parent, if that was larger",
)
def test_an_hour_takes_the_memory_of_a_minute(films: Path) -> None:
    peaks = []
    for minutes in (1, 60):
        film = repeated(films / "h264.mp4", films / f"{minutes}.mp4", 15 * minutes)
        told = subprocess.run(
            [sys.executable, "-c", PEAK, str(film)], capture_output=True, text=True, check=True
        )
        total, *indices, peak = map(int, told.stdout.split())
        assert total == 600 * minutes
        assert indices == video.uniform(total, 8)
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 20_000_000, "bytes"
