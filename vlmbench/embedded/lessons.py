"""What the embedded checkpoints are taught: questions with answers on pictures drawn by number.

Everything that a picture can be asked is asked of it, in the words of the data sets; beside that
stand reading aloud, listing and looking a word up among lettered choices, without which the
questions are not learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from vlmbench import catalogue
from vlmbench.datasets.clips import QUESTION
from vlmbench.embedded import clips, diagrams, pages, rows, scenes
from vlmbench.embedded.canvas import COLORS, SHAPES, Canvas, Thing
from vlmbench.prompting import turn
from vlmbench.spec import Clip, Model, Turn

Taught = tuple[Turn, str]
Lesson = list[Taught]
"""Questions with their answers, all on the same picture, or all on none."""
INSTRUCTION = "Answer briefly."
LETTER_ONLY = "Please answer directly with only the letter of the correct option."
WORDS_ONLY = "Please answer with the words of the correct option."
WORDS_FIRST = "Please answer with the words and the letter of the correct option."


def _page(number: int) -> Lesson:
    rng = rows.rng_of("lesson_page", "train", number)
    page = pages.draw(rng)
    answers = {asked: texts[0] for _, asked, texts in pages.questions(page, rng, len(page.fields))}
    if number % 3 == 0:
        answers["Read the page."] = "\n".join(page.lines)
    return _on("docvqa", page.canvas, answers)


def _strip(number: int) -> Lesson:
    """One to three lines of a page: a field is found among few sooner than among many."""
    rng = rows.rng_of("lesson_strip", "train", number)
    page = pages.draw(rng)
    height = rng.randint(1, 3)
    first = rng.randint(0, len(page.lines) - height)
    inside = list(page.fields)[max(0, first - 1) : first - 1 + height]
    asked = pages.questions(page, rng, len(page.fields))
    answers = {question: texts[0] for kind, question, texts in asked if kind in inside}
    answers["Read the page."] = "\n".join(page.lines[first : first + height])
    strip = page.canvas.crop(0, pages.LINE * first, pages.WIDTH, pages.LINE * height)
    return _on("docvqa", strip, answers)


def _scene(number: int) -> Lesson:
    rng = rows.rng_of("lesson_scene", "train", number)
    scene = scenes.draw(rng, rng.randint(2, 5))
    asked = [one for _ in range(2) for one in scenes.questions(scene, rng, 6)]
    answers = {one.question: one.answer for one in asked}
    answers |= _found(scene, rng)
    answers["List the shapes."] = scene.listing
    answers |= _matched(scene, rng)
    if len(scene.things) <= 3:
        caption = scenes.captions(scene, rng)[0]
        answers["What is happening in the image"] = caption
    return _on("vqav2", scene.canvas, answers)


def _found(scene: scenes.Scene, rng: Random) -> dict[str, str]:
    """Half of what the data set asks: a thing by its shape alone, and what is at a place."""
    shapes = [thing.shape for thing in scene.things]
    index = rng.randrange(len(shapes))
    found = {f"What is {scene.where(index)}?": scene.things[index].name}
    alone = [i for i, shape in enumerate(shapes) if shapes.count(shape) == 1]
    return found | {f"Where is the {shapes[i]}?": scene.where(i) for i in alone[:2]}


def _matched(scene: scenes.Scene, rng: Random) -> dict[str, str]:
    """What is asked of one thing, asked of several at once: each is found by its own word."""
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
    asked = rng.sample(list(tables[kind]), min(4, len(tables[kind])))
    return {f"{kind}: {', '.join(asked)}?": _pairs(asked, tables[kind])}


def _there(things: list[Thing], rng: Random) -> dict[str, str]:
    names = {thing.name for thing in things}
    mixed = [f"{rng.choice(things).color} {rng.choice(things).shape}" for _ in range(3)]
    return {name: "yes" if name in names else "no" for name in [rng.choice(things).name, *mixed]}


# Things on them are compared before they can be named.
_HARD = ("bars", "punnett", "thermometers")


def _diagram(number: int) -> Lesson:
    rng = rows.rng_of("lesson_diagram", "train", number)
    diagram = diagrams.draw(rng, rng.choice([*diagrams.MAKERS, *_HARD]))
    answers = {"Read the diagram.": diagram.reading} | diagram.steps
    right = diagram.choices[diagram.answer]
    asked = ""
    for _ in range(5):
        choices = tuple(rng.sample(diagram.choices, len(diagram.choices)))
        shuffled = replace(diagram, choices=choices, answer=choices.index(right))
        sample = catalogue.datasets()["scienceqa"].read(rows.of_diagram(shuffled, True), number)
        assert sample is not None, "a row with a picture is a sample"
        asked = sample.question
        answers[asked] = sample.references[0]
    answers[asked.replace(LETTER_ONLY, WORDS_FIRST)] = f"{right} {answers[asked]}"
    answers[asked.replace(LETTER_ONLY, WORDS_ONLY)] = right
    return _on("scienceqa", diagram.canvas, answers)


def _clip(number: int) -> Lesson:
    rng = rows.rng_of("lesson_clip", "train", number)
    clip = clips.draw(rng)
    answers = {asked.question: asked.answer for asked in clips.questions(clip, rng, 9)}
    answers["List the events."] = clip.listing
    answers[QUESTION] = clips.captions(clip)[0]
    film = clip.mp4()
    if rows.picture_key(film) in rows.held_out("clips"):
        return []
    instruction = catalogue.datasets()["clips"].instruction
    return [(Turn((), asked, instruction, Clip(film)), said) for asked, said in answers.items()]


def _choice(number: int) -> Lesson:
    """A word is looked up among lettered choices, on text alone."""
    rng = rows.rng_of("lesson_choice", "train", number)
    lesson: Lesson = []
    for i in range(7):
        words = rng.sample(_words(), rng.randint(2, 4))
        letters = {word: chr(65 + i) for i, word in enumerate(words)}
        options = "\n".join(f"{letter}. {word}" for word, letter in letters.items())
        one, several = rng.choice(words), rng.sample(words, len(words))
        if i % 2:
            asked, answer = f"Which option is {one}?\n{options}\n{LETTER_ONLY}", letters[one]
        else:
            asked = f"Which options are {', '.join(several)}?\n{options}"
            answer = _pairs(several, letters)
        lesson.append((Turn((), asked, INSTRUCTION), answer))
    return lesson


def _pairs(asked: list[str], table: Mapping[str, str]) -> str:
    return ", ".join(f"{word} {table[word]}" for word in asked)


def _words() -> list[str]:
    organisms = [word for level in diagrams._LEVELS for word in level]
    states = ["solid", "liquid", "gas", "left", "right", "attract", "repel"]
    pairs = [
        a for letter in "BRT" for a in (letter * 2, letter + letter.lower(), letter.lower() * 2)
    ]
    return [*organisms, *states, *pairs, *COLORS, *SHAPES, *diagrams._TOWNS]


def _on(dataset: str, canvas: Canvas, answers: Mapping[str, str]) -> Lesson:
    """The questions on one picture, put as the data set puts its own."""
    png = canvas.png()
    if rows.picture_key(png) in rows.held_out(dataset):
        return []
    instruction = catalogue.datasets()[dataset].instruction
    return [(Turn((png,), asked, instruction), answer) for asked, answer in answers.items()]


LESSONS: dict[str, Callable[[int], Lesson]] = {
    "page": _page,
    "strip": _strip,
    "scene": _scene,
    "diagram": _diagram,
    "choice": _choice,
    "clip": _clip,
}


def exam(dataset: str, count: int, model: Model | None = None) -> Lesson:
    """Questions of a data set's validation split with the answer most annotators gave."""
    entry = catalogue.datasets()[dataset]
    taught: Lesson = []
    number = 0
    while len(taught) < count:
        for row in rows.draw(dataset, "validation", number):
            if sample := entry.read(row, number):
                best = max(sample.references, key=sample.references.count)
                taught.append((turn(entry, sample, model), best))
        number += 1
    return taught[:count]
