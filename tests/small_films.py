"""Small films to test with: the containers and codecs that people have, and long films."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FRAMES = 96, 64, 40
FORMATS = {
    "h264.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "open_gop.mp4": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "hevc.mov": ("libx265", {"x265-params": "keyint=12:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12"}),
    "vp8.webm": ("libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    "h264.mkv": ("libx264", {"g": "12"}),
    "h264.ts": ("libx264", {"g": "12", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "any.gif": ("gif", {}),
    "varying.mp4": ("libx264", {"g": "12"}),
    "vertical.mp4": ("libx264", {}),
    "one.mp4": ("libx264", {}),
}
KINDS = {".gif": "rgb8", ".mov": "yuv420p10le"}


def film(
    path: Path,
    *,
    options: dict[str, str] | None = None,
    turned: tuple[int, bool, bool] | None = None,
) -> Path:
    """A square moves right, two pixels a frame, ten frames a second."""
    codec, coding = FORMATS.get(path.name, ("libx264", {}))
    kind = "mpegts" if path.suffix == ".ts" else None
    with av.open(str(path), "w", format=kind, options=options or {}) as container:
        stream = container.add_stream(codec, rate=10, options=coding)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = KINDS.get(path.suffix, "yuv420p")
        if path.stem == "vertical":
            stream.set_display_rotation(90)
        if turned:
            stream.set_display_rotation(*turned)
        if path.stem == "varying":
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(1 if path.stem == "one" else FRAMES):
            pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            pixels[:16, :24] = (255, 255, 0)
            pixels[24:40, 2 * i : 2 * i + 16] = (255, 6 * i, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if path.stem == "varying":
                frame.pts, frame.time_base = 100 * i + 300 * (i // 4), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def repeated(path: Path, out: Path, times: int) -> Path:
    """A long film, made by repeating the packets of a short one: nothing is encoded again."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        packets = [p for p in source.demux(stream) if p.size]
        length = stream.duration
        begin = [(p.pts, p.dts) for p in packets]
        for turn in range(times):
            for packet, (pts, dts) in zip(packets, begin, strict=True):
                packet.pts, packet.dts = pts + turn * length, dts + turn * length
                packet.stream = copied
                target.mux(packet)
    return out
