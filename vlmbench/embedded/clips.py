"""clips and videoqa: short films of coloured shapes, what is said and what is asked of them.

Something moves, bounces, appears, vanishes, changes colour, passes in front of another thing or
comes and goes; sometimes one event follows another. What is asked no single frame can answer.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from vlmbench.embedded.canvas import COLORS, Canvas, Thing, remember
from vlmbench.embedded.scenes import PITCH, SETTINGS, SIDE, Asked, annotators, pool

RATE = 8
"""Frames a second."""
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TIMES = {"1": "once", "2": "twice", "3": "three times"}
ALONE = ("move", "bounce", "appear", "vanish", "turn")
"""What a thing may do on its own; beside these, two may pass, or come and go in turn."""


@dataclass(frozen=True)
class Event:
    """What one thing does between two moments (shares of the film, 0 to 1)."""

    kind: str
    """still, visit (comes and goes), pass, or one of ALONE."""
    thing: Thing
    """Where it stands at first; of a bounce, the highest point."""
    start: float = 0.0
    end: float = 1.0
    detail: str = ""
    """Where it goes (move, pass), how often (bounce), or the colour it turns to."""

    def at(self, time: float) -> Thing | None:
        """The thing at a moment; None where it is not to be seen."""
        done = min(1.0, max(0.0, (time - self.start) / (self.end - self.start)))
        changed = time >= (self.start + self.end) / 2
        if self.kind in ("move", "pass"):
            far = PITCH * done * (2 if self.kind == "pass" else 1)
            dx, dy = WAYS[self.detail]
            return replace(self.thing, x=self.thing.x + dx * far, y=self.thing.y + dy * far)
        if self.kind == "bounce":
            fallen = 1 - abs(1 - 2 * (int(self.detail) * done % 1))
            return replace(self.thing, y=self.thing.y + 1.6 * PITCH * fallen)
        if self.kind == "turn" and changed:
            return replace(self.thing, color=self.detail)
        there = {
            "appear": changed,
            "vanish": not changed,
            "visit": self.start <= time < self.end,
        }
        return self.thing if there.get(self.kind, True) else None

    @property
    def deed(self) -> str:
        """What it does, in words: `moves left`."""
        said = {
            "still": "stays",
            "move": f"moves {self.detail}",
            "bounce": f"bounces {TIMES.get(self.detail)}",
            "appear": "appears",
            "vanish": "vanishes",
            "turn": f"turns {self.detail}",
            "pass": "passes",
            "visit": "comes and goes",
        }
        return said[self.kind]


@dataclass(frozen=True)
class Clip:
    """A film in the making: its events in order, the things that only stand there last."""

    setting: str
    ground: int
    """Pixels from the top to where the ground begins."""
    frames: int
    events: tuple[Event, ...]

    def canvas(self, time: float) -> Canvas:
        """The picture at a moment (0 to 1); what stands still is behind what moves."""
        sky, ground = SETTINGS[self.setting]
        canvas = Canvas(SIDE, SIDE, sky)
        canvas.pen.rectangle((0, self.ground, SIDE, SIDE), fill=ground)
        for event in reversed(self.events):
            if thing := event.at(time):
                canvas.thing(thing)
        return canvas

    @property
    def listing(self) -> str:
        """Every event in order: `red star moves left, blue ring stays`."""
        return ", ".join(f"{event.thing.name} {event.deed}" for event in self.events)

    def mp4(self) -> bytes:
        """The film as H.264; equal drawings give equal bytes."""
        import av

        out = io.BytesIO()
        drawn = [self.canvas(i / self.frames) for i in range(self.frames)]
        with av.open(out, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=RATE)
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            # Neither several threads nor x264's assembly, which reads memory that nobody wrote:
            # with them bytes differ from machine to machine, and now and then from call to call.
            slow = {"threads": "1", "x264-params": "no-asm=1"}
            stream.options = {"crf": "24", "preset": "medium", **slow}
            for canvas in drawn:
                planes = _planes(np.asarray(canvas.image))
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        remember(out.getvalue(), drawn)
        return out.getvalue()


def _planes(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB [height, width, 3] as yuv420p (BT.601), in whole numbers.

    ffmpeg's own conversion rounds otherwise on other processors.
    """
    red, green, blue = pixels.astype(np.int32).transpose(2, 0, 1)
    luma = (66 * red + 129 * green + 25 * blue + 128 >> 8) + 16
    height, width = luma.shape
    quarter = (channel.reshape(height // 2, 2, width // 2, 2) for channel in (red, green, blue))
    red, green, blue = (channel.sum((1, 3)) for channel in quarter)
    u = (-38 * red - 74 * green + 112 * blue + 512 >> 10) + 128
    v = (112 * red - 94 * green - 18 * blue + 512 >> 10) + 128
    flat = np.concatenate([luma.ravel(), u.ravel(), v.ravel()]).astype(np.uint8)
    return flat.reshape(height * 3 // 2, width)


def draw(rng: Random) -> Clip:
    """A film of 2 to 4 seconds with one or two things, no two of the same colour or shape."""
    setting = rng.choice(list(SETTINGS))
    things = _things(rng)
    make = rng.choices((_one, _beside, _in_turn, _visits, _passing), (4, 3, 4, 2, 1))[0]
    events = make(rng, things)
    return Clip(setting, rng.randint(70, 100), rng.randint(2 * RATE, 4 * RATE), events)


def _things(rng: Random) -> list[Thing]:
    """Two things, nowhere yet."""
    names = pool(rng)
    shape, color = rng.choice(names)
    other = rng.choice([n for n in names if n[0] != shape and n[1] != color])
    return [Thing(s, c, 0, 0, rng.uniform(28, 40)) for s, c in ((shape, color), other)]


def _put(thing: Thing, row: int, column: int, rng: Random) -> Thing:
    slack = 3
    x = PITCH * (column + 0.5) + rng.uniform(-slack, slack)
    return replace(thing, x=x, y=PITCH * (row + 0.5) + rng.uniform(-slack, slack))


def _doing(
    kind: str, thing: Thing, lane: int, rng: Random, start: float = 0.0, end: float = 1.0
) -> Event:
    """An event in a lane, a column of the picture, so that things stay apart."""
    if kind == "bounce":
        return Event(kind, _put(thing, 0, lane, rng), start, end, rng.choice(list(TIMES)))
    if kind == "move":
        # From the middle more often: where it starts must not tell where it goes.
        row = rng.choice((0, 1, 1, 1, 2))
        ways = [way for way, (_, dy) in WAYS.items() if dy and 0 <= row + dy <= 2]
        return Event(kind, _put(thing, row, lane, rng), start, end, rng.choice(ways))
    detail = ""
    if kind == "turn":
        detail = rng.choice([color for color in COLORS if color != thing.color])
    return Event(kind, _put(thing, rng.randrange(3), lane, rng), start, end, detail)


def _one(rng: Random, things: list[Thing]) -> tuple[Event, ...]:
    """One thing alone; it may move anywhere."""
    kind = rng.choice(ALONE)
    if kind != "move":
        return (_doing(kind, things[0], rng.randrange(3), rng),)
    row, column = rng.choice((0, 1, 1, 1, 2)), rng.choice((0, 1, 1, 1, 2))
    ways = [w for w, (dx, dy) in WAYS.items() if 0 <= row + dy <= 2 and 0 <= column + dx <= 2]
    return (Event("move", _put(things[0], row, column, rng), detail=rng.choice(ways)),)


def _beside(rng: Random, things: list[Thing]) -> tuple[Event, ...]:
    """One does something, the other stands there."""
    here, there = rng.sample(range(3), 2)
    return (
        _doing(rng.choice(ALONE), things[0], here, rng),
        Event("still", _put(things[1], rng.randrange(3), there, rng)),
    )


def _in_turn(rng: Random, things: list[Thing]) -> tuple[Event, ...]:
    """First one, then the other."""
    lanes = rng.sample(range(3), 2)
    first, second = rng.choice(ALONE), rng.choice(ALONE)
    return (
        _doing(first, things[0], lanes[0], rng, 0.0, 0.5),
        _doing(second, things[1], lanes[1], rng, 0.5, 1.0),
    )


def _visits(rng: Random, things: list[Thing]) -> tuple[Event, ...]:
    """One comes and goes, then the other."""
    lanes = rng.sample(range(3), 2)
    return tuple(
        Event("visit", _put(thing, rng.randrange(3), lane, rng), start, start + 0.45)
        for thing, lane, start in zip(things, lanes, (0.0, 0.5), strict=True)
    )


def _passing(rng: Random, things: list[Thing]) -> tuple[Event, ...]:
    """One passes in front of the other, across the middle."""
    way = rng.choice(list(WAYS))
    dx, dy = WAYS[way]
    lane = rng.randrange(3)
    middle = (1, lane) if dy else (lane, 1)
    start = _put(things[0], middle[0] - dy, middle[1] - dx, rng)
    return (Event("pass", start, detail=way), Event("still", _put(things[1], *middle, rng)))


def captions(clip: Clip) -> list[str]:
    """Five differently worded descriptions."""
    first, setting = clip.events[0], clip.setting
    a, deed = first.thing.phrase, first.deed
    if len(clip.events) == 1:
        return [
            f"{a.capitalize()} {deed} {setting}.",
            f"{setting.capitalize()} {a} {deed}.",
            f"The clip shows {a} that {deed} {setting}.",
            f"There is {a} {setting} and it {deed}.",
            f"We see that {a} {deed} {setting}.",
        ]
    other = clip.events[1]
    b = other.thing.phrase
    if first.kind == "pass":
        deed = f"moves {first.detail} in front of {b}"
        return [
            f"{a.capitalize()} {deed} {setting}.",
            f"{setting.capitalize()} {a} {deed}.",
            f"The clip shows {a} that {deed} {setting}.",
            f"There is {b} {setting} and {a} {deed.replace(b, 'it')}.",
            f"We see that {a} {deed} {setting}.",
        ]
    if other.kind == "still":
        return [
            f"{a.capitalize()} {deed} beside {b} {setting}.",
            f"{setting.capitalize()} {a} {deed} beside {b}.",
            f"The clip shows {b} {setting} and {a} that {deed}.",
            f"There is {b} {setting} and {a} {deed}.",
            f"Beside {b} {a} {deed} {setting}.",
        ]
    return [
        f"{a.capitalize()} {deed}, then {b} {other.deed} {setting}.",
        f"{setting.capitalize()} {a} {deed}, then {b} {other.deed}.",
        f"First {a} {deed} and then {b} {other.deed} {setting}.",
        f"There is {a} {setting} that {deed}, then {b} {other.deed}.",
        f"After {a} {deed}, {b} {other.deed} {setting}.",
    ]


def questions(clip: Clip, rng: Random, count: int) -> list[Asked]:
    """`count` questions at most, each about a change that no single frame shows."""
    asked = [one for event in clip.events for one in _of_event(event)]
    if len(clip.events) == 2 and clip.events[1].kind != "still":
        names = [event.thing.name for event in clip.events]
        did = "came" if clip.events[0].kind == "visit" else "changed"
        for when, answer in zip(("first", "last"), names, strict=True):
            a, b = rng.sample(names, 2)
            asked.append((when, f"Which {did} {when}, the {a} or the {b}?", answer, []))
    return [
        Asked(kind, question, answer, annotators(answer, slips, rng))
        for kind, question, answer, slips in rng.sample(asked, min(count, len(asked)))
    ]


def _of_event(event: Event) -> list[tuple[str, str, str, list[str]]]:
    """(kind, question, answer, slips that annotators make)."""
    name, detail = event.thing.name, event.detail
    deed = ("deed", f"What does the {name} do?", event.deed, [event.deed.split()[0]])
    if event.kind == "move":
        return [deed, ("way", f"Which way did the {name} go?", detail, [])]
    if event.kind == "bounce":
        more = str(int(detail) + 1)
        return [deed, ("times", f"How many times did the {name} bounce?", detail, [more])]
    if event.kind == "turn":
        asked = f"How did the {event.thing.shape} change color?"
        return [deed, ("turn", asked, f"{event.thing.color} to {detail}", [detail])]
    if event.kind in ("appear", "vanish"):
        return [deed, ("there", f"Did the {name} appear or vanish?", event.kind, [])]
    if event.kind == "pass":
        return [deed, ("way", f"Which way did the {name} go?", detail, [])]
    return []
