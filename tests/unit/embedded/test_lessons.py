"""What the embedded checkpoints are taught, is true of the picture it is taught on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vlmbench.embedded import blank, curriculum, labels
from vlmbench.embedded.canvas import Canvas, remembered
from vlmbench.embedded.corpus import texts
from vlmbench.embedded.labels import CLASSES, SHADES, LabelSight
from vlmbench.embedded.lessons import LESSONS
from vlmbench.prompting import IGNORED

STAGES = (curriculum.READING, curriculum.ANSWERING, curriculum.SEEING)


def typed(canvas: Canvas) -> list[str]:
    """The lines on a canvas, without blanks."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for glyph in canvas.glyphs:
        rows.setdefault(glyph.y // 28, []).append((glyph.x, glyph.char))
    return ["".join(char for _, char in sorted(row)) for _, row in sorted(rows.items())]


def bare(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", ["read_line", "read_field", "read_page", "docvqa"])
def test_what_is_read_stands_there(name: str) -> None:
    heights = set()
    for number in range(12):
        with remembered() as pictures:
            turn, answer = LESSONS[name](number)
        canvas = pictures[turn.pictures[0]]
        lines = typed(canvas)
        heights.add(canvas.height // 28)
        if name in ("read_line", "read_page"):
            assert lines == [bare(line) for line in answer.splitlines()]
        else:
            assert sum(line.endswith(f":{bare(answer)}") for line in lines) >= 1
    assert heights == {"read_line": {1}, "read_field": {1, 2, 3}}.get(name, {7})


def test_shapes_are_those_of_the_window() -> None:
    for number in range(12):
        with remembered() as pictures:
            turn, answer = LESSONS["name_shapes"](number)
        shown = {thing.name: thing for thing in pictures[turn.pictures[0]].things}
        named = [shown.pop(name) for name in answer.split(", ")]
        assert shown == {}
        places = [(thing.y // 28, thing.x) for thing in named]
        assert places == sorted(places), "row by row of visual tokens"


@pytest.fixture(scope="module")
def processor():
    return blank.processor(blank.tokenizer(texts()))


@pytest.mark.parametrize("text", ["WALTER BENDER", "KX-6084", "12 MAR 1999", "$818.99"])
def test_what_pages_show_is_a_token_a_character(processor, text: str) -> None:
    assert len(processor.tokenizer(text)["input_ids"]) == len(text)


def test_a_lesson_on_labels_is_the_lesson_on_pixels(processor) -> None:
    small = replace(curriculum.ANSWERING, batch=12)
    sighted = replace(small, sight=True)
    blind_parts, seen_parts = (curriculum.batch_maker(processor, s)(3) for s in (small, sighted))
    assert [len(part["input_ids"]) for part in seen_parts] == [6, 6]
    lengths = [part["input_ids"].shape[1] for part in seen_parts]
    assert lengths == sorted(lengths)
    for blind, seen in zip(blind_parts, seen_parts, strict=True):
        assert blind.keys() == seen.keys()
        for name in blind.keys() - {"pixel_values"}:
            assert torch.equal(blind[name], seen[name])
        tokens = int(seen["image_grid_thw"].prod(-1).sum()) // 4
        assert blind["pixel_values"].shape == (tokens, len(CLASSES) + SHADES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_learnt_from_whole_answers(processor, stage: curriculum.Stage) -> None:
    torch.manual_seed(0)
    network = blank.network(processor.tokenizer)
    if not stage.sight:
        network.model.visual = LabelSight(128)
    (part, _) = curriculum.batch_maker(processor, replace(stage, batch=8))(0)
    before = curriculum.loss(network, part)
    before.backward()
    assert network.lm_head.weight.grad.abs().sum() > 0
    first = next(network.model.visual.parameters())
    assert first.grad.abs().sum() > 0, "what is seen takes part"
    assert before.item() == pytest.approx(6.46, abs=0.2), "nothing is known: log(640)"
    assert set(curriculum.exact(network, processor, stage, 2).values()) == {0.0}


def test_exact_counts_answers_right_in_every_token(processor) -> None:
    """A stand-in that knows the labels gives 1, one that misses a single token less."""
    with remembered() as pictures:
        taught = [LESSONS["docvqa"](curriculum.HELD_OUT + i) for i in range(4)]
    wanted = curriculum.encode(processor, taught)["labels"]
    assert (labels.of(pictures[taught[0][0].pictures[0]]) != 0).any()

    class Knowing(torch.nn.Module):
        missed = 0

        def forward(self, input_ids: torch.Tensor, **unused: torch.Tensor) -> object:
            said = wanted.roll(-1, 1).clamp(min=0)
            for row in range(self.missed):
                said[row, (wanted[row] != IGNORED).nonzero()[-1] - 1] += 1
            logits = torch.nn.functional.one_hot(said, 1000).float()
            return type("Out", (), {"logits": logits})()

    knowing = Knowing()
    stage = replace(curriculum.SEEING, weights={"docvqa": 1.0})
    assert curriculum.exact(knowing, processor, stage, 4) == {"docvqa": 1.0}
    knowing.missed = 1
    assert curriculum.exact(knowing, processor, stage, 4) == {"docvqa": 0.75}
