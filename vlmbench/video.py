"""Frames of a video file: which ones, when they are shown, and what they show.

Any container that ffmpeg reads, by PyAV. A file is read in packets first, which is cheap and tells
every frame's time; then only what leads to the chosen frames is decoded, from the key frame before
each. Where packets do not tell (no time stamps, codecs with hidden frames), all is decoded, one
frame in memory at a time.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.errors import VideoError
from vlmbench.files import content_of
from vlmbench.spec import Clip, Sampling

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from PIL.Image import Image

_HIDDEN = {"vp8"}
"""Codecs whose packets may hold a frame that is never shown."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


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
    last = times_s[-1] - times_s[0]
    ticks = (times_s[0] + i / fps for i in range(int(last * fps + 1e-6) + 1))
    return [max(0, bisect_right(times_s, tick + 1e-6) - 1) for tick in ticks]


def choose(times_s: Sequence[float], sampling: Sampling) -> list[int]:
    """Indices of the frames that a sampling takes of a video whose frames have these times."""
    if sampling.fps is not None:
        return at_rate(times_s, sampling.fps)
    return uniform(len(times_s), sampling.frames)


def read(clip: Clip, *, most: int | None = None) -> Frames:
    """Decode the chosen frames of a clip, no more than `most`.

    Raises:
        VideoError: it cannot be read, holds no whole video, or more frames are asked for.
    """
    if isinstance(clip.data, tuple):
        return _stills(clip.data, clip.sampling, most)
    name, file = _opened(clip.data)
    with _explained(name), _container(file) as container:
        stream = _stream(container)
        for look in (_by_packets, _by_frames):
            index = look(container, stream)
            if index is None:
                continue
            chosen = choose(index.seconds, clip.sampling)
            _check_count(name, chosen, most)
            pictures = _sought(container, stream, index, chosen)
            if pictures is not None:
                return _frames(pictures, chosen, index.seconds)
        raise ValueError("its frames change while it is read")


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
    """Hash of a clip's file and of which frames are taken, without decoding it.

    Raises:
        VideoError: there is no such file.
    """
    data = clip.data
    if isinstance(data, Path):
        name, file = _opened(data)
        file.close()
        content = content_of(Path(name))
    else:
        content = hashlib.sha256(data if isinstance(data, bytes) else b"".join(data)).hexdigest()
    return f"{clip.sampling} of {content}"


def _check_count(name: str, chosen: Sequence[int], most: int | None) -> None:
    if most is not None and len(chosen) > most:
        raise VideoError(
            f"{name}: {len(chosen)} frames are asked for, the model takes {most} at most. Ask for "
            "fewer frames, fewer a second, or cut the video."
        )


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
    chosen = choose(seconds, sampling)
    _check_count("a video given as pictures", chosen, most)
    images = [decode_picture(pictures[i]) for i in chosen]
    if len({image.size for image in images}) > 1:
        raise VideoError("the pictures of a video differ in size. Expected frames of one video.")
    return _frames([np.asarray(image) for image in images], chosen, seconds)


def _opened(data: bytes | Path) -> tuple[str, Any]:
    """What to call the video, and what PyAV opens."""
    if isinstance(data, bytes):
        return f"a video of {len(data)} bytes", io.BytesIO(data)
    if _SCHEME.match(str(data)) or _SCHEME.match(str(data).replace(":/", "://", 1)):
        raise VideoError(f"{data}: a URL, not a file. Download it first and name the file.")
    if not data.is_file():
        reason = "a folder, not a file" if data.is_dir() else "no such file"
        raise VideoError(f"{data}: {reason}. Expected a video file (mp4, mov, webm, gif, ...).")
    # As an open file: ffmpeg would take a name such as "concat:a|b" for an instruction.
    return str(data), data.open("rb")


