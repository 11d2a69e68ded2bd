"""What a CLIP tower is told to name is what LLaVA-NeXT's own processor shows it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlmbench.embedded import inheritance, pages, rows, views
from vlmbench.embedded.blank import llavanext, phi3_5
from vlmbench.embedded.canvas import Canvas, Thing
from vlmbench.embedded.heir import Heir
from vlmbench.embedded.labels import CLASSES, SHADES, SLOTS, Box
from vlmbench.embedded.parts import PATCH, VIEW
from vlmbench.pictures import decode_picture
from vlmbench.prompting import IGNORED

SIDE = VIEW // PATCH


@pytest.fixture(scope="module")
def processor() -> Any:
    return llavanext.processor(llavanext.tokenizer())


def shown_by(processor: Any) -> views.Show:
    """As llavanext's school shows a canvas."""
    images = processor.image_processor

    def show(canvas: Canvas) -> tuple[torch.Tensor, list[Box]]:
        picture = decode_picture(canvas.png())
        made = images([picture], return_tensors="pt")["pixel_values"][0]
        return made, views.tiles(llavanext.PINPOINTS, VIEW, canvas.width, canvas.height)

    return show


def ramp(width: int, height: int) -> np.ndarray[Any, Any]:
    """Red rises to the right, green downwards: a pixel's colour tells where it comes from."""
    picture = np.full((height, width, 3), 128, np.float32)
    picture[..., 0] = (np.arange(width) + 0.5) / width * 255
    picture[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    return picture.round().astype(np.uint8)


def check(images: Any, made: Any, boxes: list[Box], width: int, height: int) -> None:
    """Views of a ramp against the boxes they are said to show."""
    std, mean = (torch.tensor(x).view(3, 1, 1) for x in (images.image_std, images.image_mean))
    shown = made * std + mean
    assert len(shown) == len(boxes)
    side = shown.shape[-1]
    middle = (torch.arange(side) + 0.5) / side
    for view, (left, top, right, bottom) in zip(shown, boxes, strict=True):
        x = ((left + middle * (right - left)) / width).expand(side, -1)
        y = ((top + middle * (bottom - top)) / height)[:, None].expand(-1, side)
        # What lies inside the picture, away from its edges and from the padding.
        clear = (x > 0.06) & (x < 0.94) & (y > 0.06) & (y < 0.94)
        assert not clear.any() or (view[2] - 128 / 255)[clear].abs().max() < 0.02
        for channel, expected in ((0, x), (1, y)):
            if clear.any():
                apart = (view[channel] - expected)[clear].abs().max()
                assert apart < 1.6 / 255 + 0.6 / min(width, height), "rounding, and resizing"


@pytest.mark.parametrize("size", [(252, 196), (140, 140), (168, 140), (100, 300)])
def test_views_show_what_their_boxes_say(processor: Any, size: tuple[int, int]) -> None:
    images = processor.image_processor
    made = images([Image.fromarray(ramp(*size))], return_tensors="pt")["pixel_values"][0]
    check(images, made, views.tiles(llavanext.PINPOINTS, VIEW, *size), *size)


def test_a_patch_is_named_by_what_has_its_centre_there(processor: Any) -> None:
    canvas = Canvas(140, 140)
    canvas.thing(Thing("star", "red", 70, 20, 30))
    made = views.encode(shown_by(processor), [canvas])
    assert made["pixels"].shape == (2, 3, VIEW, VIEW)
    grid = made["classes"].view(2, SIDE, SIDE, len(CLASSES))
    assert grid[:, :, :, SLOTS].nonzero().tolist() == [[0, 0, 3], [1, 0, 3]]


def test_small_print_is_not_asked_for(processor: Any) -> None:
    page = pages.draw(rows.rng_of("views", "train", 0)).canvas
    classes = views.encode(shown_by(processor), [page])["classes"].view(5, -1, len(CLASSES))
    assert (classes[0, :, :SLOTS] == IGNORED).all()
    assert (classes[1:, :, :SLOTS] != IGNORED).all() and (classes[1:, :, :SLOTS] > 0).any()
    assert sum((classes[1:, :, :SLOTS] > 0).flatten()) >= 0.95 * len(page.glyphs)


def test_a_lesson_lowers_its_loss(tmp_path: Path) -> None:
    heir = Heir("llavanext", tmp_path)
    namer = heir.namer()
    part, _ = views.batch_maker(heir.show)(0)
    optimizer = torch.optim.AdamW(namer.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        losses.append(namer.loss(part))
        losses[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert set(namer.accuracy(part)) == {"characters", "things"}


@pytest.mark.parametrize("size", [(252, 196), (140, 140), (168, 140), (100, 300)])
def test_crops_show_what_their_boxes_say(size: tuple[int, int]) -> None:
    """Phi-3.5: red rises to the right, green downwards."""
    images = phi3_5.processor(phi3_5.tokenizer()).image_processor
    made = images([Image.fromarray(ramp(*size))])["pixel_values"][0]
    scaled = partial(images._scaled, crops=images.num_crops)
    boxes = views.crops(scaled, phi3_5.VIEW, *size)
    check(images, made, boxes, *size)


def test_what_shows_a_thing_counts_ten_times() -> None:
    """And what shows a character five times as much as what shows nothing."""
    labels = torch.zeros(4, len(CLASSES) + SHADES)
    labels[1, 0] = 3
    labels[2, SLOTS] = 2
    wanted = torch.randn(4, 8)
    lost = []
    for place in range(3):
        heard = wanted.clone()
        heard[place] += 1
        lost.append(float(inheritance.misspoken(heard, wanted, labels)))
    assert [round(each / lost[0], 3) for each in lost] == [1.0, 5.0, 10.0]
    assert float(inheritance.misspoken(wanted, wanted, labels)) == 0.0
