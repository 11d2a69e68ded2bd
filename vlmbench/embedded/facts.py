"""Whether a caption is true, by the drawing itself: no caption metric knows left from right."""

from __future__ import annotations

import re
from collections import Counter

from vlmbench.embedded import rows, scenes
from vlmbench.embedded.canvas import COLORS, SHAPES

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
