"""A video file through PyAV: every frame's time, and the pixels of those that are asked for.

A file is read in packets first, which is cheap and tells every frame's time; then only what leads
to the chosen frames is decoded, from the key frame before each. Where packets do not tell (no time
stamps, codecs with hidden frames, damaged ones), all is decoded, one frame in memory at a time.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer

_HIDDEN = {"vp8"}
"""Codecs whose packets may hold a frame that is never shown."""
_STATED = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
"""How Matroska and WebM state where a stream ends: hours, minutes, seconds."""
_MISSING_S = 0.5
"""Seconds that a whole file's last frame may end before the stated end."""


def pictures(
    file: Any, choose: Callable[[Sequence[float]], list[int]]
) -> tuple[list[Any], list[int], Sequence[float]]:
    """The frames that `choose` takes by the seconds of all, their numbers, and those seconds.

    Each is [height, width, 3], upright, RGB.

    Raises:
        av.error.FFmpegError: ffmpeg cannot read the file.
        ValueError: it holds no whole video, with the reason.
    """
    for look in (_by_packets, _by_frames):
        with _opened(file) as (container, stream):
            index = look(container, stream)
        if index is None:
            continue
        chosen = choose(index.seconds)
        with _opened(file) as (container, stream):
            found = _sought(container, stream, index, chosen)
        if found is not None:
            return found, chosen, index.seconds
    raise ValueError("its frames change while it is read")


@contextmanager
def _opened(file: Any) -> Iterator[tuple[InputContainer, Any]]:
    """The file from its beginning, and its first video stream that is no cover picture.

    Anew for each pass: not every container can be wound back.
    """
    import av
    from av.stream import Disposition

    file.seek(0)
    # A playlist must not make ffmpeg open what it names, here or on the network.
    with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
        covers = Disposition.attached_pic
        streams = [s for s in container.streams if not s.disposition & covers]
        films = [s for s in streams if s.type == "video"]
        if not films:
            kinds = ", ".join(sorted({s.type for s in streams})) or "nothing"
            raise ValueError(f"it has no video stream, only {kinds}")
        yield container, films[0]


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
    stamps, keys, end = array("q"), array("q"), 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_corrupt or packet.pts is None or stream.codec_context.name in _HIDDEN:
            return None
        if packet.is_keyframe:
            keys.append(packet.pts)
        if not packet.is_discard:
            stamps.append(packet.pts)
            end = max(end, packet.pts + (packet.duration or 0))
    stamps = array("q", sorted(stamps))
    if not stamps or not keys or any(a == b for a, b in pairwise(stamps)):
        return None
    if len(stamps) > 1:  # a last frame of unknown length is as long as the one before it
        end = max(end, 2 * stamps[-1] - stamps[-2])
    _check_whole(stream, len(stamps), float(end * stream.time_base))
    seconds = array("d", (float((s - stamps[0]) * stream.time_base) for s in stamps))
    return _Index(seconds, stamps, array("q", sorted(keys)))


def _by_frames(container: InputContainer, stream: Any) -> _Index:
    """The index from decoding everything, a frame at a time."""
    seconds = array("d")
    rate = float(stream.average_rate or 25)
    for count, frame in enumerate(container.decode(stream)):
        seconds.append(count / rate if frame.time is None else frame.time)
    if not seconds:
        raise ValueError("it holds no frame")
    _check_whole(stream, len(seconds), seconds[-1] + 1 / rate)
    return _Index(array("d", (s - seconds[0] for s in seconds)))


def _check_whole(stream: Any, count: int, end: float) -> None:
    """Refuse a video that ends, in seconds, before it says it does."""
    stated = _STATED.fullmatch(stream.metadata.get("DURATION", ""))
    if stream.duration is not None:
        due = float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    elif stated:
        hours, minutes, seconds = stated.groups()
        due = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    else:
        return
    if due - end > _MISSING_S:
        raise ValueError(f"it ends after {count} frames, {due - end:.1f} s too soon: truncated")


def _sought(
    container: InputContainer, stream: Any, index: _Index, chosen: Sequence[int]
) -> list[Any] | None:
    """The chosen frames' pictures; None where they are not found at their time stamps."""
    import av
    from av.video.reformatter import VideoReformatter

    found: dict[int, Any] = {}
    convert = VideoReformatter().reformat  # kept: making one takes longer than using it

    def take(number: int, frame: Any) -> None:
        shown = convert(frame, format="rgb24", interpolation="BICUBIC")
        found[number] = _upright(shown.to_ndarray(), _turn(frame))

    if index.stamps is None or index.keys is None:
        wanted = set(chosen)
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                take(number, frame)
        return [found[i] for i in chosen] if found.keys() >= wanted else None
    frames: Iterator[Any] = iter(())
    shown = None
    for number in sorted(set(chosen)):
        stamp = index.stamps[number]
        key = index.keys[max(0, bisect_right(index.keys, stamp) - 1)]
        if shown is None or key > shown:
            try:
                frames = _from(container, stream, key)
            except av.error.FFmpegError:
                return None
        for frame in frames:
            shown = frame.pts
            if shown is not None and shown >= stamp:
                break
        if shown != stamp:
            return None
        take(number, frame)
    return [found[i] for i in chosen]


def _from(container: InputContainer, stream: Any, stamp: int) -> Iterator[Any]:
    """Frames as they are shown, from the key frame at or before a time stamp."""
    container.seek(stamp, backward=True, stream=stream)
    return container.decode(stream)


def _turn(frame: Any) -> tuple[int, int, int, int]:
    """How a frame is to be shown: (x from x, y from x, x from y, y from y), each -1, 0 or 1."""
    import numpy as np
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.rint(np.frombuffer(matrix, np.int32) / 2**16).astype(int).tolist()
    return a, b, c, d


def _upright(pixels: Any, turn: tuple[int, int, int, int]) -> Any:
    """Pixels [height, width, 3] turned and mirrored as the file says they are to be shown."""
    import numpy as np

    a, b, c, d = turn
    if not a:  # columns become rows
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[:: d or 1, :: a or 1])
