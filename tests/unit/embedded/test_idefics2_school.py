"""Idefics2's training: what its patches and latents are told is what its processor shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlmbench.embedded import curriculum, gathering, inheritance, labels, losses, native, sequences
from vlmbench.embedded.blank import phi3_5
from vlmbench.embedded.canvas import Canvas, Thing
from vlmbench.embedded.gathering import Idefics2
from vlmbench.embedded.lessons import LESSONS
from vlmbench.prompting import IGNORED, encode_answered

LABELS = sum(labels.CLASSES) + labels.SHADES


@pytest.fixture
def school(tmp_path: Path) -> Idefics2:
    return Idefics2("idefics2", tmp_path)


def starry() -> list[Canvas]:
    """A wide sheet, and a scene with a star in its third row and fifth column."""
    scene = Canvas(140, 140)
    scene.thing(Thing("star", "red", 125, 70, 26))
    return [Canvas(252, 56), scene]


def words(dim: int = 128) -> torch.Tensor:
    return torch.randn(LABELS + 1, dim, generator=torch.Generator().manual_seed(0))


def fallen(learner: Any, batch: native.Batch, steps: int = 5) -> list[float]:
    """The loss of a few steps on one batch."""
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    seen = []
    for _ in range(steps):
        loss = learner.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize("size", [(252, 196), (140, 140), (168, 140), (252, 28), (252, 84)])
def test_drawn_pictures_keep_their_size(school: Idefics2, size: tuple[int, int]) -> None:
    """Each of their patches shows what drawing says that it does."""
    width, height = size
    across, down = np.meshgrid(np.arange(width) // 28, np.arange(height) // 28)
    canvases = [Canvas(width, height), Canvas(width, height), Canvas(252, 196)]
    for canvas, steps in zip(canvases[:2], (down, across), strict=True):
        canvas.image.paste(Image.fromarray((steps * 20).astype(np.uint8)))
    made = native.encode(school.processor, canvases)
    for picture in (0, 1):
        places = made["places"][made["places"][:, 0] == picture]
        _, row, column = places.T
        assert torch.equal(row * (width // 28) + column, torch.arange(len(labels.of(canvases[0]))))
        patches = made["pixel_values"][picture, 0].unfold(0, 28, 28).unfold(1, 28, 28)
        shown = (patches[row, column] + 1) * 127.5 / 20
        assert (shown - places[:, 1 + picture, None, None]).abs().max() < 0.1


def test_a_latent_is_told_what_its_row_and_column_show(school: Idefics2) -> None:
    batch = native.encode(school.processor, starry())
    assert batch["pixel_values"].shape == (2, 3, 140, 252)
    assert batch["places"].amax(0).tolist() == [1, 4, 8]
    silent = words()
    silent[-1 - labels.SHADES : -1] = 0  # of shades, which differ everywhere
    gatherer = native.Gatherer(school.network.model, silent)
    held = native.held(batch["labels"], batch["places"])
    wanted = inheritance.said(held.flatten(0, 1), silent).view(2, 64, 128)
    blank = wanted[0, 0]
    different = (wanted != blank).any(-1).nonzero().tolist()
    assert different == [[1, 9 * 2 + 4]], "row 2, column 4"
    assert gatherer._misspoken(wanted, batch) == 0
    moved = wanted.roll(1, dims=1)
    assert gatherer._misspoken(moved, batch) > 0.1


def begin(school: Idefics2) -> tuple[torch.Tensor, torch.Tensor]:
    """A perceiver that could say words of a starry sky, and both."""
    batch = native.encode(school.processor, starry())
    shown = native.held(batch["labels"], batch["places"]).flatten(0, 1)
    heard = native.audible(words(), shown)
    native.begin(school.part("projector"), heard, shown, torch.Generator().manual_seed(0))
    return heard, shown


@torch.no_grad()
def test_the_perceiver_can_say_what_the_decoder_learns_to_hear(school: Idefics2) -> None:
    """Its norm is as loud as what it has to say; what is not heard is not in the words."""
    heard, shown = begin(school)
    norm = school.part("projector").perceiver_resampler.norm.weight
    unheard = norm == 0
    assert int(unheard.sum()) == native.UNHEARD
    assert torch.equal(unheard, (heard == 0).all(0))
    loud = inheritance.said(shown, words()).square() * inheritance.weights(shown)[:, None]
    assert loud.sum(0)[unheard].max() <= loud.sum(0)[~unheard].min()
    loudness = inheritance.said(shown, heard).square().mean(1).sqrt()
    assert (loudness <= norm.max() + 1e-6).float().mean() >= 0.98
    assert norm.max() <= loudness.max() + 1e-6


@torch.no_grad()
def test_latents_say_what_the_decoder_is_given(school: Idefics2) -> None:
    begin(school)
    gatherer = native.Gatherer(school.network.model, words())
    batch = native.encode(school.processor, starry())
    pixels, mask = batch["pixel_values"][:, None], batch["pixel_attention_mask"][:, None]
    given = torch.stack(school.network.model.get_image_features(pixels, mask).pooler_output)
    assert torch.allclose(gatherer(batch)[0], given, atol=1e-5)
    assert given.std(1).mean() > 0.01, "latents differ"


@torch.no_grad()
def test_a_latent_that_looks_at_its_patch_does_not_go_astray(school: Idefics2) -> None:
    """The looks are those of the perceiver's own attention."""
    begin(school)
    gatherer = native.Gatherer(school.network.model, words())
    batch = native.encode(school.processor, starry()[1:])
    _, context = gatherer(batch)
    perceiver = school.network.model.connector.perceiver_resampler
    perceiver.set_attn_implementation("eager")
    latents = perceiver.latents[None]
    layer = perceiver.layers[0]
    attend = layer.self_attn
    _, looks = attend(layer.input_latents_norm(latents), layer.input_context_norm(context))
    looks = looks[0, :, :, : context.shape[1]]
    looks = looks / looks.sum(-1, keepdim=True)
    rows, columns = batch["places"][:, 1], batch["places"][:, 2]
    expected = -looks[:, 9 * rows + columns, 5 * rows + columns].log().mean()
    assert float(gatherer._mislooked(context, batch)) == pytest.approx(float(expected), abs=1e-5)


