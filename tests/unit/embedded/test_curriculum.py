"""Questions taught together on one picture teach what they teach one by one."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlmbench.embedded import clips, curriculum, losses, rows, sequences, telling
from vlmbench.embedded.blank import qwen2
from vlmbench.embedded.canvas import remembered
from vlmbench.embedded.heir import Heir
from vlmbench.embedded.labels import CLASSES, SHADES, LabelSight
from vlmbench.embedded.lessons import LESSONS, exam
from vlmbench.embedded.train import SCHOOLS
from vlmbench.models.qwen2 import QWEN2
from vlmbench.prompting import IGNORED, encode_answered, watch

STAGES = (curriculum.FINDING, curriculum.ANSWERING, curriculum.SEEING, curriculum.CHOOSING)


@pytest.fixture(scope="module")
def processor():
    return qwen2.processor(qwen2.tokenizer())


@pytest.fixture(scope="module")
def network(processor):
    torch.manual_seed(0)
    return qwen2.network(processor.tokenizer).eval()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of the answers alone, each time it is worked out."""
    each: list[float] = []
    answered = losses.answered

    def listening(*parts):
        loss = answered(*parts)
        each.append(loss.item())
        return loss

    monkeypatch.setattr(losses, "answered", listening)
    return each


@pytest.mark.parametrize("name", LESSONS)
@torch.no_grad()
def test_a_sequence_asks_what_its_questions_ask_alone(processor, network, heard, name: str) -> None:
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
    made = [sequences.encode(processor, network, lesson) for lesson in lessons]
    batch = sequences.stacked(made)
    assert float(losses.loss(network, QWEN2.anatomy, batch)) == pytest.approx(expected, abs=1e-5)
    whole = losses.loss(network, QWEN2.anatomy, batch, steps=True)
    # Beyond the answers there are the steps to a letter, where a letter is asked for.
    assert (float(whole) > heard[0]) == (name in ("choice", "diagram"))


@pytest.mark.parametrize("name", ["choice", "diagram"])
def test_the_steps_to_a_letter_are_those_of_its_option(processor, network, name: str) -> None:
    lesson = LESSONS[name](5)
    batch = sequences.encode(processor, network, lesson)
    spoken = [processor.tokenizer.decode([token]) for token in batch["input_ids"][0]]
    parts = {part: batch[part][0].tolist() for part in ("own_word", "own_letter", "word", "sought")}
    due = [place for place, option in enumerate(parts["sought"]) if option != IGNORED]
    letters = [letter for _, answer in lesson for letter in re.findall(r"\b[A-D]\b", answer)]
    assert len(due) == len(letters) > 0
    for place in due:
        option = parts["sought"][place]
        # The letter is said next; it is that of the option, whose word is known by now.
        assert batch["labels"][0, place + 1] == parts["own_letter"][option]
        assert parts["word"][place] == parts["own_word"][option]
        assert batch["segments"][0, place] == batch["segments"][0, option]
        word = processor.tokenizer.decode([parts["word"][place]])
        assert spoken[option].strip() == word
    told = {place for place, token in enumerate(parts["word"]) if token != IGNORED}
    assert told == set(due)


@torch.no_grad()
def test_where_a_head_looks_is_what_attention_gives(processor, network) -> None:
    """The loss works out the attention of one head by itself: it is the network's own."""
    batch = sequences.stacked([sequences.encode(processor, network, LESSONS["choice"](5))])
    mask = sequences.visible(batch["segments"])
    network.set_attn_implementation("eager")
    out = network.model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=torch.zeros(mask.shape).masked_fill(~mask, -torch.inf),
        output_hidden_states=True,
        output_attentions=True,
    )
    network.set_attn_implementation("sdpa")
    looks = out.attentions[sequences.SOUGHT_IN][:, 0]
    due = (batch["sought"] != IGNORED).nonzero()
    chosen = [looks[b, t, batch["sought"][b, t]] for b, t in due.tolist()]
    expected = -torch.stack(chosen).log().mean()
    decoder = network.model.language_model
    found = losses._sought(decoder, out.hidden_states, batch, mask)
    assert float(found) == pytest.approx(float(expected), abs=1e-5)


