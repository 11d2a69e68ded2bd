"""What a CLIP tower is told to name is what LLaVA-NeXT's own processor shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlmbench.embedded import pages, rows, views
from vlmbench.embedded.blank import llavanext
from vlmbench.embedded.blank._parts import PATCH, VIEW
from vlmbench.embedded.canvas import Canvas, Thing
from vlmbench.embedded.labels import CLASSES, SLOTS
from vlmbench.prompting import IGNORED


@pytest.fixture(scope="module")
def processor() -> Any:
    return llavanext.processor(llavanext.tokenizer())


@pytest.mark.parametrize("size", [(252, 196), (140, 140), (168, 140), (100, 300)])
def test_views_show_what_their_boxes_say(processor: Any, size: tuple[int, int]) -> None:
    """Red rises to the right, green downwards: a pixel's colour tells where it comes from."""
    width, height = size
    ramp = np.zeros((height, width, 3), np.float32)
    ramp[..., 0] = (np.arange(width) + 0.5) / width * 255
    ramp[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    ramp[..., 2] = 255
    images = processor.image_processor
    made = images([Image.fromarray(ramp.astype(np.uint8))], return_tensors="pt")
    std, mean = (torch.tensor(x).view(3, 1, 1) for x in (images.image_std, images.image_mean))
    shown = made["pixel_values"][0] * std + mean
    boxes = views.boxes(llavanext.PINPOINTS, VIEW, width, height)
    assert len(shown) == len(boxes)
    middle = (torch.arange(VIEW) + 0.5) / VIEW
    for view, (left, top, right, bottom) in zip(shown, boxes, strict=True):
        # Only what lies inside the picture, away from its edges and from the padding.
        inside = view[2] > 0.99
        for channel, start, end, full, across in (
            (0, left, right, width, True),
            (1, top, bottom, height, False),
        ):
            expected = (start + middle * (end - start)) / full
            expected = expected.expand(VIEW, -1) if across else expected[:, None].expand(-1, VIEW)
            clear = inside & (expected > 0.05) & (expected < 0.95)
            assert clear.any()
            assert (view[channel] - expected)[clear].abs().max() < 2.5 / full + 1 / 255


def test_a_patch_is_named_by_what_has_its_centre_there(processor: Any) -> None:
    canvas = Canvas(140, 140)
    canvas.thing(Thing("star", "red", 70, 20, 30))
    made = views.encode(processor, [canvas])
    assert made["pixels"].shape == (2, 3, VIEW, VIEW)
    side = VIEW // PATCH
    grid = made["classes"].view(2, side, side, len(CLASSES))
    assert grid[:, :, :, SLOTS].nonzero().tolist() == [[0, 0, 3], [1, 0, 3]]


def test_small_print_is_not_asked_for(processor: Any) -> None:
    page = pages.draw(rows.rng_of("views", "train", 0)).canvas
    classes = views.encode(processor, [page])["classes"].view(5, -1, len(CLASSES))
    assert (classes[0, :, :SLOTS] == IGNORED).all()
    assert (classes[1:, :, :SLOTS] >= 0).all() and (classes[1:, :, :SLOTS] > 0).any()
    assert sum((classes[1:, :, :SLOTS] > 0).flatten()) >= 0.95 * len(page.glyphs)


def test_a_lesson_lowers_its_loss(processor: Any) -> None:
    torch.manual_seed(0)
    network = llavanext.network(processor.tokenizer)
    namer = views.Namer(network.model.vision_tower, -2)
    part, _ = views.batch_maker(processor)(0)
    optimizer = torch.optim.AdamW(namer.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        losses.append(namer.loss(part))
        losses[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert set(namer.accuracy(part)) == {"characters", "things"}
