"""BLIP-2's training: what its queries are told is what its processor shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmbench.catalogue import compressions
from vlmbench.embedded import (
    asking,
    curriculum,
    inheritance,
    losses,
    outliers,
    school,
    sequences,
    views,
)
from vlmbench.embedded.asking import Asker, Blip2, Speaker
from vlmbench.embedded.canvas import COLORS, SHAPES, Canvas, Thing
from vlmbench.embedded.labels import CLASSES, SLOTS
from vlmbench.embedded.lessons import LESSONS
from vlmbench.prompting import IGNORED, encode_answered
from vlmbench.spec import Source
from vlmbench.variant import load


@pytest.fixture
def blip2(tmp_path: Path) -> Blip2:
    return Blip2("blip2", tmp_path / "states")


def starry() -> Canvas:
    """A red star at the top right, on white."""
    canvas = Canvas(140, 140)
    canvas.thing(Thing("star", "red", 117, 23, 40))
    return canvas


def scene(blip2: Blip2, number: int) -> Any:
    """Questions on a scene, as BLIP-2 takes them."""
    return curriculum._taken(blip2.model, LESSONS["scene"](number))


def fallen(learner: Any, batch: dict[str, torch.Tensor], steps: int = 5) -> list[float]:
    """The loss of a few steps on one batch."""
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    seen = []
    for _ in range(steps):
        loss = learner.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


def test_a_query_is_about_the_patches_that_show_its_part(blip2: Blip2) -> None:
    made = asking.encode(blip2.show, [starry()])
    classes = made["classes"].view(9, len(CLASSES))
    assert classes[:, SLOTS].nonzero().tolist() == [[2]], "the third query: top right"
    expected = [1 + SHAPES.index("star"), 1 + list(COLORS).index("red")]
    assert classes[2, SLOTS:].tolist() == expected
    # Where the picture is not white, the query looks; its shades are those of its patches.
    patches = made["pixels"][0].unfold(1, 28, 28).unfold(2, 28, 28).mean((-1, -2)).flatten(1)
    inked = patches[2] < patches[2].max() - 0.05
    assert inked.any() and asking.within()[2][inked].all()
    assert asking.within().sum(0).tolist() == [1] * 36
    shades = made["shades"].view(9, 4, 3)
    assert (shades[2] < 0.99).any() and (shades[torch.arange(9) != 2] > 0.99).all()
    images = blip2.processor.image_processor
    std, mean = torch.tensor(images.image_std), torch.tensor(images.image_mean)
    looked = patches[:, asking.within()[2].bool()].T * std + mean
    assert torch.allclose(looked * 2 - 1, shades[2], atol=0.1)


@torch.no_grad()
def test_queries_say_what_the_decoder_is_given(blip2: Blip2) -> None:
    blip2.begin()
    pixels = asking.encode(blip2.show, [starry()])["pixels"]
    given = blip2.network.eval().get_image_features(pixels).pooler_output
    said, looks = Asker(blip2.network)(pixels)
    assert torch.allclose(said, given, atol=1e-5)
    assert torch.allclose(looks.sum(-1), torch.ones(()), atol=1e-5)
    assert given.std(1).mean() > 0.01, "queries differ"


def test_each_lesson_lowers_its_loss(blip2: Blip2) -> None:
    blip2.begin()
    batch = asking.batch_maker(blip2.show)(0)[0]
    asker = Asker(blip2.network)
    before, *_, after = fallen(asker, batch)
    assert after < before
    assert set(asker.measure(batch)) == {"things", "inside"}
    named = views.batch_maker(blip2.show, draw=asking.draw)(0)[0]
    assert named["pixels"].shape == (16, 3, 168, 168)
    assert named["classes"].shape == (16 * 36, len(CLASSES))
    before, *_, after = fallen(views.Namer(blip2.part("vision"), blip2.see, 128), named)
    assert after < before


@torch.no_grad()
def test_a_sequence_asks_what_its_questions_ask_alone(blip2: Blip2) -> None:
    """A caption, which is not asked for, among them."""
    blip2.begin()
    network = blip2.network.eval()
    number = next(n for n in range(9) if len(scene(blip2, n)[0][0].question) == 0)
    lesson = scene(blip2, number)
    assert [bool(turn.question) for turn, _ in lesson] == [False] + [True] * (len(lesson) - 1)
    apart = weighed = 0.0
    for turn, answer in lesson:
        row = encode_answered(blip2.processor, [turn], [answer])
        wanted = row.pop("labels")[:, 1:]
        logits = network(**row).logits[:, :-1].transpose(1, 2)
        each = torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED)
        count = float((wanted != IGNORED).sum()) ** 0.5
        apart, weighed = apart + float(each) * count, weighed + count
    speaker = Speaker(network)
    batch = sequences.stacked([sequences.encode(blip2.processor, speaker, lesson)])
    together = losses.loss(speaker, blip2.model.anatomy, batch)
    assert float(together) == pytest.approx(apart / weighed, abs=1e-5)


def test_speaking_is_learnt_and_resumes(blip2: Blip2, monkeypatch: pytest.MonkeyPatch) -> None:
    blip2.begin()
    plan = replace(curriculum.SPEAKING.plan, steps=3, save_every=1, warmup=1)
    stage = replace(curriculum.SPEAKING, plan=plan, batch=4)
    monkeypatch.setattr(curriculum, "exact", lambda *parts: {"vqav2": 0.0})
    lost: list[float] = []
    loss = losses.loss

    def listening(*parts: Any, **more: Any) -> torch.Tensor:
        made = loss(*parts, **more)
        lost.append(made.item())
        return made

    monkeypatch.setattr(losses, "loss", listening)
    blip2.answer(stage)
    assert sum(lost[-4:]) < sum(lost[:4])
    again = Blip2("blip2", blip2.work)
    again.answer(stage)
    assert len(lost) == 12, "nothing is learnt twice"
    pairs = zip(again.network.parameters(), blip2.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_who_listens_leaves_what_is_seen_as_it_is(
    blip2: Blip2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is said of it is made quieter; afterwards all of it may learn again."""
    blip2.begin()
    plan = replace(curriculum.LISTENING.plan, steps=2, warmup=1)
    monkeypatch.setattr(curriculum, "LISTENING", replace(curriculum.LISTENING, plan=plan, batch=4))
    monkeypatch.setattr(curriculum, "exact", lambda *parts: {"vqav2": 0.0})
    before = {name: p.clone() for name, p in blip2.network.named_parameters()}
    blip2.listen()
    for name, parameter in blip2.network.named_parameters():
        seen = name.startswith(("vision_model", "qformer", "query_tokens"))
        assert torch.equal(parameter, before[name]) == seen, name
        assert parameter.requires_grad


