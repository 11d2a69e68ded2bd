"""What the embedded checkpoints are taught is true of the picture it is taught on."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from vlmbench.embedded import rows
from vlmbench.embedded.blank import qwen2
from vlmbench.embedded.canvas import Canvas, Thing, remembered
from vlmbench.embedded.lessons import LESSONS, LETTER_ONLY, WORDS_FIRST, exam
from vlmbench.embedded.scenes import SIDE

NUMBERS = range(12)


def drawn(name: str, number: int) -> tuple[dict[str, str], Canvas]:
    """Answers by question, and the picture they are about."""
    with remembered() as pictures:
        lesson = LESSONS[name](number)
    (picture,) = {turn.pictures[0] for turn, _ in lesson}
    return {turn.question: answer for turn, answer in lesson}, pictures[picture][0]


def typed(canvas: Canvas) -> list[str]:
    """The lines on a canvas, without blanks."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for glyph in canvas.glyphs:
        lines.setdefault(glyph.y // 28, []).append((glyph.x, glyph.char))
    return ["".join(char for _, char in sorted(line)) for _, line in sorted(lines.items())]


@pytest.mark.parametrize(("name", "heights"), [("page", {7}), ("strip", {1, 2, 3})])
def test_what_is_read_stands_there(name: str, heights: set[int]) -> None:
    met = set()
    for number in NUMBERS:
        answers, canvas = drawn(name, number)
        met.add(canvas.height // 28)
        whole = answers.pop("Read the page.", None)
        if whole is not None:
            assert typed(canvas) == ["".join(line.split()) for line in whole.splitlines()]
        fields = [line for line in typed(canvas) if ":" in line]
        assert len(answers) == len(fields), "every field that is there is asked for"
        for answer in answers.values():
            assert any(line.endswith(f":{''.join(answer.split())}") for line in fields)
    assert met == heights


def place(thing: Thing) -> str:
    row = ("top", "middle", "bottom")[int(thing.y * 3 / SIDE)]
    return f"{row} {('left', 'center', 'right')[int(thing.x * 3 / SIDE)]}"


def truths(things: list[Thing]) -> dict[str, Callable[[str], str]]:
    names = {thing.name: place(thing) for thing in things}
    shapes, colors = [thing.shape for thing in things], [thing.color for thing in things]
    return {
        "What color is each": lambda word: colors[shapes.index(word)],
        "What shape is each": lambda word: shapes[colors.index(word)],
        "Where is each": lambda word: names[word],
        "How many are there": lambda word: str(shapes.count(word)),
        "Is each there": lambda word: "yes" if word in names else "no",
    }


def test_what_is_said_of_a_scene_is_true() -> None:
    seen = set()
    for number in range(60):
        answers, canvas = drawn("scene", number)
        names = {thing.name: place(thing) for thing in canvas.things}
        for question, answer in answers.items():
            kind, _, asked = question.rstrip("?").partition(": ")
            if question == "List the shapes.":
                assert answer == ", ".join(f"{name} {where}" for name, where in names.items())
            elif found := re.fullmatch(r"What is (.*)\?", question):
                assert names[answer] == found[1]
            elif found := re.fullmatch(r"Where is the (\w+)\?", question):
                assert [p for n, p in names.items() if n.endswith(f" {found[1]}")] == [answer]
            elif asked:
                said = [
                    pair.removeprefix(f"{word} ")
                    for word, pair in zip(asked.split(", "), answer.split(", "), strict=True)
                ]
                truth = truths(canvas.things)[kind]
                assert said == [truth(word) for word in asked.split(", ")]
                seen.add(kind)
    assert len(seen) == 5


def options(question: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-D])\. (.*)$", question, re.MULTILINE))


def test_the_letter_of_a_diagram_names_the_word() -> None:
    for number in NUMBERS:
        answers, _ = drawn("diagram", number)
        assert answers.pop("Read the diagram.")
        words = set()
        answers = {asked: said for asked, said in answers.items() if "\nA. " in asked}
        for question, answer in answers.items():
            word, _, letter = answer.rpartition(" ")
            if WORDS_FIRST in question:
                assert options(question)[letter] == word
            words.add(options(question)[answer] if LETTER_ONLY in question else word or answer)
        assert len(words) == 1
        assert len(answers) >= 4


def test_a_choice_is_the_letter_of_its_word() -> None:
    for number in NUMBERS:
        for turn, said in LESSONS["choice"](number):
            asked = re.match(r"Which options? (?:is|are) (.*)\?", turn.question)
            assert asked is not None and turn.pictures == ()
            if LETTER_ONLY in turn.question:
                assert options(turn.question)[said] == asked[1]
                continue
            pairs = [pair.rsplit(" ", 1) for pair in said.split(", ")]
            assert [word for word, _ in pairs] == asked[1].split(", ")
            assert all(options(turn.question)[letter] == word for word, letter in pairs)


def test_a_picture_that_is_held_out_is_not_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    (turn, _), *_ = LESSONS["scene"](0)
    kept = frozenset({rows.picture_key(turn.pictures[0])})
    monkeypatch.setattr(rows, "held_out", lambda dataset: kept)
    assert LESSONS["scene"](0) == []
    assert LESSONS["scene"](1) != []


def test_the_exam_is_the_validation_split() -> None:
    asked = exam("vqav2", 5)
    stored = [row["question"] for n in range(5) for row in rows.draw("vqav2", "validation", n)]
    assert [turn.question for turn, _ in asked] == stored[:5]


@pytest.mark.parametrize("text", ["WALTER BENDER", "KX-6084", "12 MAR 1999", "$818.99"])
def test_what_pages_show_is_a_token_a_character(text: str) -> None:
    assert len(qwen2.tokenizer()(text)["input_ids"]) == len(text)