@contextmanager
def _container(file: Any) -> Iterator[InputContainer]:
    import av

    # A playlist must not make ffmpeg open what it names, here or on the network.
    with file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
        yield container


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what ffmpeg says of a bad file into one error."""
    import av

    try:
        yield
    except (av.error.FFmpegError, EOFError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise VideoError(
            f"{name} cannot be read as a video ({reason}). Expected a whole video file (mp4, mov, "
            "webm, gif, ...); export or download it again."
        ) from None


def _stream(container: InputContainer) -> Any:
    """The first video stream that is no cover picture."""
    from av.stream import Disposition

    covers = Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise ValueError(f"it has no video stream, only {kinds}")
    return streams[0]


@dataclass(frozen=True)
class _Index:
    """Every frame of a video, in the order they are shown."""

    seconds: array[float]
    stamps: array[int] | None = None
    """Their time stamps; None: frames are known by their number alone."""
    keys: array[int] | None = None
    """The time stamps that decoding can start from."""


def _by_packets(container: InputContainer, stream: Any) -> _Index | None:
    """The index from packets alone; None where they do not tell."""
    stamps, keys, count = array("q"), array("q"), 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        count += 1
        if packet.is_corrupt:
            raise ValueError(f"it is damaged after {count} frames")
        if packet.pts is None or stream.codec_context.name in _HIDDEN:
            return None
        if not packet.is_discard:
            stamps.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
    stamps = array("q", sorted(stamps))
    seconds = array("d", (float((s - stamps[0]) * stream.time_base) for s in stamps))
    _check_whole(stream, count, seconds)
    if not keys or any(a == b for a, b in pairwise(stamps)):
        return None
    return _Index(seconds, stamps, array("q", sorted(keys)))


def _by_frames(container: InputContainer, stream: Any) -> _Index:
    """The index from decoding everything, a frame at a time."""
    seconds = array("d")
    rate = float(stream.average_rate or 25)
    for count, frame in enumerate(_decoded(container, stream, None)):
        seconds.append(count / rate if frame.time is None else frame.time)
    _check_whole(stream, len(seconds), seconds)
    return _Index(array("d", (s - seconds[0] for s in seconds)))


def _check_whole(stream: Any, count: int, seconds: Sequence[float]) -> None:
    if not seconds:
        raise ValueError("it holds no frame")
    if count < stream.frames:
        raise ValueError(f"it ends after {count} of {stream.frames} frames: truncated")
    stated = stream.metadata.get("DURATION")  # as Matroska and WebM state it
    if stated:
        hours, minutes, rest = stated.split(":")
        length = int(hours) * 3600 + int(minutes) * 60 + float(rest)
        reached = seconds[-1] - seconds[0]
        if length - reached > max(1.0, 0.05 * length):
            raise ValueError(f"it ends after {reached:.1f} of {length:.1f} seconds: truncated")


def _sought(
    container: InputContainer, stream: Any, index: _Index, chosen: Sequence[int]
) -> list[Any] | None:
    """The chosen frames' pictures; None where they are not found at their time stamps."""
    from av.video.reformatter import VideoReformatter

    found: dict[int, Any] = {}
    convert = VideoReformatter().reformat  # kept: making one takes longer than using it
    if index.stamps is None or index.keys is None:
        wanted = set(chosen)
        for number, frame in enumerate(_decoded(container, stream, None)):
            if number in wanted:
                found[number] = _upright(convert(frame, format="rgb24"))
        return [found[i] for i in chosen]
    frames: Iterator[Any] = iter(())
    shown = None
    for number in sorted(set(chosen)):
        stamp = index.stamps[number]
        key = index.keys[max(0, bisect_right(index.keys, stamp) - 1)]
        if shown is None or key > shown:
            frames = _decoded(container, stream, key)
        for frame in frames:
            shown = frame.pts
            if shown is not None and shown >= stamp:
                break
        if shown != stamp:
            return None
        found[number] = _upright(convert(frame, format="rgb24"))
    return [found[i] for i in chosen]


def _decoded(container: InputContainer, stream: Any, stamp: int | None) -> Iterator[Any]:
    """Frames as they are shown: all of them, or from the key frame at or before a time stamp."""
    if stamp is None:
        container.seek(0, backward=True)
    else:
        container.seek(stamp, backward=True, stream=stream)
    yield from container.decode(stream)


def _upright(frame: Any) -> Any:
    """An RGB frame's pixels [height, width, 3], turned as the file says it is to be shown."""
    import numpy as np

    return np.ascontiguousarray(np.rot90(frame.to_ndarray(), frame.rotation // 90))
