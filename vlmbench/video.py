"""Frames of a video: which ones, when they are shown, and what they show."""

from __future__ import annotations

import hashlib
import io
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vlmbench import container
from vlmbench.errors import VideoError
from vlmbench.files import content_of
from vlmbench.spec import Clip, Sampling

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class Frames:
    """The frames of a video that a model is shown."""

    pictures: np.ndarray[Any, np.dtype[np.uint8]]
    """[frames, height, width, 3], upright."""
    indices: tuple[int, ...]
    """Their numbers in the video, in the order they are shown, from 0."""
    times_s: tuple[float, ...]
    """Seconds from the video's first frame."""
    total: int
    """Frames in the video."""

    @property
    def digest(self) -> str:
        """Hash of which frames these are and of every pixel."""
        digest = hashlib.sha256(json.dumps([self.indices, self.pictures.shape]).encode())
        digest.update(self.pictures.tobytes())
        return digest.hexdigest()[:16]

    def images(self) -> list[Image]:
        """The frames as pictures."""
        from PIL import Image

        return [Image.fromarray(picture) for picture in self.pictures]


def uniform(total: int, count: int) -> list[int]:
    """`count` indices at equal steps from the first: arange(0, total, total / count).

    A video of fewer frames than `count` shows some of them more than once.
    """
    return [i * total // count for i in range(count)]


def at_rate(times_s: Sequence[float], fps: float) -> list[int]:
    """Indices of the frames on show at 0, 1/fps, 2/fps, ... seconds after the first.

    `times_s` rise; they need not be evenly spaced.
    """
    ticks = (times_s[0] + i / fps for i in range(_ticks(times_s, fps)))
    return [max(0, bisect_right(times_s, tick + 1e-6) - 1) for tick in ticks]


def _ticks(times_s: Sequence[float], fps: float) -> int:
    return int((times_s[-1] - times_s[0]) * fps + 1e-6) + 1


def choose(
    times_s: Sequence[float], sampling: Sampling, most: int | None = None, name: str = "the video"
) -> list[int]:
    """Indices of the frames that a sampling takes of a video whose frames have these times.

    Raises:
        VideoError: they are more than `most`.
    """
    fps = sampling.fps
    count = sampling.frames if fps is None else _ticks(times_s, fps)
    if most is not None and count > most:
        raise VideoError(
            f"{name}: {count} frames are asked for, the model takes {most} at most. Ask for fewer "
            "frames, fewer a second, or cut the video."
        )
    return uniform(len(times_s), count) if fps is None else at_rate(times_s, fps)


def read(clip: Clip, *, most: int | None = None) -> Frames:
    """Decode the chosen frames of a clip, no more than `most`.

    Raises:
        VideoError: it cannot be read, holds no whole video, or more frames are asked for.
    """
    if isinstance(clip.data, tuple):
        return _stills(clip.data, clip.sampling, most)
    name = _name(clip.data)
    with _explained(name), _opened(name, clip.data) as file:
        return _frames(
            *container.pictures(file, lambda times: choose(times, clip.sampling, most, name))
        )


@dataclass(frozen=True)
class Seen:
    """What a model is shown of a clip, without the pixels."""

    frames: int
    digest: str
    """Hash of which frames and of every pixel."""


def seen(clip: Clip) -> Seen:
    """What is shown of a clip; decoded once in a process.

    Raises:
        VideoError: as `read` does.
    """
    return _seen(clip, source_digest(clip))


@lru_cache(maxsize=8192)
def _seen(clip: Clip, source: str) -> Seen:
    frames = read(clip)
    return Seen(len(frames.indices), frames.digest)


def source_digest(clip: Clip) -> str:
    """Hash of a clip's file and of which frames are taken, without decoding it."""
    return f"{clip.sampling} of {content(clip)}"


def content(clip: Clip) -> str:
    """Hash of a clip's file or pictures; of a file that cannot be read, its name."""
    data = clip.data
    if not isinstance(data, Path):
        return hashlib.sha256(data if isinstance(data, bytes) else b"".join(data)).hexdigest()
    try:
        return content_of(data)
    except (OSError, ValueError):  # ValueError: no system takes such a name
        return f"unreadable {data}"


def _frames(pictures: Any, chosen: Sequence[int], seconds: Sequence[float]) -> Frames:
    import numpy as np

    times = tuple(round(seconds[i], 6) for i in chosen)
    return Frames(np.stack(pictures), tuple(chosen), times, len(seconds))


def _stills(pictures: tuple[bytes, ...], sampling: Sampling, most: int | None) -> Frames:
    """Frames that come as pictures, one a second."""
    import numpy as np

    from vlmbench.pictures import decode_picture

    seconds = [float(i) for i in range(len(pictures))]
    if not seconds:
        raise VideoError("a video without frames. Expected at least one picture.")
    chosen = choose(seconds, sampling, most, "a video given as pictures")
    images = [decode_picture(pictures[i]) for i in chosen]
    if len({image.size for image in images}) > 1:
        raise VideoError("the pictures of a video differ in size. Expected frames of one video.")
    return _frames([np.asarray(image) for image in images], chosen, seconds)


def _name(data: bytes | Path) -> str:
    return f"a video of {len(data)} bytes" if isinstance(data, bytes) else str(data)


def _opened(name: str, data: bytes | Path) -> IO[bytes]:
    """The video as an open file: ffmpeg would take a name such as "concat:a|b" for an order."""
    if isinstance(data, bytes):
        file: IO[bytes] = io.BytesIO(data)
    elif _SCHEME.match(name):
        url = name.replace(":/", "://", 1)  # a path has lost a slash of it
        raise VideoError(f"{url}: a URL, not a file. Download it first and name the file.")
    elif data.is_dir():
        raise VideoError(f"{name}: a folder, not a file. Expected a video file (mp4, webm, ...).")
    else:
        file = data.open("rb")
    try:
        _check_ends(file)
    except BaseException:
        file.close()
        raise
    return file


def _check_ends(file: IO[bytes]) -> None:
    """Refuse what ffmpeg would take for less than it is: an empty file, half a GIF."""
    begin = file.read(4)
    if not begin:
        raise ValueError("it is empty")
    file.seek(0, io.SEEK_END)
    file.seek(max(0, file.tell() - 1024))
    if begin == b"GIF8" and not file.read().rstrip(b"\0").endswith(b";"):
        raise ValueError("it has no end: truncated")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what is said of a bad file, by the system or by ffmpeg, into one error."""
    import av

    try:
        yield
    except FileNotFoundError:
        reason = "there is no such file"
    except (av.error.FFmpegError, EOFError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    else:
        return
    raise VideoError(
        f"{name} cannot be read as a video ({reason}). Expected a whole video file (mp4, mov, "
        "webm, gif, ...); export or download it again."
    )
