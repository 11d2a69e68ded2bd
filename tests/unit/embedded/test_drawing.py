"""Every answer follows from what was drawn: counted again from places, glyphs and pixels."""

from __future__ import annotations

import re
from random import Random

import pytest

from vlmbench.embedded import pages, scenes
from vlmbench.embedded.canvas import Thing
from vlmbench.embedded.scenes import Scene

DRAWN = 25


def place(thing: Thing) -> str:
    row, column = (int(value * 3 // scenes.SIDE) for value in (thing.y, thing.x))
    return f"{scenes.ROWS[row]} {scenes.COLUMNS[column]}"


def answer_again(question: str, scene: Scene) -> str:
    """What the things' own coordinates say."""
    things = {thing.name: thing for thing in scene.things}
    shown = list(things.values())
    if found := re.fullmatch(r"How many (\w+) shapes are there\?", question):
        return str(sum(thing.color == found[1] for thing in shown))
    if found := re.fullmatch(r"How many (\w+) are there\?", question):
        return str(sum(scenes.plural(thing.shape) == found[1] for thing in shown))
    if found := re.fullmatch(r"What color is the (\w+)\?", question):
        (thing,) = (thing for thing in shown if thing.shape == found[1])
        return thing.color
    if found := re.fullmatch(r"What shape is (\w+)\?", question):
        (thing,) = (thing for thing in shown if thing.color == found[1])
        return thing.shape
    if found := re.fullmatch(r"Is there an? (\w+ \w+)\?", question):
        return "yes" if found[1] in things else "no"
    if found := re.fullmatch(r"Where is the (\w+ \w+)\?", question):
        return place(things[found[1]])
    found = re.fullmatch(r"Is the (\w+ \w+) (left of|above) the (\w+ \w+)\?", question)
    assert found, question
    a, b = things[found[1]], things[found[3]]
    return "yes" if (a.x < b.x if found[2] == "left of" else a.y < b.y) else "no"


@pytest.mark.parametrize("seed", range(DRAWN))
def test_scenes_are_asked_about_truly(seed: int) -> None:
    rng = Random(seed)
    scene = scenes.draw(rng, 2 + seed % 4)
    names = [thing.name for thing in scene.things]
    assert len(set(names)) == len(names) == 2 + seed % 4
    asked = scenes.questions(scene, rng, 6)
    assert len({question.kind for question in asked}) == len(asked) >= 4
    for question in asked:
        assert question.answer == answer_again(question.question, scene)
        assert question.annotators.count(question.answer) >= 7
    listed = [f"{thing.name} {place(thing)}" for thing in scene.things]
    assert scene.listing == ", ".join(listed)


@pytest.mark.parametrize("seed", range(DRAWN))
def test_scenes_are_captioned_truly(seed: int) -> None:
    rng = Random(seed)
    scene = scenes.draw(rng, 2 + seed % 2)
    names = {thing.name: thing for thing in scene.things}
    captions = scenes.captions(scene, rng)
    said = [re.findall(r"an? (\w+ \w+)", caption.lower()) for caption in captions]
    assert [sorted(found) for found in said] == [sorted(names)] * 5
    assert all(caption.count(scene.setting) == 1 for caption in captions)
    for caption, found in zip(captions[:2], said, strict=False):
        a, b = names[found[0]], names[found[1]]
        relations = {"above": a.y < b.y, "below": a.y > b.y}
        relations |= {"left of": a.x < b.x, "right of": a.x > b.x}
        (said_so,) = (true for words, true in relations.items() if words in caption)
        assert said_so


@pytest.mark.parametrize("seed", range(DRAWN))
def test_pages_say_what_is_answered(seed: int) -> None:
    rng = Random(seed)
    page = pages.draw(rng)
    drawn = "".join(glyph.char for glyph in page.canvas.glyphs)
    assert drawn == "".join("".join(page.lines).split())
    assert all(0 < g.x < pages.WIDTH and 0 < g.y < pages.HEIGHT for g in page.canvas.glyphs)
    asked = pages.questions(page, rng, 3)
    assert len({kind for kind, _, _ in asked}) == 3
    for kind, question, answers in asked:
        assert question in pages.KINDS[kind].questions
        assert f"{page.fields[kind][0]}: {answers[0]}" in page.lines