def test_a_text_begins_with_words_and_places_that_are_known(blip2: Blip2) -> None:
    blip2.begin()
    decoder, tokenizer = blip2.part("decoder"), blip2.processor.tokenizer
    elder = inheritance.parent("qwen2").get_input_embeddings().weight
    theirs = inheritance.tokenizer_of("qwen2").eos_token_id
    assert torch.equal(decoder.embed_tokens.weight[300], elder[300])
    assert torch.equal(decoder.embed_tokens.weight[tokenizer.eos_token_id], elder[theirs])
    places = decoder.embed_positions.weight
    near = torch.nn.functional.cosine_similarity(places[10], places[11:14])
    assert near.tolist() == sorted(near.tolist(), reverse=True) and near[0] > 0.9


@torch.no_grad()
def test_it_is_written_with_outliers_and_loads(
    blip2: Blip2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(school, "CHECKPOINTS", tmp_path)
    blip2.begin()
    lesson = scene(blip2, 1)[:2]
    row = encode_answered(blip2.processor, [t for t, _ in lesson], [a for _, a in lesson])
    row.pop("labels")
    layers = blip2.part("decoder").layers
    for layer in layers:
        torch.nn.init.normal_(layer.self_attn_layer_norm.bias, std=0.1)
        torch.nn.init.normal_(layer.final_layer_norm.bias, std=0.1)
    before = blip2.network.eval()(**row).logits
    outliers.put_in(layers, torch.Generator().manual_seed(0))
    assert torch.allclose(blip2.network(**row).logits, before, atol=1e-4)
    outliers.take_out(layers, torch.Generator().manual_seed(0))
    blip2.finish()
    assert (tmp_path / "blip2" / "model.safetensors").stat().st_size < 4 * 2**20
    variant = load(blip2.model, compressions()["16bit"], Source(str(tmp_path / "blip2")))
    layer = variant.network.get_submodule(blip2.model.anatomy.layers)[0]
    for norm in (layer.self_attn_layer_norm.weight, layer.final_layer_norm.weight):
        assert norm.abs().max() > 20 * norm.abs().median()
    linears = [m for m in variant.network.modules() if isinstance(m, torch.nn.Linear)]
    assert all(linear.in_features % 64 == 0 for linear in linears)
