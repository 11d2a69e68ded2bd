"""A video file through PyAV: every frame's time, and the pixels of those that are asked for.

A file is read in packets first, which is cheap and tells every frame's time; then only what leads
to the chosen frames is decoded, from the key frame before each. Where packets do not tell (no time
stamps, codecs with hidden frames), all is decoded, one frame in memory at a time.
"""

from __future__ import annotations

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


def pictures(
    file: Any, choose: Callable[[Sequence[float]], list[int]]
) -> tuple[list[Any], list[int], Sequence[float]]:
    """The frames that `choose` takes by the seconds of all, their numbers, and those seconds.

    Each is [height, width, 3], upright, RGB.

    Raises:
        av.error.FFmpegError: ffmpeg cannot read the file.
        ValueError: it holds no whole video, with the reason.
    """
    with _container(file) as container:
        stream = _stream(container)
        for look in (_by_packets, _by_frames):
            index = look(container, stream)
            if index is None:
                continue
            chosen = choose(index.seconds)
            found = _sought(container, stream, index, chosen)
            if found is not None:
                return found, chosen, index.seconds
    raise ValueError("its frames change while it is read")


@contextmanager
def _container(file: Any) -> Iterator[InputContainer]:
    import av

    # A playlist must not make ffmpeg open what it names, here or on the network.
    with file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
        yield container


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
                found[number] = _upright(convert(frame, format="rgb24", interpolation="BICUBIC"))
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
        found[number] = _upright(convert(frame, format="rgb24", interpolation="BICUBIC"))
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
