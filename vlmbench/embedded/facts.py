"""Whether a description is true, by the drawing itself: no metric knows left from right."""

from __future__ import annotations

import re
from collections import Counter

from vlmbench.embedded import clips, rows, scenes
from vlmbench.embedded.canvas import COLORS, SHAPES

_DEEDS = "|".join(
    [
        *(f"moves {way}" for way in clips.WAYS),
        *(f"bounces {times}" for times in clips.TIMES.values()),
        *(f"turns {color}" for color in COLORS),
        *("appears", "vanishes", "comes and goes"),
    ]
)
_NAMED = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b")


def facts_right(split: str, number: int, caption: str) -> float:
    """Share of things rightly named by their colour and shape in a caption of a flickr30k picture.

    Things that are there and not named count against it as much as things named that are not.
    """
    rng = rows.rng_of("flickr30k", split, number)
    scene = scenes.draw(rng, rng.randint(2, 3))
    there = Counter(thing.name for thing in scene.things)
    named = Counter(f"{color} {shape}" for color, shape in _NAMED.findall(caption))
    return (there & named).total() / max(there.total(), named.total())


_BETWEEN = rf"(?: (?:{'|'.join(scenes.SETTINGS)}))?(?: that| and it)?"
_DID = re.compile(rf"{_NAMED.pattern}{_BETWEEN} ({_DEEDS})\b")


def clip_facts_right(split: str, number: int, description: str) -> float:
    """As `facts_right`, of a clip: which things are named, and what each of them does."""
    events = clips.draw(rows.rng_of("clips", split, number)).events
    there = Counter(event.thing.name for event in events)
    for event in events:
        moves = event.kind == "pass"
        if event.kind != "still":
            deed = f"moves {event.detail}" if moves else event.deed
            there[f"{event.thing.name} {deed}"] += 1
    said = Counter(f"{color} {shape}" for color, shape in _NAMED.findall(description))
    said.update(" ".join(did) for did in _DID.findall(description))
    return (there & said).total() / max(there.total(), said.total())
