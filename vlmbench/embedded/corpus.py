"""The texts whose words become tokens: all that is asked and said, but not what pages show.

Names, codes and amounts on pages are left out, so that reading one means spelling it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlmbench.embedded import diagrams, pages, rows, scenes
from vlmbench.embedded.lessons import INSTRUCTION, LETTER_ONLY, WORDS_ONLY, _words
from vlmbench.embedded.scenes import SETTINGS

SAMPLES = 1500


def texts() -> Iterator[str]:
    """The training text of the tokenizer, the same every time.

    No blank stands before a capital: what pages show in capitals stays a token a character.
    """
    return (re.sub(" (?=[A-Z])", "\n", text) for text in _texts())


def _texts() -> Iterator[str]:
    rng = rows.rng_of("corpus", "train", 0)
    for _ in range(SAMPLES):
        scene = scenes.draw(rng, rng.randint(2, 5))
        yield scene.listing
        yield from (asked.question for asked in scenes.questions(scene, rng, 6))
        yield from scenes.captions(scenes.draw(rng, rng.randint(2, 3)), rng)
        diagram = diagrams.draw(rng)
        yield "\n".join([diagram.question, *(f"A. {c}" for c in diagram.choices), diagram.hint])
        yield from (f"{LETTER_ONLY}\n{WORDS_ONLY}", INSTRUCTION, "You are a helpful assistant.")
        yield "system\nuser\nassistant\nRead the page.\nList the shapes.\nWhich option is it?"
        # A word that begins an answer has no blank before it and is a token of its own.
        yield from (f"A. {word}\n{word}" for word in _words())
        yield "\n".join([*(["yes", "no", "middle", "top", "bottom", "center"]), scene.where(0)])
        yield "What is happening in the image"
        kind = pages.KINDS[rng.choice(list(pages.KINDS))]
        yield "\n".join([*(f"{label}:" for label in kind.labels), *kind.questions])
        yield rng.choice(pages.TITLES)
        yield f"a red star {rng.choice(list(SETTINGS))}"