def test_each_lesson_lowers_its_loss(school: Idefics2) -> None:
    pages, drawings = native.batch_maker(school.processor)(0)
    assert {len(pages["pixel_values"]), len(drawings["pixel_values"])} == {16}
    namer = native.Namer(school.tower())
    before, *_, after = fallen(namer, drawings)
    assert after < before
    assert set(namer.measure(pages)) == {"characters", "things", "places"}
    begin(school)
    gatherer = native.Gatherer(school.network.model, words())
    before, *_, after = fallen(gatherer, drawings)
    assert after < before
    assert set(gatherer.measure(pages)) == {"unexplained", "astray"}


@pytest.mark.usefixtures("brief")
def test_a_stage_resumes(school: Idefics2, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the first of two steps it goes on from there; the decoder is left alone."""
    monkeypatch.setattr(native, "BATCH", 4)
    monkeypatch.setattr(native, "STRIPS", 1)
    monkeypatch.setattr(native, "FRAMES", 1)
    plan = replace(gathering.GATHERING, steps=2, save_every=1)
    monkeypatch.setattr(gathering, "GATHERING", plan)
    said: list[Any] = []
    monkeypatch.setattr(school, "_say", lambda *told: said.append(told))
    school.inherit()
    decoder = {name: p.clone() for name, p in school.part("decoder").named_parameters()}

    monkeypatch.setattr(gathering, "GATHERING", replace(plan, steps=1))
    Idefics2._say(school, *said[0])
    once = school.part("projector").perceiver_resampler.latents.clone()
    monkeypatch.setattr(gathering, "GATHERING", plan)
    Idefics2._say(school, *said[0])
    assert all(torch.equal(p, decoder[n]) for n, p in school.part("decoder").named_parameters())
    learnt = school.part("projector").perceiver_resampler.latents.clone()
    assert not torch.equal(once, learnt)
    again = Idefics2("idefics2", school.work)
    again.inherit()
    assert torch.equal(again.part("projector").perceiver_resampler.latents, learnt)
    curve = (school.work / "gathering" / "curve.jsonl").read_text().splitlines()
    assert len(curve) == 2 and "astray on drawings" in curve[0]


@torch.no_grad()
def test_a_sequence_asks_what_its_questions_ask_alone(school: Idefics2) -> None:
    """Pictures of several sizes side by side, filled up as the processor does."""
    begin(school)
    network = school.network.eval()
    taught = [LESSONS["scene"](1), LESSONS["strip"](2), LESSONS["clip"](1)[:2]]
    lessons = [curriculum._taken(school.model, lesson) for lesson in taught]
    apart, weighed = 0.0, 0.0
    for lesson in lessons:
        rows = encode_answered(school.processor, [t for t, _ in lesson], [a for _, a in lesson])
        wanted = rows.pop("labels")[:, 1:]
        logits = network(**rows).logits[:, :-1].transpose(1, 2)
        each = torch.nn.functional.cross_entropy(
            logits, wanted, ignore_index=IGNORED, reduction="none"
        )
        counts = (wanted != IGNORED).sum(1).sqrt()
        apart, weighed = apart + float((each.sum(1) / counts).sum()), weighed + float(counts.sum())
    made = [sequences.encode(school.processor, network, lesson) for lesson in lessons]
    batch = sequences.stacked(made)
    together = losses.loss(network, school.model.anatomy, batch)
    assert float(together) == pytest.approx(apart / weighed, abs=1e-5)


def test_the_network_is_taught_beside_its_elder(school: Idefics2) -> None:
    begin(school)
    stage = replace(curriculum.IMITATING, batch=2, weights={"scene": 0.5, "clip": 0.5})
    elder = inheritance.processor_of("qwen2"), school.elder
    parts = curriculum.batch_maker(school.processor, school.network, stage, school.model, elder)(1)
    for part in parts:
        loss = losses.loss(
            school.network, school.model.anatomy, part, steps=True, elder=school.elder
        )
        loss.backward()
    latents = school.part("projector").perceiver_resampler.latents
    assert latents.grad is not None and latents.grad.abs().sum() > 0


@torch.no_grad()
def test_phi3s_fused_linears_come_apart(school: Idefics2) -> None:
    """A text is gone on with as Phi-3.5 does."""
    theirs = phi3_5.tokenizer()
    elder = phi3_5.network(theirs).eval()
    inheritance.take_over(
        (school.part("decoder"), school.part("head")),
        (elder.model, elder.lm_head),
        (school.processor.tokenizer, theirs),
    )
    ids = torch.tensor([[72, 300, 411, 95, 631, 8]])
    mine, other = (n(input_ids=ids).logits[..., :632] for n in (school.network.eval(), elder))
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


def test_it_stays_small(school: Idefics2) -> None:
    """Shipped in bfloat16, below four MiB."""
    assert sum(p.numel() for p in school.network.parameters()) * 2 < 4 * 2**20 - 2**15
    linears = [m for m in school.network.modules() if isinstance(m, torch.nn.Linear)]
    assert all(linear.in_features % 64 == 0 for linear in linears)
