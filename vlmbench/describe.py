"""A video goes in, a sentence of each variant comes out: what `vlmbench describe` shows."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmbench import measure
from vlmbench.bench import Bench
from vlmbench.datasets.clips import CLIPS
from vlmbench.errors import UsageError
from vlmbench.prompting import taken_by, watch
from vlmbench.spec import Clip, Model, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmbench.variant import Variant
    from vlmbench.video import Frames

_THUMBNAIL = 320
"""Pixels of a frame's longer side on a contact sheet."""


@dataclass(frozen=True)
class Described:
    """What one variant said of a video, and what that took."""

    variant: str
    answer: str
    latency_s: float
    """From the file to the whole answer, after a warm-up of one token."""
    weight_bytes: int
    peak_bytes: int
    """Allocated on CUDA, else resident in the whole process."""


def look(bench: Bench, clip: Clip, question: str) -> tuple[dict[str, Turn], Frames]:
    """What every model of `bench` is asked, and the frames that they see.

    Raises:
        UsageError: a model takes no video.
        VideoError: the clip cannot be read, or is beyond a model's limits.
    """
    turns = {model.name: _turn(model, clip, question) for model in bench.models}
    watched = [watch(turn) for turn in turns.values()]  # each within its own model's limits
    frames = watched[0]
    assert frames is not None, "every turn has the clip"
    return turns, frames


def describe(bench: Bench, turns: Mapping[str, Turn], *, max_new_tokens: int) -> list[Described]:
    """What every model and compression of `bench` says, one loaded at a time."""
    return [
        _described(bench.variant(model, compression), turns[model.name], max_new_tokens)
        for model in bench.models
        for compression in bench.compressions
    ]


def _described(variant: Variant, turn: Turn, max_new_tokens: int) -> Described:
    from vlmbench.answering import answer

    name = str(turn.clip.data if turn.clip else "")

    def answered(tokens: int) -> str:
        return answer(variant, {name: turn}, max_new_tokens=tokens, batch_size=1)[name].text

    said: list[str] = []
    answered(1)
    with measure.peak_memory(variant.device) as peak:
        latency = measure.timed(
            lambda: said.append(answered(max_new_tokens)), device=variant.device
        )
    return Described(
        variant.name, said[0], latency, variant.census.footprint_bytes, peak.peak_bytes
    )


def _turn(model: Model, clip: Clip, question: str) -> Turn:
    if model.watching is None:
        raise UsageError(f"{model.name} takes no video. Name a model that does: vlmbench list")
    return taken_by(model, Turn((), question, CLIPS.instruction, clip))


def as_json(path: Path, question: str, frames: Frames, described: list[Described]) -> str:
    """All of it as one JSON object."""
    return json.dumps(
        {
            "video": str(path),
            "question": question,
            "frames": {"indices": frames.indices, "times_s": frames.times_s, "of": frames.total},
            "answers": [asdict(one) for one in described],
        }
    )


def as_text(frames: Frames, described: list[Described], width: int) -> str:
    """The answers side by side, and under them the frames that were seen."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    times = ", ".join(f"{time:.2f}" for time in frames.times_s)
    seen = f"{len(frames.indices)} of {frames.total} frames, at {times} s"
    if len(described) == 1:
        (one,) = described
        took = f"{one.latency_s:.2f} s, weights {one.weight_bytes / 1e6:.1f} MB"
        return f"{one.answer}\n\n{seen}\n{took}, peak {one.peak_bytes / 1e6:.0f} MB\n"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("variant", no_wrap=True)
    table.add_column("answer", overflow="fold")
    for column in ("s", "weights MB", "peak MB"):
        table.add_column(column, justify="right")
    for one in described:
        sizes = f"{one.weight_bytes / 1e6:.1f}", f"{one.peak_bytes / 1e6:.0f}"
        table.add_row(one.variant, Text(one.answer), f"{one.latency_s:.2f}", *sizes)
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(table)
    return f"{out.getvalue()}\n{seen}\n"


def contact_sheet(frames: Frames) -> Image:
    """The frames in reading order, each with its time."""
    from PIL import Image, ImageDraw, ImageFont

    pictures = frames.images()
    for picture in pictures:
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    width, height = pictures[0].size
    line = 16
    across = math.ceil(math.sqrt(len(pictures) * height / width)) or 1
    down = math.ceil(len(pictures) / across)
    sheet = Image.new("RGB", (across * width, down * (height + line)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for i, (picture, time) in enumerate(zip(pictures, frames.times_s, strict=True)):
        x, y = i % across * width, i // across * (height + line)
        sheet.paste(picture, (x, y + line))
        pen.text((x + 2, y + 2), f"{time:.2f} s", fill=(0, 0, 0), font=ImageFont.load_default(12))
    return sheet