def test_a_lesson_on_labels_is_the_lesson_on_pixels(processor, network) -> None:
    small = replace(curriculum.FINDING, batch=12)
    sighted = replace(small, sight=True)
    blind_parts, seen_parts = (
        curriculum.batch_maker(processor, network, stage, QWEN2)(3) for stage in (small, sighted)
    )
    assert [len(part["input_ids"]) for part in seen_parts] == [3] * curriculum.PARTS
    lengths = [part["input_ids"].shape[1] for part in seen_parts]
    assert lengths == sorted(lengths)
    for blind, seen in zip(blind_parts, seen_parts, strict=True):
        assert blind.keys() == seen.keys()
        for name in blind.keys() - {"pixel_values"}:
            assert torch.equal(blind[name], seen[name])
        tokens = int(seen["image_grid_thw"].prod(-1).sum()) // 4
        assert blind["pixel_values"].shape == (tokens, len(CLASSES) + SHADES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_learnt_from_whole_answers(processor, heard, stage: curriculum.Stage) -> None:
    torch.manual_seed(0)
    network = qwen2.network(processor.tokenizer)
    if not stage.sight:
        network.model.visual = LabelSight(128)
    parts = curriculum.batch_maker(processor, network, replace(stage, batch=8), QWEN2)(0)
    part = next(part for part in parts if "pixel_values" in part)
    before = losses.loss(network, QWEN2.anatomy, part, steps=stage.steps)
    before.backward()
    assert network.lm_head.weight.grad.abs().sum() > 0
    first = next(network.model.visual.parameters())
    assert first.grad.abs().sum() > 0, "what is seen takes part"
    assert heard == [pytest.approx(6.46, abs=0.2)], "nothing is known: log(640)"
    assert set(curriculum.exact(network, processor, QWEN2, stage, 2).values()) == {0.0}


def test_exact_counts_answers_right_in_every_token(processor) -> None:
    """A stand-in that knows the answers gives 1, one that misses a single token less."""
    wanted = {}
    for dataset in (*curriculum.PICTURED, *curriculum.FILMED):
        asked = exam(dataset, 4)
        batch = encode_answered(processor, [t for t, _ in asked], [a for _, a in asked])
        wanted[batch["input_ids"].shape] = batch["labels"]
    assert len(wanted) == 6

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
    stage = curriculum.WATCHING
    assert set(curriculum.exact(knowing, processor, QWEN2, stage, 4).values()) == {1.0}
    knowing.missed = 1
    assert set(curriculum.exact(knowing, processor, QWEN2, stage, 4).values()) == {0.75}


def test_a_picture_is_looked_up_by_its_bytes() -> None:
    with remembered() as pictures:
        (turn, _), *_ = LESSONS["page"](0)
    assert set(pictures) == set(turn.pictures)


@pytest.mark.parametrize("name", ["phi3_5", "llavanext", "video_llava", "idefics2"])
def test_a_film_is_told_by_what_its_frames_show(name: str, tmp_path: Path) -> None:
    """Those that the model watches, in their order, in the shape of its pixels."""
    heir = SCHOOLS[name](name, tmp_path)
    assert isinstance(heir, Heir)
    clip = clips.draw(rows.rng_of("lesson_clip", "train", 3))
    with remembered() as memory:
        taught = curriculum._taken(heir.model, LESSONS["clip"](3))
    turn = taught[0][0]
    watched = watch(turn)
    assert watched is not None and turn.clip is not None
    film = memory[turn.clip.data]
    assert len(film) == clip.frames == watched.total
    labelled = curriculum._labelled(memory, heir.shown)
    made = sequences.encode(heir.processor, heir.network, taught[:2], labelled)
    seen = sequences.encode(heir.processor, heir.network, taught[:2])
    pixels = sequences.pixels_in(made)
    assert made[pixels].shape[:2] == seen[pixels].shape[:2]
    assert torch.equal(made["input_ids"], seen["input_ids"])
    frames = [clip.canvas(i / clip.frames) for i in watched.indices]
    assert torch.equal(made[pixels], heir.shown(frames, True))
    stand_ins = heir.stand_ins(torch.randn(sum(CLASSES) + SHADES + 1, 128))
    with telling.in_place(heir.network.model, stand_ins):
        learnt = losses.loss(heir.network, heir.model.anatomy, sequences.stacked([made]))
    assert learnt.isfinite()


def test_a_frame_is_labelled_as_it_is_cut(tmp_path: Path) -> None:
    """Phi-3.5 cuts one picture of several into fewer crops; shades tell what each crop shows."""
    heir = SCHOOLS["phi3_5"]("phi3_5", tmp_path)
    assert isinstance(heir, Heir)
    frame = clips.draw(rows.rng_of("lesson_clip", "train", 3)).canvas(0.5)
    images = heir.processor.image_processor
    cut = images([frame.image] * 2, alone=[False] * 2)["pixel_values"][0]
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (images.image_mean, images.image_std))
    shown = 2 * (cut * std + mean) - 1
    means = torch.nn.functional.adaptive_avg_pool2d(shown, 3).flatten(2).transpose(1, 2)
    labels = heir.shown([frame] * 8, True)[0]
    shades = labels[:, :, -SHADES:].unflatten(2, (4, 3)).mean(2)
    assert shades.shape == means.shape
    assert (shades - means).abs().max() < 0.2 and (shades - means).abs().mean() < 0.02


@torch.no_grad()
def test_who_thinks_alike_has_nothing_to_imitate(processor, network) -> None:
    small = replace(curriculum.SEEING, batch=4)
    made = curriculum.batch_maker(processor, network, small, QWEN2, (processor, network))(0)
    alone = curriculum.batch_maker(processor, network, small, QWEN2)(0)
    other = copy.deepcopy(network)
    torch.nn.init.normal_(other.model.language_model.layers[1].mlp.down_proj.weight, std=0.1)
    for part, plain in zip(made, alone, strict=True):
        expected = float(losses.loss(network, QWEN2.anatomy, plain))
        same = float(losses.loss(network, QWEN2.anatomy, part, elder=network))
        assert same == pytest.approx(expected, abs=1e-5)
        assert float(losses.loss(network, QWEN2.anatomy, part, elder=other)) > expected + 0.01
