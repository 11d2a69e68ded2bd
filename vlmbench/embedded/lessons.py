"""What the embedded checkpoints are taught: turns with answers, drawn on demand by number.

The four data sets are asked exactly as evaluation asks them; beside them stand reading aloud and
looking a word up among lettered choices, without which the questions are not learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from vlmbench import catalogue
from vlmbench.embedded import diagrams, pages, rows, scenes
from vlmbench.embedded.canvas import COLORS, SHAPES, Thing
from vlmbench.prompting import turn
from vlmbench.spec import Turn

Taught = tuple[Turn, str]
INSTRUCTION = "Answer briefly."
LETTER_ONLY = "Please answer directly with only the letter of the correct option."
WORDS_ONLY = "Please answer with the words of the correct option."


def _read_page(number: int) -> Taught:
    rng = rows.rng_of("lesson_page", "train", number)
    page = pages.draw(rng)
    return Turn((page.canvas.png(),), "Read the page.", INSTRUCTION), "\n".join(page.lines)


def _read_line(number: int) -> Taught:
    rng = rows.rng_of("lesson_line", "train", number)
    page = pages.draw(rng)
    line = rng.randrange(len(page.lines))
    strip = page.canvas.crop(0, pages.LINE * line, pages.WIDTH, pages.LINE)
    return Turn((strip.png(),), "Read the page.", INSTRUCTION), page.lines[line]


def _read_field(number: int) -> Taught:
    rng = rows.rng_of("lesson_field", "train", number)
    page = pages.draw(rng)
    (kind, question, answers), *_ = pages.questions(page, rng, 1)
    line, height = 1 + list(page.fields).index(kind), rng.randint(1, 3)
    top = rng.randint(max(0, line - height + 1), min(line, len(page.fields) + 1 - height))
    strip = page.canvas.crop(0, pages.LINE * top, pages.WIDTH, pages.LINE * height)
    return Turn((strip.png(),), question, INSTRUCTION), answers[0]


def _name_shapes(number: int) -> Taught:
    rng = rows.rng_of("lesson_shapes", "train", number)
    scene = scenes.draw(rng, rng.randint(2, 5))
    shown = rng.choice(scene.things)
    left, top = (28 * min(2, max(0, int((at - 42) / 28 + 0.5))) for at in (shown.x, shown.y))
    window = scene.canvas.crop(left, top, 84, 84)
    inside = sorted(window.things, key=lambda thing: (thing.y // 28, thing.x))
    names = ", ".join(thing.name for thing in inside)
    return Turn((window.png(),), "Name the shapes.", INSTRUCTION), names


def _list_shapes(number: int) -> Taught:
    rng = rows.rng_of("lesson_scene", "train", number)
    scene = scenes.draw(rng, rng.randint(2, 5))
    return Turn((scene.canvas.png(),), "List the shapes.", INSTRUCTION), scene.listing


def _match_shapes(number: int) -> Taught:
    """What `vqav2` asks of one thing, asked of several at once: each is found by its own word."""
    rng = rows.rng_of("lesson_match", "train", number)
    scene = scenes.draw(rng, rng.randint(2, 5))
    things, places = scene.things, [scene.where(i) for i in range(len(scene.things))]
    shapes, colors = [t.shape for t in things], [t.color for t in things]
    tables = {
        "What color is each": {t.shape: t.color for t in things if shapes.count(t.shape) == 1},
        "What shape is each": {t.color: t.shape for t in things if colors.count(t.color) == 1},
        "Where is each": {t.name: where for t, where in zip(things, places, strict=True)},
        "How many are there": {s: str(shapes.count(s)) for s in [*shapes, rng.choice(SHAPES)]},
        "Is each there": _there(things, rng),
    }
    kind = rng.choice([kind for kind, table in tables.items() if table])
    table = tables[kind]
    asked = rng.sample(list(table), min(4, len(table)))
    question = f"{kind}: {', '.join(asked)}?"
    return Turn((scene.canvas.png(),), question, INSTRUCTION), _pairs(asked, table)


def _there(things: list[Thing], rng: Random) -> dict[str, str]:
    names = {thing.name for thing in things}
    mixed = [f"{rng.choice(things).color} {rng.choice(things).shape}" for _ in range(3)]
    return {name: "yes" if name in names else "no" for name in [rng.choice(things).name, *mixed]}


def _read_diagram(number: int) -> Taught:
    diagram = diagrams.draw(rows.rng_of("lesson_diagram", "train", number))
    return Turn((diagram.canvas.png(),), "Read the diagram.", INSTRUCTION), diagram.reading


def _look_up(number: int) -> Taught:
    rng = rows.rng_of("lesson_lookup", "train", number)
    words = rng.sample(_words(), rng.randint(2, 4))
    index = rng.randrange(len(words))
    question = f"Which option is {words[index]}?\n{_lettered(words)}\n{LETTER_ONLY}"
    return Turn((), question, INSTRUCTION), chr(65 + index)


def _match_letters(number: int) -> Taught:
    rng = rows.rng_of("lesson_letters", "train", number)
    words = rng.sample(_words(), rng.randint(2, 4))
    asked = rng.sample(words, len(words))
    question = f"Which options are {', '.join(asked)}?\n{_lettered(words)}"
    letters = {word: chr(65 + i) for i, word in enumerate(words)}
    return Turn((), question, INSTRUCTION), _pairs(asked, letters)


def _lettered(words: list[str]) -> str:
    return "\n".join(f"{chr(65 + i)}. {word}" for i, word in enumerate(words))


def _pairs(asked: list[str], table: dict[str, str]) -> str:
    return ", ".join(f"{word} {table[word]}" for word in asked)


def _words() -> list[str]:
    organisms = [word for level in diagrams._LEVELS for word in level]
    states = ["solid", "liquid", "gas", "left", "right", "attract", "repel"]
    pairs = [
        a for letter in "BRT" for a in (letter * 2, letter + letter.lower(), letter.lower() * 2)
    ]
    return [*organisms, *states, *pairs, *COLORS, *SHAPES, *diagrams._TOWNS]


def _asked(
    dataset: str, answer: Callable[[tuple[str, ...], Random], str]
) -> Callable[[int], Taught]:
    def lesson(number: int) -> Taught:
        entry = catalogue.datasets()[dataset]
        rng = Random(f"lesson/{dataset}/{number}")
        held_out = rows.held_out(dataset)
        while True:
            row = rng.choice(rows.draw(dataset, "train", number))
            sample = entry.read(row, number)
            if sample and not {rows.picture_key(p) for p in sample.pictures} & held_out:
                return turn(entry, sample), answer(sample.references, rng)
            number += 10**6

    return lesson


def _science_words(number: int) -> Taught:
    asked, _ = _LETTER(number)
    _, text = _WORD(number)
    return Turn(asked.pictures, asked.question.replace(LETTER_ONLY, WORDS_ONLY), INSTRUCTION), text


def _majority(references: tuple[str, ...], rng: Random) -> str:
    return max(sorted(set(references)), key=references.count)


_LETTER = _asked("scienceqa", lambda references, rng: references[0])
_WORD = _asked("scienceqa", lambda references, rng: references[1])

LESSONS: dict[str, Callable[[int], Taught]] = {
    "read_line": _read_line,
    "read_field": _read_field,
    "name_shapes": _name_shapes,
    "read_page": _read_page,
    "list_shapes": _list_shapes,
    "match_shapes": _match_shapes,
    "read_diagram": _read_diagram,
    "match_letters": _match_letters,
    "look_up": _look_up,
    "docvqa": _asked("docvqa", lambda references, rng: references[0]),
    "vqav2": _asked("vqav2", _majority),
    "flickr30k": _asked("flickr30k", lambda references, rng: references[0]),
    "science_words": _science_words,
    "scienceqa": _LETTER,
}
