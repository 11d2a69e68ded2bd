"""Questions taught together on one picture teach what they teach one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vlmbench.embedded import blank, curriculum
from vlmbench.embedded.canvas import remembered
from vlmbench.embedded.corpus import texts
from vlmbench.embedded.labels import CLASSES, SHADES, LabelSight
from vlmbench.embedded.lessons import LESSONS, exam
from vlmbench.prompting import IGNORED, encode_answered

STAGES = (curriculum.FINDING, curriculum.ANSWERING, curriculum.SEEING)


@pytest.fixture(scope="module")
def processor():
    return blank.processor(blank.tokenizer(texts()))


@pytest.fixture(scope="module")
def network(processor):
    torch.manual_seed(0)
    return blank.network(processor.tokenizer).eval()


@pytest.mark.parametrize("name", LESSONS)
@torch.no_grad()
def test_a_sequence_asks_what_its_questions_ask_alone(processor, network, name: str) -> None:
    lessons = [LESSONS[name](number) for number in (1, 2)]
    apart = []
    for lesson in lessons:
        rows = encode_answered(processor, [turn for turn, _ in lesson], [a for _, a in lesson])
        wanted = rows.pop("labels")[:, 1:]
        logits = network(**rows).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none"
        )
        apart.append((each, (wanted != IGNORED).sum(1)))
    weighed = sum(float((each.sum(1) / counts.sqrt()).sum()) for each, counts in apart)
    expected = weighed / sum(float(counts.sqrt().sum()) for _, counts in apart)
    made = [curriculum.encode(processor, network, lesson) for lesson in lessons]
    assert float(curriculum.loss(network, curriculum._stacked(made))) == pytest.approx(
        expected, abs=1e-5
    )


def test_a_lesson_on_labels_is_the_lesson_on_pixels(processor, network) -> None:
    small = replace(curriculum.FINDING, batch=12)
    sighted = replace(small, sight=True)
    blind_parts, seen_parts = (
        curriculum.batch_maker(processor, network, stage)(3) for stage in (small, sighted)
    )
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
    (part, _) = curriculum.batch_maker(processor, network, replace(stage, batch=8))(0)
    before = curriculum.loss(network, part)
    before.backward()
    assert network.lm_head.weight.grad.abs().sum() > 0
    first = next(network.model.visual.parameters())
    assert first.grad.abs().sum() > 0, "what is seen takes part"
    assert before.item() == pytest.approx(6.46, abs=0.2), "nothing is known: log(640)"
    assert set(curriculum.exact(network, processor, stage.sight, 2).values()) == {0.0}


def test_exact_counts_answers_right_in_every_token(processor) -> None:
    """A stand-in that knows the answers gives 1, one that misses a single token less."""
    wanted = {}
    for dataset in ("docvqa", "vqav2", "scienceqa", "flickr30k"):
        asked = exam(dataset, 4)
        batch = encode_answered(processor, [t for t, _ in asked], [a for _, a in asked])
        wanted[batch["input_ids"].shape] = batch["labels"]
    assert len(wanted) == 4

    class Knowing(torch.nn.Module):
        missed = 0

        def forward(self, input_ids: torch.Tensor, **unused: torch.Tensor) -> object:
            labels = wanted[input_ids.shape]
            said = labels.roll(-1, 1).clamp(min=0)
            for row in range(self.missed):
                said[row, (labels[row] != IGNORED).nonzero()[-1] - 1] += 1
            logits = torch.nn.functional.one_hot(said, 1000).float()
            return type("Out", (), {"logits": logits})()

    knowing = Knowing()
    assert set(curriculum.exact(knowing, processor, True, 4).values()) == {1.0}
    knowing.missed = 1
    assert set(curriculum.exact(knowing, processor, True, 4).values()) == {0.75}


def test_a_picture_is_looked_up_by_its_bytes() -> None:
    with remembered() as pictures:
        (turn, _), *_ = LESSONS["page"](0)
    assert set(pictures) == set(turn.pictures)
